"""The program of pfl-research under the kit; for a Python with ``pfl[pytorch]`` 0.6.

Started as ``python pfl_program.py FOLDER`` with a question in ``question.json`` (and
``updates.npy``); writes ``answer.npy``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.data.sampling import get_user_sampler
from pfl.internal.ops import pytorch_ops
from pfl.internal.ops.selector import set_framework_module
from pfl.privacy import GaussianMechanism, PLDPrivacyAccountant
from pfl.stats import MappedVectorStatistics


def _mean(folder: Path, asked: dict[str, Any]) -> Any:
    """Return the mean of clipped statistics with noise, as pfl's backend makes it."""
    mechanism = GaussianMechanism(asked["clip_norm"], asked["noise_multiplier"])
    updates = np.load(folder / "updates.npy")
    return np.array(
        [_release(mechanism, updates, asked["cohort_size"]) for _ in range(asked["trials"])]
    )


def _release(mechanism: Any, updates: Any, cohort_size: int) -> Any:
    total = None
    for update in updates:
        own = MappedVectorStatistics({"update": torch.from_numpy(update)}, weight=1.0)
        clipped, _ = mechanism.constrain_sensitivity(own)
        total = clipped if total is None else total + clipped
    noisy, _ = mechanism.add_noise(total, cohort_size)
    noisy.average()
    return noisy["update"].numpy()


def _cohorts(asked: dict[str, Any]) -> Any:
    """Return the users that a user sampler gives, round by round."""
    kind = {"uniform": "random", "shuffled": "minimize_reuse"}[asked["kind"]]
    sampler = get_user_sampler(kind, list(range(asked["population"])))
    return np.array(
        [[sampler() for _ in range(asked["cohort_size"])] for _ in range(asked["rounds"])]
    )


def _epsilon(asked: dict[str, Any]) -> Any:
    """Return epsilon of the accountant by privacy loss distributions."""
    found = PLDPrivacyAccountant(
        num_compositions=asked["rounds"],
        sampling_probability=asked["sampling_rate"],
        mechanism="gaussian",
        delta=asked["delta"],
        noise_parameter=asked["noise_multiplier"],
    )
    return np.array(found.epsilon)


def main(folder: Path) -> None:
    """Answer the question in a folder."""
    asked = json.loads((folder / "question.json").read_text())
    set_framework_module(pytorch_ops)
    np.random.seed(7)  # noqa: NPY002 - pfl draws users from NumPy's global generator
    torch.manual_seed(7)
    what = asked.pop("what")
    answer = {"cohorts": _cohorts, "epsilon": _epsilon}.get(what, lambda a: _mean(folder, a))(asked)
    np.save(folder / "answer.npy", answer, allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
