"""The keys ``algorithm.*``: the federated algorithm."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.effects import refuse_without_effect
from fedsi.experiment.field_types import EntryOf, Name, OptionalName, PositiveNumber, Settings
from fedsi.learning.algorithms.table import ALGORITHMS, algorithm_keys


class AlgorithmSettings(Settings):
    """The federated algorithm: what clients and the server do with the model."""

    name: Annotated[Name, EntryOf(ALGORITHMS)] = "fed_avg"
    """The algorithm, or the import path of one of your own, ``my_module:my_algorithm``."""
    mu: PositiveNumber = 0.01
    """Strength of the pull to the global model in every local step (fed_prox)."""
    state_limit: PositiveNumber = 20.0
    """Largest disk space that the clients' own vectors may take, in GB of 10^9 bytes (scaffold)."""

    trim: Annotated[FiniteFloat, Strict(), Field(gt=0, lt=0.5)] = 0.1
    """Share of the clients whose smallest, and share whose largest, values of each parameter are
    left out (trimmed_mean)."""
    memory_limit: PositiveNumber = 4.0
    """Largest memory that the updates of a cohort may take on the server, in GB of 10^9 bytes
    (median, trimmed_mean)."""

    teacher: OptionalName = None
    """Folder of the finished run whose model the learner imitates (distillation)."""
    teacher_sha256: OptionalName = None
    """SHA-256 of that run's model, set by the run; another model is refused."""
    temperature: PositiveNumber = 1.0
    """Divides the logits of the teacher and the learner (distillation); above 1, unlikely words
    count more."""

    @model_validator(mode="after")
    def _the_algorithm_takes_them(self) -> Self:
        refuse_without_effect(self, "algorithm", algorithm_keys(self.name), "name")
        return self
