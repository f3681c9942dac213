"""The comparison of architectures over client learning rates and seeds."""

from dataclasses import dataclass
from typing import Any

from fedsi.experiment import Experiment
from simulations.studies.grid import ACCURACY, Axis, Setting, Study, Trial

LEARNING_RATE = Axis("client_learning_rate", "lr")


@dataclass(frozen=True)
class Comparison(Study):
    """All results of a grid whose values are client learning rates."""

    def best(self, architecture: str) -> Setting | None:
        """Return the setting with the lowest mean loss; None if none has one."""
        best = min(self.settings(architecture), key=lambda setting: setting.loss)
        return best if best.measured else None

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold."""
        return {
            "corpus": self.summary.corpus,
            "corpus_sha256": self.summary.corpus_sha256,
            "unigram_loss": self.summary.unigram_loss,
            "architectures": {name: self._to_json(name) for name in self.architectures},
            "runs": [
                {LEARNING_RATE.column: r.trial.value, **r.summary.to_json()} for r in self.results
            ],
        }

    def _to_json(self, architecture: str) -> dict[str, Any]:
        best = self.best(architecture)
        return {
            "best_client_learning_rate": best.value if best else None,
            "heldout_loss": best.loss if best else None,
            f"heldout_{ACCURACY}": best.mean(ACCURACY) if best else None,
            "by_client_learning_rate": {
                f"{setting.value:g}": setting.to_json() for setting in self.settings(architecture)
            },
        }


def experiment_of(base: Experiment, trial: Trial) -> Experiment:
    """Return the base experiment with a trial's values.

    Raises:
        UserError: An architecture or a learning rate that is not allowed.
    """
    return base.updated(
        {
            "model.architecture": trial.architecture,
            "client.learning_rate": trial.value,
            "seed": trial.seed,
        }
    )
