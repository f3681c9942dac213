"""The table of output layers, ``--output-layer``. A new one is a file and an entry here."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.inference.top_k.layer import LayerKind

OUTPUT_LAYERS: "Table[LayerKind]" = Table(
    "--output-layer",
    "fedsi.inference.top_k.layer:LayerKind",
    "KIND",
    {
        name: f"fedsi.inference.top_k.{name}"
        for name in ("exact", "int8", "hire_q", "hire_lr", "hire_certified")
    },
)
