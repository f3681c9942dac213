"""The configuration of a run in Flower's format: one experiment, and how to run it.

``flwr run . --run-config KEY=VALUE`` overrides values under ``tool.flwr.app.config`` in
``pyproject.toml``. The experiment is a single key, so its own keys are not listed again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsi.data.cache import DEFAULT_CACHE
from fedsi.errors import UserError
from fedsi.experiment import Experiment, Scalar
from fedsi.experiment.explanations import unknown_key
from fedsi.trust import check_trusted

EXPERIMENT, SEED = "experiment", "seed"
FOLDER, OVERWRITE, RESUME, TRUST = "run.folder", "run.overwrite", "run.resume", "run.trust"
OTHER_MACHINE, ENGINE, WORKERS = "run.other-machine", "run.engine", "run.workers"
CACHE = "run.cache"
_KEYS = (EXPERIMENT, SEED, FOLDER, OVERWRITE, RESUME, TRUST, OTHER_MACHINE, ENGINE, WORKERS, CACHE)
_ENDING = ".toml"


@dataclass(frozen=True)
class RunConfiguration:
    """An experiment and how to run it."""

    experiment: Experiment
    folder: Path | None = None
    """The folder of the run; None writes nothing."""
    overwrite: bool = False
    resume: bool = False
    other_machine: bool = False
    """Whether to resume even if the bits may differ from those of a run never stopped."""
    engine: str = "deployed"
    workers: int | None = None
    """Processes of the engine; None if unknown."""
    cache: Path = DEFAULT_CACHE
    """Folder for the corpora that the server itself reads."""

    @classmethod
    def from_flower(cls, config: Mapping[str, Any]) -> "RunConfiguration":
        """Read Flower's run configuration; missing or empty values have their defaults.

        Raises:
            UserError: An unknown key, an impossible value, or an experiment that cannot be used.
        """
        for key in config:
            if key not in _KEYS:
                raise UserError(
                    f"{unknown_key(key, _KEYS)}; keys of the experiment go into {EXPERIMENT}"
                )
        place, workers = str(config.get(FOLDER, "")), config.get(WORKERS)
        return cls(
            _experiment(config),
            folder=Path(place) if place else None,
            overwrite=_flag(config, OVERWRITE),
            resume=_flag(config, RESUME),
            other_machine=_flag(config, OTHER_MACHINE),
            engine=str(config.get(ENGINE, "deployed")),
            workers=int(workers) if workers else None,
            cache=Path(str(config.get(CACHE, DEFAULT_CACHE))),
        )

    def to_flower(self) -> dict[str, Scalar]:
        """Return Flower's run configuration; ``from_flower`` is the inverse."""
        return {
            EXPERIMENT: self.experiment.to_toml(),
            FOLDER: str(self.folder or ""),
            OVERWRITE: self.overwrite,
            RESUME: self.resume,
            OTHER_MACHINE: self.other_machine,
            ENGINE: self.engine,
            WORKERS: self.workers or 0,
            CACHE: str(self.cache),
        }


def _experiment(config: Mapping[str, Any]) -> Experiment:
    """Return the experiment: the default one, or one from a file or from the text itself."""
    given, seed = config.get(EXPERIMENT, ""), config.get(SEED, "none")
    if not isinstance(given, str):
        raise UserError(
            f"{EXPERIMENT} = {given!r} is not allowed: expected TOML text or the path of a "
            f"{_ENDING} file"
        )
    text = given.strip()
    if text.endswith(_ENDING) and "\n" not in text:
        experiment = Experiment.from_file(Path(text))
        if not _flag(config, TRUST):
            check_trusted(experiment.import_paths, Path(text), allow=f"{TRUST}=true")
    else:
        experiment = Experiment.from_toml(text, source=f"the run configuration's {EXPERIMENT}")
    return experiment if seed == "none" else experiment.updated({SEED: seed})


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"{key} = {value!r} is not allowed: expected true or false")
    return value
