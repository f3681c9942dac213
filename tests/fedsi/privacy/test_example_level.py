"""The claim for single examples against the exact distributions of small clients' sums.

Every way that the coins can fall is run through the sampler itself, with gradients of 1 or -1 in
one dimension. So the noisy sums of a round's steps are a mixture of Gaussians with known weights,
whose privacy loss is integrated numerically and composed over rounds.
"""

import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from fedsi.data import batches
from fedsi.data.batches import poisson_batches, poisson_steps
from fedsi.data.protocol import Tokens
from fedsi.experiment import ClientSettings
from fedsi.privacy.example_level import example_epsilon
from fedsi.seeds import Purpose, generator

Law = dict[tuple[float, ...], float]
"""The probability of each outcome: the sums of a round's one or two steps."""
Sampler = Callable[..., Iterator[Tokens]]

DELTA = 1e-5


class Scripted:
    """A random generator that takes every course it can, one after the other.

    Args:
        levels: The uniform numbers that it draws take so many values, all of them likely alike.
    """

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._script: list[list[int]] = []
        self._at = 0

    def courses(self) -> Iterator[None]:
        """Yield before each course."""
        while True:
            self._at = 0
            yield
            while self._script and self._script[-1][0] + 1 == self._script[-1][1]:
                self._script.pop()
            if not self._script:
                return
            self._script[-1][0] += 1

    def probability(self) -> float:
        """Return that of the course just taken."""
        return 1.0 / math.prod(options for _, options in self._script)

    def random(self, count: int) -> NDArray[np.float64]:
        return np.array([(self._chosen(self._levels) + 0.5) / self._levels for _ in range(count)])

    def permutation(self, count: int) -> NDArray[np.int64]:
        orders = list(itertools.permutations(range(count)))
        return np.array(orders[self._chosen(len(orders))], np.int64)

    def _chosen(self, options: int) -> int:
        if self._at == len(self._script):
            self._script.append([0, options])
        self._at += 1
        return self._script[self._at - 1][0]


def law_of(
    sampler: Sampler, gradients: list[float], settings: ClientSettings, nominal: int, levels: int
) -> Law:
    coins, found = Scripted(levels), defaultdict[tuple[float, ...], float](float)
    examples = np.arange(1, len(gradients) + 1, dtype=np.int32)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        for module in (batches, sys.modules[__name__]):
            patch.setattr(module, "generator", lambda *_: coins)
        for _ in coins.courses():
            drawn = sampler(examples, settings, nominal, seed=0, round_number=1, client=0)
            sums = tuple(float(sum(gradients[k - 1] for k in b.ravel())) for b in drawn)
            found[sums] += coins.probability()
    assert sum(found.values()) == pytest.approx(1)
    return found


def densities(laws: list[Law], noise: float) -> list[NDArray[np.float64]]:
    """Return the probabilities of the cells of a grid that all laws share, flat."""
    outcomes = np.array([sums for law in laws for sums in law])
    axis = np.arange(outcomes.min() - 9 * noise, outcomes.max() + 9 * noise, noise / 16)
    found = []
    for law in laws:
        total = np.zeros((len(axis),) * outcomes.shape[1])
        for sums, probability in law.items():
            bells = [np.exp(-((axis - s) ** 2) / (2 * noise**2)) for s in sums]
            total += probability * (np.outer(*bells) if len(bells) == 2 else bells[0])
        found.append((total / total.sum()).ravel())
    return found


def delta_of(one: Law, other: Law, noise: float, rounds: int, epsilon: float) -> float:
    """Return the divergence of so many rounds of one law from as many of another."""
    p, q = densities([one, other], noise)
    fine = 2e-3
    losses = np.round((np.log(p) - np.log(q)) / fine).astype(np.int64)
    lowest = int(losses.min())
    masses = np.bincount(losses - lowest, p)
    size = next_fast_len(rounds * len(masses), real=True)
    composed = irfft(rfft(masses, size) ** rounds, size)
    loss = (np.arange(size) + rounds * lowest) * fine
    above = loss > epsilon
    return float(np.sum(composed[above] * -np.expm1(epsilon - loss[above])))


def capped_batches(
    examples: Tokens,
    settings: ClientSettings,
    cap: int,
    *,
    seed: int,
    round_number: int,
    client: int,
) -> Iterator[Tokens]:
    """Yield batches from a subset of fixed size, so that an example more displaces another."""
    rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
    chosen = rng.permutation(len(examples))[:cap]
    rate = min(1.0, settings.batch_size / len(chosen))
    for _ in range(poisson_steps(settings, len(chosen))):
        yield examples[chosen[rng.random(len(chosen)) < rate]]


Case = tuple[int, int, int | None, float, int]
"""Nominal number of examples, batch size, most steps, noise, rounds."""
CASES: list[Case] = [
    (2, 2, None, 4.0, 10),
    (2, 2, None, 0.8, 1),
    (2, 1, None, 0.7, 2),
    (4, 1, 1, 0.5, 3),
]


def largest_delta(sampler: Sampler, case: Case) -> tuple[float, float]:
    """Return the largest delta at the claimed epsilon, which is loose, and at 0.7 times that.

    Over clients with fewer and with more examples than the nominal number, and one more or less.
    """
    nominal, batch_size, max_steps, noise, rounds = case
    settings = ClientSettings(
        batch_size=batch_size,
        max_steps=max_steps,
        example_noise_multiplier=noise,
        example_delta=DELTA,
    )
    claimed = example_epsilon(settings, nominal, rounds)
    at_claim, below = 0.0, 0.0
    for others in (nominal - 1, nominal, nominal + 1):
        for sign in (-1.0, 1.0):
            one, more = (
                law_of(sampler, gradients, settings, nominal, nominal // batch_size)
                for gradients in ([sign] * others, [sign] * others + [1.0])
            )
            if len(next(iter(one))) != len(next(iter(more))):
                continue  # They differ in the number of steps, too, which no delta covers.
            for pair in ((one, more), (more, one)):
                at_claim = max(at_claim, delta_of(*pair, noise, rounds, claimed))
                below = max(below, delta_of(*pair, noise, rounds, 0.7 * claimed))
    return at_claim, below


@pytest.mark.parametrize("case", CASES)
def test_the_claim_holds_for_every_client_and_is_not_far_off(case: Case) -> None:
    at_claim, below = largest_delta(poisson_batches, case)
    assert at_claim <= DELTA < below


@pytest.mark.parametrize("case", CASES[:2])
def test_a_subset_of_fixed_size_breaks_the_claim(case: Case) -> None:
    assert largest_delta(capped_batches, case)[0] > 2 * DELTA
