"""``fedsi predict`` and ``fedsi generate``: next words and texts from a trained model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fedsi.errors import UserError
from simulations.cli import options
from simulations.cli.foreign_output import others_to_stderr
from simulations.cli.wide_table import print_table
from simulations.safe_text import visible

if TYPE_CHECKING:
    from fedsi.inference.ranking import Ranked
    from fedsi.inference.reading import TrainedModel
    from fedsi.inference.top_k.suggestions import Suggestions

_LONGEST_TITLE = 60


def predict(
    run: options.RunFolderArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text so far.")],
    top: Annotated[int, typer.Option(min=1, help="Words to show.")] = 3,
    output_layer: options.OutputLayer = "exact",
    candidates: options.Candidates = None,
    rank: options.Rank = None,
    as_json: options.Json = False,
    trust: options.Trust = False,
    best: options.Best = False,
) -> None:
    """Show the next words that a trained model predicts, or the labels that it ranks first."""
    from fedsi.inference.ranking import rank_labels, ranks_labels
    from fedsi.threads import torch_threads
    from simulations.finished_run import open_run

    with others_to_stderr(), torch_threads(1):  # a user's model may print
        finished = open_run(run, trust=trust, best=best)
        trained = finished.trained
        ranking, found = None, None
        if not ranks_labels(trained):
            found = _predicted(trained, text, output_layer, top, candidates, rank)
        elif output_layer == "exact":
            longest = finished.experiment.data.sequence_length
            ranking = rank_labels(trained, text, longest, top)
        else:
            raise UserError(
                f"--output-layer {output_layer} has no effect: the model ranks labels; leave it out"
            )
    if ranking is not None:
        _show_ranking(text, ranking, as_json=as_json)
    if found is not None:
        _show_words(trained, found, as_json=as_json)


def _show_words(trained: "TrainedModel", found: "Suggestions", *, as_json: bool) -> None:
    """Show the next words, and the probability of another continuation."""
    read = trained.vocabulary.decode(found.tokens[1:])
    if as_json:
        typer.echo(json.dumps(_to_json(read, found), allow_nan=False))
        return
    shown = read if len(read) <= _LONGEST_TITLE else f"...{read[-_LONGEST_TITLE:]}"
    rows = []
    for candidate in found.words:
        # A space that begins a word would be invisible.
        word = candidate.word
        word = f"\u2423{word[1:]}" if word.startswith(" ") else word
        rows.append((word, f"{candidate.probability:.4f}"))
    others = ((found.end, "the sentence ends"), (found.unknown, "an unknown word"))
    rows += [(f"({label})", f"{probability:.4f}") for probability, label in others]
    print_table(options.output(), f"After {shown!r}", ("next word", "probability"), rows)


def _show_ranking(text: str, ranking: "Sequence[Ranked]", *, as_json: bool) -> None:
    """Show the labels of a query, the best first."""
    if as_json:
        labels = [asdict(one) for one in ranking]
        typer.echo(json.dumps({"query": text, "labels": labels}, allow_nan=False))
        return
    shown = text if len(text) <= _LONGEST_TITLE else f"...{text[-_LONGEST_TITLE:]}"
    rows = [(one.label, one.text, f"{one.probability:.4f}") for one in ranking]
    print_table(options.output(), f"For {shown!r}", ("label", "text", "probability"), rows)


def _predicted(
    trained: "TrainedModel",
    text: str,
    output_layer: str,
    top: int,
    number: int | None,
    rank: int | None,
) -> "Suggestions":
    """Return the next words by an output layer."""
    from fedsi.data.protocol import EOS, OOV
    from fedsi.inference.reading import candidates, read_prompt, tokens_of
    from fedsi.inference.top_k import suggestions
    from fedsi.inference.top_k.layer import Choice, check_choice
    from fedsi.inference.top_k.table import OUTPUT_LAYERS

    choice = Choice(top, number, rank)
    if output_layer == "exact":
        check_choice(OUTPUT_LAYERS[output_layer], output_layer, choice)
        reading = read_prompt(trained, text)
        end, unknown = (float(reading.log_probabilities[token].exp()) for token in (EOS, OOV))
        words = candidates(trained, reading, top)
        return suggestions.Suggestions(reading.tokens, words, end, unknown)
    tokens = tokens_of(trained, text)
    layer = suggestions.build_layer(trained, output_layer, choice)
    typed = suggestions.type_on(trained, suggestions.start_typing(trained), tokens)
    return suggestions.suggest(trained, typed, layer, top)


def _to_json(read: str, found: "Suggestions") -> dict[str, object]:
    return {
        "read": read,
        "tokens": list(found.tokens),
        "candidates": [
            {"word": c.word, "token": c.token, "probability": c.probability} for c in found.words
        ],
        "end_probability": found.end,
        "unknown_probability": found.unknown,
    }


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
    from fedsi.inference.ranking import refuse_labels
    from fedsi.inference.reading import begin, read_prompt
    from fedsi.threads import torch_threads
    from simulations.finished_run import open_run

    if not 0 < temperature < float("inf"):
        raise UserError(f"--temperature {temperature:g} is not allowed: give a number above 0")
    with others_to_stderr(), torch_threads(1):
        trained = open_run(run, trust=trust, best=best).trained
        refuse_labels(trained, "fedsi generate")
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
