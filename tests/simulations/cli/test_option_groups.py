"""Options that several commands share."""

from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from simulations.cli import options, studies
from simulations.cli.main import app
from simulations.cli.option_groups import grouped

STUDIES = ("compare", "tradeoff", "lengths", "study", "sweep")


@dataclass(frozen=True)
class Colours:
    """Some options."""

    front: Annotated[str, typer.Option(help="The text's.")] = "black"
    many: Annotated[int | None, typer.Option("--count", min=1)] = None


def test_a_group_gives_a_command_its_options_and_one_value() -> None:
    told: list[object] = []
    own = typer.Typer()

    @own.command()
    @grouped
    def paint(*, what: str, colours: Colours, fast: bool = False) -> None:
        """Paint something."""
        told.append((what, colours, fast))

    run = CliRunner().invoke
    assert run(own, ["wall", "--front", "red", "--count", "2", "--fast"]).exit_code == 0
    assert run(own, ["door"]).exit_code == 0
    assert told == [("wall", Colours("red", 2), True), ("door", Colours(), False)]
    assert run(own, ["wall", "--count", "0"]).exit_code == 2
    assert run(own, []).exit_code == 2


@pytest.mark.parametrize("name", STUDIES)
def test_commands_of_studies_take_all_shared_options(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    taken = {parameter.name for parameter in command.params}
    assert {one.name for one in fields(studies.How)} <= taken
    assert name == "study" or {one.name for one in fields(options.Base)} <= taken
