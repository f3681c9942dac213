"""What DP-SGD on the devices comes to over a run: the cost of the client that pays most."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedsi.data.batches import poisson_rate, poisson_steps
from fedsi.experiment import Experiment
from fedsi.privacy.example_level import example_epsilon
from server.availability import Trace
from server.cohorts import draw_cohort
from server.rounds import RoundRecord


def example_privacy(
    experiment: Experiment,
    training_clients: int,
    trace: Trace | None,
    records: Sequence[RoundRecord],
) -> dict[str, Any]:
    """Return the claim for single examples: what the client pays that took part most often.

    Args:
        experiment: With ``client.example_noise_multiplier``.
        training_clients: Their number.
        trace: When clients are available, if the experiment has a trace.
        records: All rounds.
    """
    counts = np.zeros(training_clients, np.int64)
    for record in records:
        cohort = draw_cohort(experiment, training_clients, trace, record.round, experiment.seed)
        counts[cohort.reporting] += 1
    most, nominal = int(counts.max()), experiment.nominal_examples
    epsilon = example_epsilon(experiment.client, nominal, most)
    return {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": experiment.client.example_delta,
        "accountant": "RDP (opacus)",
        "adjacency": "add or remove one example",
        "unit": "one example, in the update that leaves the client's device",
        "noise_multiplier": experiment.client.example_noise_multiplier,
        "clip_norm": experiment.client.example_clip_norm,
        "sampling_rate": poisson_rate(experiment.client, nominal),
        "steps": poisson_steps(experiment.client, nominal),
        "most_participations": most,
    }
