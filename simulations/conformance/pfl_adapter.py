"""pfl-research's Gaussian mechanism, user samplers and accountant under the kit.

Each question is answered by ``pfl_program.py`` in pfl's own Python.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedsi.errors import UserError
from simulations.conformance.adapter import (
    CannotBeAskedError,
    Floats,
    Ids,
    Releases,
    Round,
    Sampler,
)

PROGRAM = Path(__file__).with_name("pfl_program.py")


class Pfl:
    """pfl-research's Gaussian mechanism, at a weight of 1 for each client.

    Args:
        python: The Python of an environment with pfl.
    """

    name = "pfl-research, Gaussian mechanism"

    def __init__(self, python: Path) -> None:
        self._python = python

    def release(self, asked: Round, trials: int) -> Floats:
        """Return the average of the noisy statistics."""
        if len(set(asked.examples.tolist())) > 1:
            raise CannotBeAskedError("weights are the algorithm's, not the mechanism's, in pfl")
        question = {
            "clip_norm": asked.clip_norm,
            "noise_multiplier": asked.noise_multiplier,
            "cohort_size": asked.cohort_size,
            "trials": trials,
        }
        return self._ask("release", question, asked.updates)

    def tree_noise(self, rounds: int, size: int) -> Floats:
        """Refuse the question."""
        raise CannotBeAskedError("pfl correlates noise by banded matrices, not by a tree")

    def cohorts(self, sampler: Sampler) -> list[Ids]:
        """Return cohorts of the user samplers ``random`` and ``minimize_reuse``."""
        return list(self._ask("cohorts", asdict(sampler)).astype(np.int64))

    def counts(self, unclipped: int, cohort_size: int, trials: int) -> Floats:
        """Refuse the question."""
        raise CannotBeAskedError("pfl's adaptive clipping is not part of its Gaussian mechanism")

    def epsilon(self, asked: Releases) -> float:
        """Return epsilon of the accountant by privacy loss distributions."""
        return float(self._ask("epsilon", asdict(asked)))

    def _ask(self, what: str, question: dict[str, Any], updates: Floats | None = None) -> Floats:
        """Have the program answer.

        Raises:
            UserError: It fails.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "question.json").write_text(json.dumps({"what": what, **question}))
            if updates is not None:
                np.save(folder / "updates.npy", updates.astype(np.float32), allow_pickle=False)
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            done = subprocess.run(
                [str(self._python), str(PROGRAM), place],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
                raise UserError(
                    f"{self._python} cannot run pfl: {last}; install pfl[pytorch]==0.6.0"
                )
            return np.asarray(np.load(folder / "answer.npy", allow_pickle=False), np.float64)
