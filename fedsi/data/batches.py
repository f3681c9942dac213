"""The order in which a client trains on its examples."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import Tokens, lengths_of
from fedsi.experiment import ClientSettings
from fedsi.seeds import Purpose, generator


class Examples(Protocol):
    """A client's examples: an array, or what reads them when they are asked for."""

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

    The examples are shuffled once and cut to the cap, so that a capped client trains on another
    subset in each round; every epoch then shuffles that subset anew. The last batch of an epoch
    may be smaller.

    Args:
        examples: ``[examples, time + 1]``.
        settings: Batch size, epochs, step cap.
        example_cap: Most examples used in this round; None for all.
        seed: The experiment's seed.
        round_number: The round.
        client: The client's index in the population.

    Yields:
        ``[batch, time + 1]`` with the columns cut to the longest example of the batch.
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

    Rate and number of batches follow from the settings alone, never from how many examples the
    client has. So one example more leaves all the others where they were, and moves the sum of a
    batch's clipped gradients by at most the clip norm: what accounting of DP-SGD (arXiv
    1607.00133) presumes. Arguments as in ``training_batches``, but for the next.

    Args:
        examples: ``[examples, time + 1]``; there may be none.
        settings: As there.
        nominal_examples: The number of examples with which a batch has the batch size on average.
        seed: As there.
        round_number: As there.
        client: As there.
    """
    rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
    rate = poisson_rate(settings, nominal_examples)
    for _ in range(poisson_steps(settings, nominal_examples)):
        yield trim(examples[np.flatnonzero(rng.random(len(examples)) < rate)])


def poisson_rate(settings: ClientSettings, nominal_examples: int) -> float:
    """Return the probability with which ``poisson_batches`` includes an example in a batch."""
    return min(1.0, settings.batch_size / nominal_examples)


def poisson_steps(settings: ClientSettings, nominal_examples: int) -> int:
    """Return how many batches ``poisson_batches`` yields."""
    steps = settings.epochs * -(-nominal_examples // settings.batch_size)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def evaluation_batches(
    examples: Examples, batch_size: int, example_cap: int | None
) -> Iterator[Tokens]:
    """Yield the first ``example_cap`` examples in batches of similar length.

    Yields:
        ``[batch, time + 1]`` with the columns cut to the longest example of the batch.
    """
    kept = examples[np.arange(len(examples))[:example_cap]]
    order = np.argsort(lengths_of(kept), kind="stable")
    for start in range(0, len(order), batch_size):
        yield trim(kept[order[start : start + batch_size]])


def trim(examples: Tokens) -> Tokens:
    """Cut the columns that are padding in every row."""
    longest = int(lengths_of(examples).max(initial=0))
    return examples[:, :longest]
