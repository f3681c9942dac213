"""The keys ``devices.*``: availability and reporting of clients."""

from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.effects import refuse_unfitting
from fedsi.experiment.field_types import (
    OptionalName,
    OptionalNumber,
    PositiveNumber,
    Probability,
    Settings,
    SpreadOfLogarithm,
)


class DeviceSettings(Settings):
    """Availability of the clients' devices, and which of them report in time."""

    availability: Literal["always", "trace", "diurnal"] = "always"
    """Clients that can be drawn: all, those of a recorded trace, or by a daily rhythm."""
    trace: OptionalName = None
    """Path of a CSV file ``client,start,end`` with times of availability in seconds."""
    round_seconds: PositiveNumber = 60.0
    """Simulated seconds between the starts of two rounds; the first starts at 0."""
    lowest_availability: Probability = 0.1
    """Probability that a client is available at the worst time of its day (diurnal)."""
    highest_availability: Probability = 0.9
    """Probability that a client is available at the best time of its day (diurnal)."""
    over_selection: Annotated[FiniteFloat, Strict(), Field(ge=1, le=1000)] = 1.0
    """Clients drawn per client needed; the first ``server.cohort_size`` to report are kept."""
    dropout: Annotated[FiniteFloat, Strict(), Field(ge=0, lt=1)] = 0.0
    """Probability that a drawn client never reports."""
    speed_sigma: SpreadOfLogarithm = 0.0
    """Spread of the devices' durations, log-normal with this sigma and median 1."""
    timeout: OptionalNumber = None
    """Longest duration to wait for, in multiples of the median device's; none for no limit."""

    @model_validator(mode="after")
    def _availability_is_described(self) -> Self:
        if self.availability == "trace" and self.trace is None:
            raise ValueError(
                "devices.availability=trace needs a trace; name a CSV file with devices.trace"
            )
        refuse_unfitting(self, "devices")
        if self.lowest_availability > self.highest_availability:
            raise ValueError(
                f"devices.lowest_availability ({self.lowest_availability}) is more than "
                f"devices.highest_availability ({self.highest_availability}); lower it"
            )
        return self
