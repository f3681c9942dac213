"""Options shared by several commands, and the experiment that they describe."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from fedsi.data.cache import DEFAULT_CACHE
from fedsi.errors import UnfinishedError, UserError
from fedsi.files import cannot_write, make_folder, read_text
from fedsi.inference.top_k.table import OUTPUT_LAYERS
from simulations.presets import load_preset, preset_names
from simulations.safe_text import typed, visible

if TYPE_CHECKING:
    from fedsi.experiment import Experiment

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[EXPERIMENT.toml | CORPUS]",
        help="A TOML file; or a corpus, with the preset's settings or the defaults.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help=f"One of {', '.join(preset_names())}; see fedsi presets.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key; may be given several times."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the results; by default named after the time."
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
    typer.Option("--trust", help="Import any model that the file or folder names."),
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
        "--heldout-is-public", help="With --publish: include the metrics of held-out clients."
    ),
]

MovedCorpus = Annotated[
    Path | None,
    typer.Option(
        "--corpus", metavar="PATH", help="Where the run's corpus is now, if it has been moved."
    ),
]
Best = Annotated[
    bool,
    typer.Option("--best", help="The model of the lowest held-out loss, not of the last round."),
]
PerClient = Annotated[
    Path | None,
    typer.Option(
        "--per-client",
        metavar="FILE",
        help="Write the metrics of each held-out client to a .csv or .parquet file.",
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="NAME,...",
        help="Show the curves in these programs too: tensorboard, wandb (offline), mlflow.",
    ),
]
RunFolderArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
OutputLayer = Annotated[
    str,
    typer.Option(metavar="|".join(OUTPUT_LAYERS), help="How the likely words are found."),
]
Candidates = Annotated[
    int | None,
    typer.Option(min=1, metavar="K'", help="Words whose exact scores are computed."),
]
Rank = Annotated[
    int | None,
    typer.Option(min=1, metavar="R", help="Numbers of a word that give its cheap score."),
]

CACHE = DEFAULT_CACHE


@dataclass(frozen=True)
class Base:
    """The options that describe an experiment."""

    experiment_file: ExperimentFile = None
    preset: Preset = None
    overrides: Overrides = None

    def experiment(self, usual: str | None = None) -> "Experiment":
        """Build the experiment.

        Args:
            usual: The preset if neither a file nor a preset is given.

        Raises:
            UserError: Same as ``chosen_experiment``.
        """
        preset = self.preset or (None if self.experiment_file else usual)
        return chosen_experiment(self.experiment_file, preset, self.overrides)


class StoppedError(UnfinishedError):
    """The user stopped the command; the message says how to continue."""


class PlainConsole(Console):
    """A console that prints strings unchanged, even in tables: no markup, emoji or escapes.

    Args:
        stderr: Whether it writes to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text printed for a string; all strings pass through this method."""
        return super().render_str(visible(text), **options)


def named(file: Path | None, preset: str | None, *, format_is_named: bool = False) -> "Experiment":
    """Return the named experiment, or the default one, on the named corpus.

    Args:
        file: An experiment's file or a corpus.
        preset: Name of a preset.
        format_is_named: Whether the overrides name the corpus's format.

    Raises:
        UserError: Both a file and a preset are given, or one cannot be read.
    """
    from fedsi.experiment import Experiment

    corpus = file if file and _is_corpus(file, format_is_named=format_is_named) else None
    if file and preset and not corpus:
        raise UserError(f"give either a file ({file}) or --preset {preset}, not both")
    if file and not corpus:
        return Experiment.from_file(file)
    base = load_preset(preset) if preset else Experiment()
    return base.updated({"data.corpus": str(corpus)}) if corpus else base


_TOML = ".toml"


def refuse_runs(path: Path) -> None:
    """Refuse the folder of a run, or of several, as a corpus.

    Raises:
        UserError: It is one.
    """
    from server.runs.folder import EXPERIMENT

    if (path / EXPERIMENT).exists():
        raise UserError(
            f"{path} holds a run; continue it with: fedsi run --resume --out {typed(path)}"
        )
    run = next(path.glob(f"*/{EXPERIMENT}"), None)
    if run is not None:
        raise UserError(
            f"{path} holds runs, such as {run.parent.name}, and no texts; name a file or folder of "
            "texts"
        )


def _is_corpus(path: Path, *, format_is_named: bool) -> bool:
    """Whether a path is a corpus rather than an experiment.

    Raises:
        UserError: It is the folder of a run, does not exist, or is neither of the two.
    """
    from fedsi.data.formats.listing import parts_of
    from fedsi.data.formats.recognition import recognise
    from fedsi.data.left_out_rows import LeftOut
    from fedsi.experiment.data import MADE_HERE

    refuse_runs(path)
    if path.is_dir() or (str(path) in MADE_HERE and not path.exists()):
        return True
    if path.suffix.lower() == _TOML:
        return False
    if not path.exists():
        known = {name.lower(): f"--preset {name}" for name in preset_names()} | {
            name: name for name in MADE_HERE
        }
        meant = known.get(str(path).lower())
        asked = f"; did you mean {meant}?" if meant else ""
        raise UserError(f"there is no file {path}: name an experiment (.toml) or a corpus{asked}")
    if not path.is_file():
        return False
    try:
        return format_is_named or bool(recognise(path, parts_of(path, LeftOut())))
    except UserError as problem:
        if _is_toml(path):
            return False
        raise UserError(
            f"{path} is neither an experiment, which is TOML, nor a corpus that is recognised: "
            f"{problem}"
        ) from None


def _is_toml(path: Path) -> bool:
    from fedsi.experiment.toml_text import LARGEST_FILE

    try:
        return tomllib.loads(read_text(path, LARGEST_FILE)) is not None
    except (OSError, ValueError, RecursionError):
        return False


def chosen_experiment(
    file: Path | None, preset: str | None, overrides: list[str] | None, *, trust: bool = False
) -> "Experiment":
    """Build the experiment that the options describe.

    Raises:
        UserError: Both a file and a preset are given; the experiment is invalid; or the file names
            code that may not be imported without ``trust``.
    """
    from fedsi.experiment import parse_overrides
    from fedsi.trust import check_trusted

    changes = parse_overrides(overrides or [])
    base = named(file, preset, format_is_named="data.format" in changes)
    if file and file.suffix.lower() != _TOML and "data.corpus" in changes:
        raise UserError(f"two corpora are given, {file} and --set data.corpus; leave out one")
    experiment = base.updated(changes)
    if file and not trust:
        check_trusted(_read(experiment, changes), file)
    return experiment


def experiment_of_run(
    folder: Path, overrides: list[str] | None = None, *, trust: bool
) -> "Experiment":
    """Read the experiment of a run's folder.

    Args:
        folder: The run's folder.
        overrides: Changes to the experiment.
        trust: Whether to import any code that it names.

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
    """Return the import paths that come from a file and were not typed by the user."""
    return {key: path for key, path in experiment.import_paths.items() if key not in typed}


