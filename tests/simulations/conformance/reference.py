"""An obvious adapter in NumPy, into which the faults are planted that the kit is to find."""

from dataclasses import replace

import numpy as np

from simulations.conformance.adapter import Floats, Ids, Releases, Round, Sampler
from simulations.conformance.vectors import TREE_ROUNDS, accounting, tree_covariance


class Reference:
    """Does everything right, except for one fault.

    Args:
        fault: Key of ``FAULTS``; empty for none.
    """

    def __init__(self, fault: str = "") -> None:
        self.name = fault or "reference"
        self.fault = fault
        self.rng = np.random.default_rng(3)

    def release(self, asked: Round, trials: int) -> Floats:
        return np.array([self._release(asked) for _ in range(trials)])

    def _release(self, asked: Round) -> Floats:
        updates = asked.updates
        if self.fault != "NaN through the clip":
            updates = updates[np.isfinite(updates).all(1)]
        norms = np.linalg.norm(updates, axis=1)
        if self.fault == "division by a norm of zero" and (norms == 0).any():
            raise ZeroDivisionError
        if self.fault == "clip after averaging":
            # The mean of all is clipped, not what each contributes.
            mean = updates.mean(0)
            factor = min(1, asked.clip_norm / max(float(np.linalg.norm(mean)), 1e-9))
            total = mean * factor * len(updates)
        else:
            scales = np.fmin(1, asked.clip_norm / np.maximum(norms, 1e-9))
            total = (updates * scales[:, None]).sum(0)
        if self.fault == "odd cohorts lose a client" and len(updates) % 2:
            total = total - updates[-1]
        if self.fault == "weights by examples":
            share = asked.examples[: len(updates)] / asked.examples.mean()
            total = total if np.ptp(asked.examples) == 0 else (updates * share[:, None]).sum(0)
        scale = asked.noise_multiplier * asked.clip_norm
        nodes = 4
        if self.fault == "noise per node":
            scale /= np.sqrt(nodes)  # each node adds its share of the standard deviation
        clients = (
            len(asked.updates) if self.fault == "divided by who reports" else asked.cohort_size
        )
        noisy: Floats = total + scale * self.rng.normal(size=len(total))
        return noisy / clients

    def tree_noise(self, rounds: int, size: int) -> Floats:
        assert rounds == TREE_ROUNDS
        covariance = tree_covariance()
        if self.fault == "half the correlation missing":
            covariance = (covariance + np.diag(np.diag(covariance))) / 2
        return np.linalg.cholesky(covariance) @ self.rng.normal(size=(rounds, size))

    def cohorts(self, sampler: Sampler) -> list[Ids]:
        population, size = sampler.population, sampler.cohort_size
        if sampler.kind == "uniform":
            again = self.fault == "sampling with replacement"
            return [self.rng.choice(population, size, again) for _ in range(sampler.rounds)]
        order = np.arange(population)
        found: list[Ids] = []
        while len(found) < sampler.rounds:
            if self.fault == "separation ignored":
                order = self.rng.permutation(population)
            found += np.split(order, population // size)
        return found[: sampler.rounds]

    def counts(self, unclipped: int, cohort_size: int, trials: int) -> Floats:
        silent = self.fault == "a count query without noise"
        noise = 0 if silent else cohort_size / 20
        return unclipped + noise * self.rng.normal(size=trials)

    def epsilon(self, asked: Releases) -> float:
        if self.fault == "epsilon of half the rounds" and asked.rounds == 100:
            asked = replace(asked, rounds=asked.rounds // 2)
            return 0.7 * next(value for _, value, _ in accounting())
        return next(value for known, value, _ in accounting() if known == asked)


FAULTS = {
    "odd cohorts lose a client": {"sum"},
    "clip after averaging": {"clip"},
    "division by a norm of zero": {"zero"},
    "NaN through the clip": {"not finite"},
    "weights by examples": {"weights"},
    "divided by who reports": {"denominator"},
    "noise per node": {"noise"},
    "half the correlation missing": {"covariance"},
    "sampling with replacement": {"replacement"},
    "separation ignored": {"separation"},
    "a count query without noise": {"count"},
    "epsilon of half the rounds": {"accounting"},
}
"""The checks that fail, by fault."""


def adapter() -> Reference:
    return Reference()


def broken() -> Reference:
    return Reference("noise per node")
