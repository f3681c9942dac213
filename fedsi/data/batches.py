"""Batches of a client's examples, and their order."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import Tokens, lengths_of
from fedsi.experiment import ClientSettings
from fedsi.seeds import Purpose, generator

LONG = 256
"""Tokens of an example beyond which batches in an evaluation are smaller."""


class Examples(Protocol):
    """A client's examples: an array, or an object that reads them on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: NDArray[np.int64], /) -> Tokens: ...


def training_batches(
    examples: Examples,
    settings: ClientSettings,
    example_cap: int | None,
    *,
    seed: int,
    round_number: int,
    client: int,
) -> Iterator[Tokens]:
    """Yield a client's batches for one round, a pure function of (seed, round, client).

    The examples are shuffled once and truncated to the cap, so a capped client trains on another
    subset in each round. Every epoch then shuffles that subset again. The last batch of an epoch
    may be smaller.

    Args:
        examples: ``[examples, time + 1]``.
        settings: Batch size, epochs, step cap.
        example_cap: Most examples used in this round; None for all.
        seed: The experiment's seed.
        round_number: The round.
        client: The client's index in the population.

    Yields:
        ``[batch, time + 1]``, without columns that are padding in all rows.
    """
    rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
    chosen = examples[rng.permutation(len(examples))[:example_cap]]
    steps = 0
    for _ in range(settings.epochs):
        order = rng.permutation(len(chosen))
        for start in range(0, len(order), settings.batch_size):
            if settings.max_steps is not None and steps == settings.max_steps:
                return
            yield trim(chosen[order[start : start + settings.batch_size]])
            steps += 1


def poisson_batches(
    examples: Examples,
    settings: ClientSettings,
    nominal_examples: int,
    *,
    seed: int,
    round_number: int,
    client: int,
) -> Iterator[Tokens]:
    """Yield Poisson-sampled batches: each example is included independently; some may be empty.

    Rate and number of batches follow from the settings alone, not from the number of examples. So
    adding an example does not affect the sampling of the others, and moves the sum of a batch's
    clipped gradients by at most the clip norm, as the accounting of DP-SGD (arXiv 1607.00133)
    assumes.

    Args:
        examples: ``[examples, time + 1]``; may be empty.
        settings: Same as in ``training_batches``.
        nominal_examples: The number of examples that gives batches of the batch size on average.
        seed: Same as in ``training_batches``.
        round_number: Same as in ``training_batches``.
        client: Same as in ``training_batches``.
    """
    rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
    rate = poisson_rate(settings, nominal_examples)
    for _ in range(poisson_steps(settings, nominal_examples)):
        yield trim(examples[np.flatnonzero(rng.random(len(examples)) < rate)])


def poisson_rate(settings: ClientSettings, nominal_examples: int) -> float:
    """Return the probability that ``poisson_batches`` includes an example in a batch."""
    return min(1.0, settings.batch_size / nominal_examples)


def poisson_steps(settings: ClientSettings, nominal_examples: int) -> int:
    """Return the number of batches from ``poisson_batches``."""
    steps = settings.epochs * -(-nominal_examples // settings.batch_size)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def evaluation_batches(blocks: Iterable[Tokens], batch_size: int) -> Iterator[Tokens]:
    """Yield all examples of blocks of ``[examples, time + 1]``, in batches of similar length.

    Batches of blocks with an example longer than ``LONG`` are smaller, so that the attention
    weights of a batch, quadratic in the length, need no more memory.

    Yields:
        ``[batch, time + 1]``, without columns that are padding in all rows.
    """
    for examples in blocks:
        lengths = lengths_of(examples)
        longest = max(LONG, int(lengths.max(initial=0)))
        size = max(1, batch_size * LONG**2 // longest**2)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), size):
            yield trim(examples[order[start : start + size]])


def trim(examples: Tokens) -> Tokens:
    """Remove columns that are padding in every row."""
    longest = int(lengths_of(examples).max(initial=0))
    return examples[:, :longest]
