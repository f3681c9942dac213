"""What DP-SGD on the devices comes to over a run: the cost of the client that pays most."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedsi.experiment import Experiment
from fedsi.privacy.example_level import largest_example_epsilon
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

    It joins the costliest number of examples between the fewest and the most of any client with the
    most participations of any.

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
    trained = [record for record in records if record.most_examples]
    fewest = min((record.fewest_examples for record in trained), default=1)
    largest = max((record.most_examples for record in trained), default=1)
    most = int(counts.max())
    epsilon = largest_example_epsilon(experiment.client, fewest, largest, most)
    return {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": experiment.client.example_delta,
        "accountant": "RDP (opacus)",
        "unit": "one example, in the update that leaves the client's device",
        "noise_multiplier": experiment.client.example_noise_multiplier,
        "clip_norm": experiment.client.example_clip_norm,
        "fewest_examples": fewest,
        "most_examples": largest,
        "most_participations": most,
    }
