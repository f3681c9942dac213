"""What DP-SGD on the devices comes to over a run: the cost of the client that pays most."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

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
    """Return the claim for single examples, an upper bound over all clients.

    It joins the fewest examples of any client with the most participations of any. Batches of a
    client with few examples hold most of them, so it pays most.

    Args:
        experiment: With ``client.example_noise_multiplier``.
        training_clients: Their number.
        trace: When clients are available, if the experiment has a trace.
        records: All rounds.
    """
    counts = np.zeros(training_clients, np.int64)
    for record in records:
        cohort = draw_cohort(experiment, training_clients, trace, record.round)
        counts[cohort.reporting] += 1
    fewest = min((r.fewest_examples for r in records if r.fewest_examples), default=1)
    most = int(counts.max())
    epsilon = example_epsilon(experiment.client, fewest, most)
    return {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": experiment.client.example_delta,
        "accountant": "RDP (opacus)",
        "unit": "one example, against everyone but the client's own device",
        "noise_multiplier": experiment.client.example_noise_multiplier,
        "clip_norm": experiment.client.example_clip_norm,
        "fewest_examples": fewest,
        "most_participations": most,
    }
