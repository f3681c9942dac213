"""What several commands share: options, and how they become an experiment."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from fedsi.data.cache import DEFAULT_CACHE
from fedsi.errors import UnfinishedError, UserError
from fedsi.files import cannot_write, make_folder
from simulations.presets import load_preset, preset_names
from simulations.text import visible

if TYPE_CHECKING:
    from fedsi.experiment import Experiment

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[EXPERIMENT.toml | CORPUS]",
        help="A TOML file; or a corpus, for the preset's settings or the usual ones.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"One of {', '.join(preset_names())}; fedsi presets says more.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be given several times."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the results; by default one with the time."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Cache = Annotated[Path, typer.Option("--cache", metavar="DIR", help="Folder for prepared corpora.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what the folder holds.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the code that the file or folder names as its model."),
]

Publish = Annotated[
    Path | None,
    typer.Option(
        "--publish",
        metavar="DIR",
        help="Write what epsilon covers of a private run, and nothing else, to an empty folder.",
    ),
]
HeldoutIsPublic = Annotated[
    bool,
    typer.Option(
        "--heldout-is-public", help="With --publish: state the metrics of held-out clients too."
    ),
]

Best = Annotated[
    bool,
    typer.Option("--best", help="The model of the lowest held-out loss, not of the last round."),
]
RunFolderArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]

CACHE = DEFAULT_CACHE


class StoppedError(UnfinishedError):
    """The person stopped the command; the message says how to go on."""


class PlainConsole(Console):
    """A console that prints strings as they are, in tables too: no markup, emoji or escapes.

    Args:
        stderr: Whether it writes to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as the text that is printed; every string comes by here."""
        return super().render_str(visible(text), **options)


def named(file: Path | None, preset: str | None) -> "Experiment":
    """Return the experiment that is named, or the default one, on the corpus that is named.

    Raises:
        UserError: Both a file and a preset, or a file or preset that cannot be read.
    """
    from fedsi.experiment import Experiment

    corpus = file if file and _is_corpus(file) else None
    if file and preset and not corpus:
        raise UserError(f"give either a file ({file}) or --preset {preset}, not both")
    if file and not corpus:
        return Experiment.from_file(file)
    base = load_preset(preset) if preset else Experiment()
    return base.updated({"data.corpus": str(corpus)}) if corpus else base


def _is_corpus(path: Path) -> bool:
    """Whether a path is that of a corpus, and not of an experiment.

    Raises:
        UserError: It is the folder of a run.
    """
    from fedsi.data.formats.listing import parts_of
    from fedsi.data.formats.recognition import recognise
    from fedsi.data.left_out import LeftOut
    from fedsi.experiment.data import MADE_HERE
    from server.runs.folder import EXPERIMENT

    if (path / EXPERIMENT).exists():
        raise UserError(f"{path} holds a run; continue it with: fedsi run --resume --out {path}")
    if path.is_dir() or (str(path) in MADE_HERE and not path.exists()):
        return True
    try:
        return bool(path.is_file() and recognise(path, parts_of(path, LeftOut())))
    except UserError:  # no ending of a corpus
        return False


def chosen_experiment(
    file: Path | None, preset: str | None, overrides: list[str] | None, *, trust: bool = False
) -> "Experiment":
    """Build the experiment that the options describe.

    Raises:
        UserError: Both a file and a preset, anything that the experiment refuses, or code that the
            file names and that may not be imported without ``trust``.
    """
    from fedsi.experiment import parse_overrides
    from fedsi.trust import check_trusted

    changes = parse_overrides(overrides or [])
    experiment = named(file, preset).updated(changes)
    if file and not trust:
        check_trusted(_read(experiment, changes), file)
    return experiment


def experiment_of_run(
    folder: Path, overrides: list[str] | None = None, *, trust: bool
) -> "Experiment":
    """Read the experiment of a run's folder.

    Args:
        folder: The run's.
        overrides: What is changed of it.
        trust: Whether to import whatever code it names.

    Raises:
        UserError: It cannot be read, or names code that may not be imported without ``trust``.
    """
    from fedsi.experiment import parse_overrides
    from fedsi.trust import check_trusted
    from server.runs.folder import RunFolder

    experiment, changes = RunFolder(folder).experiment(), parse_overrides(overrides or [])
    if not trust:
        check_trusted(_read(experiment, changes), folder)
    return experiment.updated(changes)


def _read(experiment: "Experiment", typed: Mapping[str, object]) -> dict[str, str]:
    """Return the import paths that a file chose, and not the person."""
    return {key: path for key, path in experiment.import_paths.items() if key not in typed}


def check_publish(publish: Path | None, *, heldout_is_public: bool) -> None:
    """Refuse to declare anything public where nothing is published.

    Raises:
        UserError: It is so.
    """
    if heldout_is_public and not publish:
        raise UserError(
            "--heldout-is-public has no effect without --publish DIR; name a folder or leave it out"
        )


_claimed: list[Path] = []
"""Folders that this process has made, the outer ones first."""


def default_folder(kind: str) -> Path:
    """Make a folder under ``results`` that no other process has, and return it.

    Raises:
        UserError: It cannot be made.
    """
    place = Path("results")
    stem = f"{kind}-{datetime.now():%Y-%m-%d-%H%M%S}"
    if not place.exists():
        make_folder(place)
        _claimed.append(place)
    for number in count(1):
        folder = place / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:  # of another run that began in the same second
            continue
        except OSError as error:
            raise cannot_write(folder, error) from None
        break
    _claimed.append(folder)
    return folder


def remove_unused() -> None:
    """Remove the folders that ``default_folder`` made and nothing was written to."""
    while _claimed:
        with suppress(OSError):
            _claimed.pop().rmdir()


def output() -> Console:
    """Return the console for the result."""
    return PlainConsole()


def messages() -> Console:
    """Return the console for everything that is not the result."""
    return PlainConsole(stderr=True)
