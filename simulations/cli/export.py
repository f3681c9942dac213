"""``fedsi export``: a trained model as a file for other programs."""

import json
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from fedsi.files import make_folder, write_atomically
from simulations.cli import options
from simulations.text import one_line


class Format(StrEnum):
    """What can be written; the keys of ``fedsi.inference.export.FORMATS``."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


def export(
    run: options.FinishedRun,
    form: Annotated[Format, typer.Option("--format", help="What to write.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="By default model.onnx or model.pt2 in the run's folder."
        ),
    ] = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
) -> None:
    """Write a trained model as a function from tokens [batch, time] to logits."""
    from fedsi.inference.export import FORMATS
    from server.run_folder import EXPORTED
    from simulations.trained import open_run

    with redirect_stdout(sys.stderr):  # a user's model may print
        finished = open_run(run, trust=trust)
        content = FORMATS[form.value](finished.trained)
    path = out or run / EXPORTED[form.value]
    make_folder(path.parent)
    write_atomically(path, content)
    facts = {
        "file": str(path),
        "format": form.value,
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "vocabulary": str(run / finished.trained.vocabulary.file_name),
        "vocabulary_size": len(finished.trained.vocabulary),
        "longest_sequence": finished.trained.longest,
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        signature = "tokens int64 [batch, time] -> logits [batch, time, vocabulary]"
        typer.echo(f"{one_line(str(path))}: {signature}")
