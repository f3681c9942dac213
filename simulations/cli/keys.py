"""``fedsi keys``: the keys of an experiment and their allowed values."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.cli import options
from simulations.cli.wide_table import print_table

if TYPE_CHECKING:
    from fedsi.experiment.keys import Section


def keys(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[SECTION | KEY]",
            help="For example server, or server.rounds; by default all keys.",
            show_default=False,
        ),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, as in docs/keys.md.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List the keys of an experiment with defaults, allowed values and meanings."""
    from fedsi.experiment.keys import keys_markdown, keys_of, page, sections

    chosen = keys_of(name) if name else sections()
    if as_json:
        typer.echo(json.dumps([asdict(key) for section in chosen for key in section.keys]))
    elif as_markdown:
        typer.echo((keys_markdown(chosen) if name else page()).rstrip("\n"))
    else:
        for section in chosen:
            _print(section)


def _print(section: "Section") -> None:
    title = f"{section.name}: {section.about}" if section.name else section.about
    header = ("key", "default", "allowed", "meaning")
    rows = [
        [text.replace("``", "") for text in (key.name, key.default, key.allowed, key.meaning)]
        for key in section.keys
    ]
    print_table(options.output(), title.replace("``", ""), header, rows, prose=header)
