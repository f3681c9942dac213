"""Toeplitz matrices with a rational generating function, and the largest effect of one client.

As a power series, the first column of C is ``C(x) = prod_j (1 - s_j x) / (1 - t_j x) = 1 + sum_j
w_j x / (1 - t_j x)``: the decays t are its poles, s its zeros. C^-1 exchanges s and t.
"""

import numpy as np
from numpy.typing import NDArray

from fedsi.plan import Plan


def toeplitz_sensitivities(
    plan: Plan, first: NDArray[np.float64], norms: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the largest norms of C x over the first 1, 2, ... rounds, ``[rounds]``.

    C is a Toeplitz matrix, or one whose columns are divided by their norms. Its first column is
    non-negative and non-increasing, and with norms also log-convex. The worst participations are as
    many as allowed, exactly the minimum separation apart, from the first round on.

    Proof. Let ``G_ij``, ``i <= j``, be the inner product of the first r rows of columns i and j,
    ``sum_(l=j)^(r-1) c_(l-i) c_(l-j) / (n_i n_j)``. It is not negative, so updates of one direction
    are worst and the squared norm is the sum of G over pairs of participations. The a-th of them is
    at least a separations after the first round, and the a-th and b-th are at least ``b - a`` of
    them apart. So it suffices that G does not increase (1) with j, nor (2) with i at a fixed ``j -
    i``. Without norms both hold term by term (arXiv 2408.08868). With norms, ``n_j^2 = S(n - j)``
    for ``S(M) = c_0^2 + .. + c_(M-1)^2``; let ``T(M) = c_0 + .. + c_(M-1)``.

    (1) The partial sums of ``c_(l-j) / n_j`` over l are ``T(L) / sqrt(S(M))`` with ``M = n - j``;
    for j + 1 they are ``T(L - 1) / sqrt(S(M - 1))``, which is no more: ``T(L - 1) / T(L)`` rises
    with L, because c does not increase, up to ``T(M - 1) / T(M) <= sqrt(S(M - 1) / S(M))``, by
    Cauchy-Schwarz. A sequence of larger partial sums has a larger sum against the non-increasing
    ``c_(l-i)`` (Abel).

    (2) Let ``N(R)`` be the sum over ``m < R`` of ``c_m c_(m+g)``, ``g = j - i``. The change from i
    to i + 1 multiplies G by ``N(R - 1) / N(R)``, largest for all rows, ``R = M``, and by ``1 /
    sqrt((1 - a) (1 - b))`` with ``a = c_(M-1)^2 / S(M)`` and ``b = c_(M+g-1)^2 / S(M + g) <= a``.
    By log-convexity ``c_(m+g) / c_m`` rises with m, so ``N(M) <= S(M) c_(M+g-1) / c_(M-1)``. Hence
    ``N(M - 1) / N(M) <= 1 - a <= sqrt((1 - a) (1 - b))``.

    Args:
        plan: Bounds a client's participations and their separation.
        first: The first column of the Toeplitz matrix, ``[rounds]``.
        norms: The numbers by which the columns are divided, ``column_norms(first)``; None for ones.
    """
    rounds = len(first)
    scales = np.ones(rounds) if norms is None else norms
    most = np.array([plan.participations_within(number) for number in range(1, rounds + 1)])
    total, squares = np.zeros(rounds), np.zeros(rounds)
    for count, start in enumerate(range(0, rounds, plan.min_separation), 1):
        if count > most[-1]:
            break
        total[start:] += first[: rounds - start] / scales[start]
        squares[most == count] = np.cumsum(total**2)[most == count]
    return np.sqrt(squares)


def column_norms(first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norms of the columns of a lower triangular Toeplitz matrix, ``[rounds]``."""
    return np.sqrt(np.cumsum(first**2)[::-1])


def residues(poles: NDArray[np.float64], zeros: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return w with ``prod (1 - zeros x) / (1 - poles x) = 1 + sum_j w_j x / (1 - poles_j x)``."""
    apart = poles[:, None] - poles
    np.fill_diagonal(apart, 1.0)
    weights: NDArray[np.float64] = np.prod((poles[:, None] - zeros) / apart, axis=1)
    return weights


def column(
    decays: NDArray[np.float64], weights: NDArray[np.float64], rounds: int
) -> NDArray[np.float64]:
    """Return ``1, w . 1, w . t, w . t^2, ...``, ``[rounds]``."""
    powers = decays[:, None] ** np.arange(rounds - 1, dtype=np.float64)
    return np.concatenate([[1.0], np.sum(weights[:, None] * powers, axis=0)])


def inverse_column(
    decays: NDArray[np.float64], weights: NDArray[np.float64], rounds: int
) -> NDArray[np.float64]:
    """Return the first column of C^-1, ``[rounds]``, by the recurrence of the stream."""
    found = np.zeros(rounds)
    buffers = np.zeros_like(decays)
    for k in range(rounds):
        found[k] = float(k == 0) - weights @ buffers
        buffers = decays * buffers + found[k]
    return found
