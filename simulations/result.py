"""The result of a simulation: its summary, its model, and tables of its rounds and clients."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from fedsi.data.baselines import Baselines
from fedsi.data.corpus import silent
from fedsi.data.population import Population
from fedsi.experiment import Experiment
from fedsi.model_objects import giving
from fedsi.models.build import build_model
from fedsi.models.parameters import Parameters
from server.rounds import evaluated_clients
from server.runs.summary import Summary

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """The result of a simulation."""

    summary: Summary
    parameters: Parameters
    """The trained model's named parameters."""
    rows: str
    """The content of ``rounds.csv``."""
    experiment: Experiment
    population: Callable[[], Population]
    """Opens the clients' population."""
    model: Callable[..., object] | None = None
    """The class or function that was given to ``simulate``."""
    baselines: Baselines | None = None
    """N-gram models on the same held-out targets; None without a folder, and for a task without a
    unigram model."""

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """A row for each round and, as round 0, the untrained model: ``rounds.csv``."""
        import pandas as pd  # noqa: PLC0415 - half a second, for those who ask for a table

        return pd.read_csv(io.StringIO(self.rows), keep_default_na=True)

    @cached_property
    def clients(self) -> "pd.DataFrame":
        """A row for each held-out client of the last evaluation, as ``per_client`` describes it.

        The model is evaluated on first use.
        """
        from simulations.per_client import per_client  # noqa: PLC0415 - it imports pandas

        with giving(self.model):
            population = self.population()
            layout = build_model(self.experiment, self.summary.vocabulary_size).layout
            flat = torch.cat([self.parameters[name].flatten() for name in layout.shapes])
            clients = evaluated_clients(self.experiment, population.description).tolist()
            return per_client(self.experiment, flat, population, clients, silent)
