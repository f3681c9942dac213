"""The keys ``personalisation.*``: fine-tuning of the final model on held-out clients."""

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from fedsi.experiment.client import ClientSettings
from fedsi.experiment.field_types import OptionalCount, OptionalNumber, Settings

if TYPE_CHECKING:
    from fedsi.experiment.experiment import Experiment

USUAL_EPOCHS = 1
"""Epochs of fine-tuning if the settings of a run have none."""


class PersonalisationSettings(Settings):
    """Fine-tuning of the final model on each held-out client; the run's model does not change."""

    epochs: OptionalCount = None
    """Passes over half of a held-out client's examples; the other half is evaluated before and
    after. None for no fine-tuning."""
    learning_rate: OptionalNumber = None
    """Step size of fine-tuning; none for ``client.learning_rate``, without its schedule."""

    @model_validator(mode="after")
    def _the_rate_is_used(self) -> Self:
        if self.learning_rate is not None and self.epochs is None:
            raise ValueError(
                "personalisation.learning_rate has no effect with personalisation.epochs=none; set "
                "the epochs or leave it out"
            )
        return self


def tuning_settings(experiment: "Experiment") -> ClientSettings:
    """Return the settings of local training, changed to those of fine-tuning."""
    given, client = experiment.personalisation, experiment.local_training
    changes = {
        "epochs": given.epochs or USUAL_EPOCHS,
        "learning_rate": given.learning_rate or client.learning_rate,
        "max_steps": None,
        "example_noise_multiplier": None,
    }
    return client.model_copy(update=changes)
