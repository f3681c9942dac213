"""``fedsi export``: export of a trained model to a file for other programs."""

import json
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from fedsi.files import make_folder, write_atomically
from simulations.cli import options
from simulations.cli.foreign_output import others_to_stderr
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from simulations.finished_run import FinishedRun


class ExportFormat(StrEnum):
    """Export formats; the keys of ``fedsi.inference.export.FORMATS``."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


def export(
    run: options.RunFolderArgument,
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="What to write; needed unless the run is published."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="By default model.onnx or model.pt2 in the run's folder."
        ),
    ] = None,
    output_layer: options.OutputLayer = "exact",
    top: Annotated[
        int, typer.Option(min=1, help="Words to return, unless the layer is exact.")
    ] = 3,
    candidates: options.Candidates = None,
    rank: options.Rank = None,
    publish: options.Publish = None,
    heldout_is_public: options.HeldoutIsPublic = False,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
) -> None:
    """Write a trained model as a function from token ids to logits, or publish it."""
    from fedsi.inference.export import FORMATS
    from fedsi.inference.ranking import ranks_labels
    from fedsi.inference.top_k.exported import exported_layer
    from fedsi.inference.top_k.layer import Choice
    from server.runs.folder import EXPORTED
    from simulations.finished_run import open_run

    options.check_publish(publish, heldout_is_public=heldout_is_public)
    if publish and out:
        raise UserError("give either --out or --publish: published files go into one folder")
    if publish and best:
        raise UserError(
            "give either --best or --publish: which model is the best follows from the held-out "
            "clients' text, which epsilon does not cover"
        )
    if not form and not publish:
        choices = " or ".join(ExportFormat)
        raise UserError(
            f"choose what to write with --format {choices}, or a folder with --publish DIR"
        )
    with others_to_stderr():  # a user's model may print
        finished = open_run(run, trust=trust, best=best)
        made = {}
        if form:
            choice = Choice(top, candidates, rank)
            outputs = exported_layer(finished.trained, output_layer, choice, form.value)
            made[EXPORTED[form.value]] = FORMATS[form.value](finished.trained, outputs)
    if publish:
        _publish(finished, publish, made, heldout_is_public=heldout_is_public, as_json=as_json)
        return
    ((name, content),) = made.items()
    path = out or run / name
    make_folder(path.parent)
    write_atomically(path, content)
    facts = {
        "file": str(path),
        "format": str(form),
        "output_layer": output_layer,
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        "vocabulary": str(run / finished.trained.vocabulary.file_name),
        "vocabulary_size": len(finished.trained.vocabulary),
        "longest_sequence": finished.trained.model.longest,
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        labelled = ranks_labels(finished.trained)
        result = "scores [batch, time, labels]" if labelled else "logits [batch, time, vocabulary]"
        if output_layer != "exact":
            result = f"words, scores [batch, time, {top}]"
        signature = f"tokens int64 [batch, time] -> {result}"
        typer.echo(f"{one_line(str(path))}: {signature}")


def _publish(
    run: "FinishedRun",
    place: Path,
    more: dict[str, bytes],
    *,
    heldout_is_public: bool,
    as_json: bool,
) -> None:
    from simulations.publish import publish

    names = publish(run, place, more, heldout_is_public=heldout_is_public)
    if as_json:
        typer.echo(json.dumps({"published": str(place), "files": names}))
    else:
        typer.echo(f"{one_line(str(place))}: {', '.join(names)}")
