"""The keys ``algorithm.*``: the federated algorithm."""

from typing import Annotated, Self

from pydantic import model_validator

from fedsi.experiment.effects import refuse_without_effect
from fedsi.experiment.field_types import EntryOf, Name, PositiveNumber, Settings
from fedsi.learning.algorithms.table import ALGORITHMS, algorithm_keys


class AlgorithmSettings(Settings):
    """The federated algorithm: what clients and the server do with the model."""

    name: Annotated[Name, EntryOf(ALGORITHMS)] = "fed_avg"
    """The algorithm, or the import path of one of your own, ``my_module:my_algorithm``."""
    mu: PositiveNumber = 0.01
    """Strength of the pull to the global model in every local step (fed_prox)."""
    state_limit: PositiveNumber = 20.0
    """Largest disk space that the clients' own vectors may take, in GB of 10^9 bytes (scaffold)."""

    @model_validator(mode="after")
    def _the_algorithm_takes_them(self) -> Self:
        refuse_without_effect(self, "algorithm", algorithm_keys(self.name), "name")
        return self
