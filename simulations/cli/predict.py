"""``fedsi predict`` and ``fedsi generate``: next words and texts from a trained model."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.foreign_output import others_to_stderr
from simulations.safe_text import visible

if TYPE_CHECKING:
    from fedsi.inference.reading import Candidate, Reading, TrainedModel

_LONGEST_TITLE = 60


def predict(
    run: options.RunFolderArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text so far.")],
    top: Annotated[int, typer.Option(min=1, help="Words to show.")] = 3,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
) -> None:
    """Show the next words that a trained model predicts."""
    from fedsi.data.protocol import EOS, OOV
    from fedsi.inference.reading import candidates, read_prompt
    from fedsi.threads import torch_threads
    from simulations.finished_run import open_run

    with others_to_stderr(), torch_threads(1):  # a user's model may print
        trained = open_run(run, trust=trust, best=best).trained
        reading = read_prompt(trained, text)
    found = candidates(trained, reading, top)
    if as_json:
        typer.echo(json.dumps(_to_json(trained, reading, found), allow_nan=False))
        return
    read = trained.vocabulary.decode(reading.tokens[1:])
    shown = read if len(read) <= _LONGEST_TITLE else f"...{read[-_LONGEST_TITLE:]}"
    table = Table(title=f"After {shown!r}", title_justify="left")
    table.add_column("next word")
    table.add_column("probability", justify="right")
    for candidate in found:
        # A space that begins a word would be invisible.
        word = candidate.word
        word = f"\u2423{word[1:]}" if word.startswith(" ") else word
        table.add_row(word, f"{candidate.probability:.4f}")
    others = ((EOS, "the sentence ends"), (OOV, "an unknown word"))
    for token, label in others:
        table.add_row(f"({label})", f"{_probability(reading, token):.4f}")
    options.output().print(table)


def _to_json(
    trained: "TrainedModel", reading: "Reading", found: list["Candidate"]
) -> dict[str, object]:
    from fedsi.data.protocol import EOS, OOV

    return {
        "read": trained.vocabulary.decode(reading.tokens[1:]),
        "tokens": list(reading.tokens),
        "candidates": [
            {"word": c.word, "token": c.token, "probability": c.probability} for c in found
        ],
        "end_probability": _probability(reading, EOS),
        "unknown_probability": _probability(reading, OOV),
    }


def _probability(reading: "Reading", token: int) -> float:
    return float(reading.log_probabilities[token].exp())


def generate(
    run: options.RunFolderArgument,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Start of the text; by default empty.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Most words to add.")] = 20,
    temperature: Annotated[
        float, typer.Option(help="Below 1, likely words become likelier; above 1, less so.")
    ] = 1.0,
    top: Annotated[
        int | None, typer.Option(min=1, help="Draw from this many most likely words only.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
) -> None:
    """Generate text with a trained model."""
    from fedsi.inference.generation import write_on
    from fedsi.inference.reading import begin, read_prompt
    from fedsi.threads import torch_threads
    from simulations.finished_run import open_run

    if not 0 < temperature < float("inf"):
        raise UserError(f"--temperature {temperature:g} is not allowed: give a number above 0")
    with others_to_stderr(), torch_threads(1):
        trained = open_run(run, trust=trust, best=best).trained
        reading = begin(trained) if prompt is None else read_prompt(trained, prompt)
        written = write_on(
            trained, reading, length=length, temperature=temperature, most=top, seed=seed
        )
    text = trained.vocabulary.decode(reading.tokens[1:] + written.tokens)
    if as_json:
        found = {
            "prompt": prompt,
            "text": text,
            "tokens": list(written.tokens),
            "ended": written.ended,
            "seed": seed,
        }
        typer.echo(json.dumps(found))
    else:
        typer.echo(visible(text))
    if len(written.tokens) < length and not written.ended:
        options.messages().print(
            f"stopped after {len(written.tokens)} words: the model has {trained.model.longest} "
            "learned positions"
        )
