"""Scores of canaries over a run: sums of what was released along a canary's direction.

If each client's rounds are known to whoever the claim protects against, as with correlated noise,
the sum of a canary is weighted for its rounds and for the covariance of the noise. Of all linear
scores that one tells best whether the canary took part (a matched filter): along its direction the
release is ``x + N`` with N normal with this covariance, x a one in each of its rounds, and the
score ``x^T covariance^-1 (x + N) / norm`` with ``norm^2 = x^T covariance^-1 x`` moves by ``norm``,
at most the sensitivity, while its noise has deviation 1.

Otherwise the rounds are secret, because the claim counts on it, and the sum is not weighted.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsi.privacy.mechanisms.mechanism import Mechanism

Floats = NDArray[np.float64]


def matched_sums(by_round: Floats, turns: NDArray[np.bool_], covariance: Floats) -> Floats:
    """Return the weighted sum of each canary's scores, in clip norms: ``[canaries]``.

    Args:
        by_round: Score of each canary in each release, ``[rounds, canaries]``.
        turns: Rounds in which each canary's turn was, whether or not it took part, ``[rounds,
            canaries]``. The sum of a canary without one is 0.
        covariance: Covariance of the rounds' noise, ``[rounds, rounds]``; only its shape matters.
    """
    own = turns.astype(np.float64)
    weights = np.linalg.solve(covariance, own)
    norms = np.sqrt((own * weights).sum(0))
    sums: Floats = (weights * by_round).sum(0) / np.where(norms > 0, norms, 1.0)
    return sums


def noise_covariance(mechanism: Mechanism, rounds: int) -> Floats:
    """Return the covariance of a mechanism's noise over its first rounds: ``[rounds, rounds]``.

    The mechanism is run on unit vectors in place of normal ones, so its noise has one entry for
    each vector that it draws: the coefficient of that vector.
    """
    drawn: dict[tuple[int, int], int] = {}
    _noise_of(mechanism, rounds, 0, lambda draw: drawn.setdefault(draw, len(drawn)))
    rows = _noise_of(mechanism, rounds, len(drawn), drawn.__getitem__)
    covariance: Floats = rows @ rows.T
    return covariance


def _noise_of(
    mechanism: Mechanism, rounds: int, size: int, entry_of: Callable[[tuple[int, int]], int]
) -> Floats:
    """Return the noise of the first rounds, ``[rounds, size]``, from unit vectors.

    Args:
        mechanism: The mechanism.
        rounds: The number of rounds.
        size: Entries of a vector.
        entry_of: Returns the entry that is one in the k-th vector drawn in a round, ``(round, k)``.
    """
    state = {
        name: array.astype(np.float64) for name, array in mechanism.initial_state(size).items()
    }
    rows = np.zeros((rounds, size))
    for number in range(1, rounds + 1):

        def fresh(k: int, number: int = number) -> Floats:
            vector = np.zeros(size)
            vector[entry_of((number, k)) : entry_of((number, k)) + 1] = 1
            return vector

        rows[number - 1] = mechanism.noise(state, number, fresh)
    return rows