def check_publish(publish: Path | None, *, heldout_is_public: bool) -> None:
    """Refuse to declare held-out metrics public if nothing is published.

    Raises:
        UserError: ``heldout_is_public`` is set without ``publish``.
    """
    if heldout_is_public and not publish:
        raise UserError(
            "--heldout-is-public has no effect without --publish DIR; name a folder or leave it out"
        )


def tracker_names(track: str | None) -> list[str]:
    """Return the names in a value of ``--track``."""
    return [name.strip() for name in (track or "").split(",") if name.strip()]


_claimed: list[Path] = []
"""Folders created by this process, outer ones first."""


def default_folder(kind: str) -> Path:
    """Create a new folder under ``results`` and return it.

    Raises:
        UserError: It cannot be created.
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
        except FileExistsError:  # created by another run in the same second
            continue
        except OSError as error:
            raise cannot_write(folder, error) from None
        break
    _claimed.append(folder)
    return folder


def remove_unused() -> None:
    """Remove empty folders that ``default_folder`` created."""
    while _claimed:
        with suppress(OSError):
            _claimed.pop().rmdir()


def output() -> Console:
    """Return the console for the result."""
    return PlainConsole()


def messages() -> Console:
    """Return the console for everything except the result."""
    return PlainConsole(stderr=True)
