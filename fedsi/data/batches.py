"""The order in which a client trains on its examples."""

from collections.abc import Iterator

import numpy as np

from fedsi.data.protocol import PAD, Tokens
from fedsi.experiment import ClientSettings
from fedsi.seeds import Purpose, generator


def training_batches(
    examples: Tokens,
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
    chosen = rng.permutation(len(examples))[:example_cap]
    steps = 0
    for _ in range(settings.epochs):
        order = rng.permutation(chosen)
        for start in range(0, len(order), settings.batch_size):
            if settings.max_steps is not None and steps == settings.max_steps:
                return
            yield trim(examples[order[start : start + settings.batch_size]])
            steps += 1


def poisson_batches(
    examples: Tokens,
    settings: ClientSettings,
    example_cap: int | None,
    *,
    seed: int,
    round_number: int,
    client: int,
) -> Iterator[Tokens]:
    """Yield batches in which each example is by a coin of its own; there may be empty ones.

    The coins come up with ``batch_size / examples``, so that a batch has the batch size on average;
    that is the sampling which accounting of DP-SGD (arXiv 1607.00133) presumes. The number of
    batches is that of ``training_batches``. Arguments as there.
    """
    rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
    chosen = rng.permutation(len(examples))[:example_cap]
    rate = min(1.0, settings.batch_size / max(1, len(chosen)))
    for _ in range(poisson_steps(settings, len(chosen))):
        yield trim(examples[chosen[rng.random(len(chosen)) < rate]])


def poisson_steps(settings: ClientSettings, examples: int) -> int:
    """Return how many batches ``poisson_batches`` yields for a number of examples."""
    steps = settings.epochs * -(-examples // settings.batch_size)
    return steps if settings.max_steps is None else min(steps, settings.max_steps)


def evaluation_batches(
    examples: Tokens, batch_size: int, example_cap: int | None
) -> Iterator[Tokens]:
    """Yield the first ``example_cap`` examples in batches of similar length.

    Yields:
        ``[batch, time + 1]`` with the columns cut to the longest example of the batch.
    """
    kept = examples[:example_cap]
    order = np.argsort((kept != PAD).sum(1), kind="stable")
    for start in range(0, len(order), batch_size):
        yield trim(kept[order[start : start + batch_size]])


def trim(examples: Tokens) -> Tokens:
    """Cut the columns that are padding in every row."""
    longest = int((examples != PAD).sum(1).max(initial=0))
    return examples[:, :longest]
