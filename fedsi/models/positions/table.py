"""The table of position encodings: modules that end with their ``ENCODING``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.models.positions.encoding import Encoding

ENCODINGS: "Table[Encoding]" = Table(
    "model.positions",
    "fedsi.models.positions.encoding:Encoding",
    "ENCODING",
    {
        "none": "fedsi.models.positions.encoding",
        "learned": "fedsi.models.positions.learned",
        "sinusoidal": "fedsi.models.positions.sinusoidal",
        "rotary": "fedsi.models.positions.rotary",
        "alibi": "fedsi.models.positions.alibi",
        "t5": "fedsi.models.positions.t5",
        "kerple": "fedsi.models.positions.kerple",
        "fire": "fedsi.models.positions.fire",
        "relative": "fedsi.models.positions.relative",
    },
)
