"""Presets: experiments included with fedsi, one TOML file each."""

from importlib import resources
from typing import TYPE_CHECKING

from fedsi.tables import known_name

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def preset_names() -> list[str]:
    """Return the names of all presets."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


SECONDS: dict[str, float | None] = {
    "addition": 60,
    "audit": 15,
    "cifg_19m": 7 * 60,
    "cifg_4_7m": 2 * 60,
    "copying": 20,
    "keyboard": 90,
    "length": 25,
    "mamba": 20,
    "privacy_quickstart": 20,
    "private_tuning": 20,
    "quickstart": 20,
    "retrieval": 10,
    "scratchpad": 30,
    "smoke": 5,
    "stackoverflow_cifg": None,
    "stackoverflow_transformer": None,
    "transformer_21m": 7 * 60,
}
"""Approximate seconds of ``fedsi run --workers 2`` on two cores with a prepared corpus: half of the
CPU seconds of some rounds, times the number of rounds. None for a corpus that is not included."""


def what_it_is(name: str) -> str:
    """Return the description of a preset, the first line of its file."""
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def load_preset(name: str) -> "Experiment":
    """Return a preset.

    Raises:
        UserError: There is no preset with this name.
    """
    from fedsi.experiment import Experiment  # noqa: PLC0415 - listing the names need not wait

    known_name("preset", preset_names(), name)
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return Experiment.from_toml(text, source=f"the preset {name}")
