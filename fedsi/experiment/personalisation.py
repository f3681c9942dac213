"""The keys ``personalisation.*``: fine-tuning of the final model on held-out clients."""

from typing import Self

from pydantic import model_validator

from fedsi.experiment.field_types import OptionalCount, OptionalNumber, Settings


class PersonalisationSettings(Settings):
    """Fine-tuning of the final model on each held-out client, which leaves the model as it is."""

    epochs: OptionalCount = None
    """Passes over half of a held-out client's examples before the other half is scored again; none
    for no fine-tuning."""
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
