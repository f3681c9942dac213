"""The keys ``faults.*``: faults injected into the training of clients, to study their cost."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.field_types import Settings

Share = Annotated[FiniteFloat, Strict(), Field(ge=0, le=1)]


class FaultSettings(Settings):
    """Injected faults of clients and processes: probabilities per client and round."""

    raising: Share = 0.0
    """Training raises an exception."""
    not_a_number: Share = 0.0
    """The update is NaN."""
    infinite: Share = 0.0
    """The update is infinite."""
    zeros: Share = 0.0
    """The update is zero; it counts like any other."""
    wrong_shape: Share = 0.0
    """The update lacks a number."""
    huge: Share = 0.0
    """The update is scaled to an L2 norm of 10^9."""
    slow: Share = 0.0
    """Training takes twice ``server.round_timeout``."""
    killed: Share = 0.0
    """The process that trains the client is killed (SIGKILL); needs ``--workers 2`` or more."""
    stopped: Share = 0.0
    """The process that trains the client is stopped (SIGSTOP); needs ``--workers 2`` or more."""

    @property
    def shares(self) -> dict[str, float]:
        """The probability of each kind that may happen."""
        every = {name: float(getattr(self, name)) for name in type(self).model_fields}
        return {name: share for name, share in every.items() if share}

    @model_validator(mode="after")
    def _at_most_one_each(self) -> Self:
        total = sum(self.shares.values())
        if total > 1:
            raise ValueError(
                f"the shares of faults.* add up to {total:g}; a client has one fault at most, so "
                "lower them to 1 together"
            )
        return self
