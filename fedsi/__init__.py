"""Federated learning of small on-device language models: data, models, local training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsi.errors import UserError
from fedsi.hidden_packages import check_not_hidden

if TYPE_CHECKING:
    from fedsi.experiment import Experiment

__all__ = ["Experiment", "UserError"]
__version__ = "0.1.0"

check_not_hidden(Path(__file__).parents[1])


def __getattr__(name: str) -> Any:
    # The libraries behind it take a while to import, which must not delay --help and --version.
    if name == "Experiment":
        from fedsi.experiment import Experiment  # noqa: PLC0415

        return Experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
