"""The keys ``algorithm.*``: the federated algorithm."""

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, Strict, model_validator

from fedsi.experiment.field_types import (
    Count,
    EntryOf,
    Name,
    OptionalName,
    PositiveNumber,
    Settings,
)
from fedsi.learning.algorithms.table import ALGORITHMS, algorithm_keys
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.tables import refuse_without_effect


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
    (median, trimmed_mean, fed_df)."""

    teacher: OptionalName = None
    """Folder of the finished run whose model is imitated (distillation, server_distillation)."""
    teacher_sha256: OptionalName = None
    """SHA-256 of that run's model, set by the run; another model is refused."""
    temperature: PositiveNumber = 1.0
    """Divides the logits of the teacher and the learner (distillation, server_distillation,
    fed_df); above 1, unlikely words count more."""

    public_corpus: OptionalName = None
    """Corpus on which the server distils: ``pydocs``, or the path of a file or folder in any known
    format with the usual column names (server_distillation, fed_df). It is read with the run's
    vocabulary."""
    distillation_every: Count = 1
    """Rounds from one distillation to the next (server_distillation, fed_df)."""
    distillation_steps: Count = 20
    """Steps of a distillation, one batch each (server_distillation, fed_df)."""
    distillation_batch_size: Count = 64
    """Public examples in a batch (server_distillation, fed_df)."""
    distillation_optimizer: Annotated[
        Name, EntryOf(OPTIMIZERS, key="algorithm.distillation_optimizer")
    ] = "adamw"
    """Optimizer of a distillation; it starts anew each time (server_distillation, fed_df)."""
    distillation_learning_rate: PositiveNumber = 0.001
    """Step size of that optimizer (server_distillation, fed_df)."""

    @model_validator(mode="after")
    def _the_algorithm_takes_them(self) -> Self:
        refuse_without_effect(self, "algorithm", algorithm_keys(self.name), "name")
        return self
