"""The documentation matches the program: keys, formats, valid commands, working code."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text

from fedsi import Experiment
from fedsi.data.formats.table import FORMATS
from fedsi.experiment import parse_overrides
from fedsi.experiment.keys import page
from simulations import simulate
from simulations.cli.main import app, main
from simulations.presets import load_preset
from simulations.studies.privacy_levels import without_noise
from simulations.studies.study import Study

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    *(
        f"docs/{page}.md"
        for page in (
            "tutorial",
            "data",
            "own-model",
            "own-server-optimizer",
            "algorithms",
            "using",
            "on-device",
            "privacy",
            "models",
            "sequence-tasks",
            "security",
            "commands",
            "studies",
            "warm-start",
            "watching",
            "cluster",
            "faults",
        )
    ),
]


def fenced(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    block = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return block.findall((ROOT / page).read_text())


def test_the_page_of_keys_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "--markdown"]) == 0
    assert (ROOT / "docs/keys.md").read_text() == capsys.readouterr().out, (
        "write it anew: fedsi keys --markdown > docs/keys.md"
    )


def test_the_page_has_every_key_and_a_meaning_for_it() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `.+` \| .+ \| (.+) \|$", page(), re.MULTILINE)
    assert [name for name, _ in rows] == list(Experiment().flat())


def test_keys_are_found_by_section_and_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "server", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key["name"].partition(".")[0] for key in found} == {"server"}
    assert main(["keys", "server.rounds", "--json"]) == 0
    (rounds,) = json.loads(capsys.readouterr().out)
    assert (rounds["default"], rounds["meaning"]) == ("300", "Number of rounds.")
    assert main(["keys", "servr"]) == 2
    assert "did you mean server" in capsys.readouterr().err


def test_every_format_has_a_command() -> None:
    text = (ROOT / "docs/data.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| `(fedsi run [^`]*)` \|$", text, re.MULTILINE)
    assert {name for name, _ in rows} == set(FORMATS)


def commands(command: Any, path: str = "fedsi") -> Iterator[tuple[str, Any]]:
    """Yield each command below one, with its name."""
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


def test_every_command_is_on_the_page_of_commands_and_no_other() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    found = re.findall(r"^\| `(fedsi [\w -]+)` \| (.+) \|$", text, re.MULTILINE)
    assert found == [
        (name, " ".join(command.help.split("\n\n")[0].split()))
        for name, command in commands(typer.main.get_command(app))
    ]


def test_no_help_has_words_in_brackets_which_rich_would_swallow() -> None:
    swallowed = [
        f"{name}: {text}"
        for name, command in commands(typer.main.get_command(app))
        for text in (command.help, *(getattr(one, "help", None) or "" for one in command.params))
        if Text.from_markup(text).plain != text.rstrip()
    ]
    assert not swallowed


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_commands_are_allowed(page: str) -> None:
    text = (ROOT / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"fedsi (?:run|compare|tradeoff|audit|lengths|data|sweep) [^`\n]*", text)
    assert commands
    for command in commands:
        words = shlex.split(command.partition("#")[0])
        settings = [after for word, after in pairwise(words) if word == "--set"]
        named = [one for one in words[2:4] if re.fullmatch(r"[^=]*\.(csv|jsonl)(\.gz)?", one)]
        settings = [*(f"data.corpus={one}" for one in named), *settings]
        presets = [after for word, after in pairwise(words) if word == "--preset"]
        base = load_preset(presets[0]) if presets else Experiment()
        update = without_noise if words[1] == "tradeoff" else Experiment.updated
        update(base, parse_overrides(settings))


def test_the_studies_of_their_page_can_be_run() -> None:
    studies = [Study.from_toml(text) for text in fenced("docs/studies.md", "toml")]
    assert [len(study.trials()) for study in studies] == [18, 6, 2]
    assert {study.design for study in studies} == {"grid", "halving"}


@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/using.md", "docs/watching.md"])
def test_python_code_runs(
    page: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        simulate, "__kwdefaults__", {**(simulate.__kwdefaults__ or {}), "cache": cache}
    )
    for code in fenced(page, "python"):
        exec(compile(code, page, "exec"), {})


NOT_PRINTED = ("try", "node", "shard", "audit", "conformance", "lengths")
"""Commands of samples that are not run here: they do not end, or take long."""
WITHOUT_CORPUS = ("predict", "generate", "export", "privacy", "presets")


def shaped(text: str) -> list[str]:
    """Return lines without what may differ: numbers, widths of columns, empty lines."""
    lines = (
        re.sub(r"\d[\d,.]*", "#", re.sub("[\u2500-\u257f ]+", " ", one)) for one in text.split("\n")
    )
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.slow
def test_samples_of_output_are_what_commands_print(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/commands.md").read_text()
    compared = 0
    for command, sample in re.findall(
        r"^```\n\$ fedsi ((?:[^\n]*\\\n)*[^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    ):
        words = shlex.split(command.replace("\\\n", " "))
        if {*words[:2]} & {*NOT_PRINTED}:
            continue
        where = [] if words[0] in WITHOUT_CORPUS else ["--cache", str(cache)]
        # Tables of a sample are as wide as they were printed.
        width = max(
            (len(one) for one in sample.split("\n") if one.startswith("\u250f")), default=90
        )
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        assert main([*words, *where]) == 0
        printed, told = capsys.readouterr()
        beside = {*shaped(told)}
        assert [line for line in shaped(sample) if line not in beside] == shaped(printed), command
        compared += 1
    assert compared >= 12
