"""Privacy cost of DP-SGD on the clients over a run, for the client that takes part most often."""

import math
from typing import Any

from fedsi.data.batches import poisson_rate, poisson_steps
from fedsi.experiment import Experiment
from fedsi.privacy.example_level import example_epsilon
from fedsi.privacy.participation import Participations


def example_privacy(experiment: Experiment, participations: Participations) -> dict[str, Any]:
    """Return the claim for single examples of the client that took part most often.

    Args:
        experiment: An experiment with ``client.example_noise_multiplier``.
        participations: The training clients' participations in all rounds.
    """
    most, nominal = int(participations.times.max()), experiment.nominal_examples
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
