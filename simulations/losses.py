"""Words for contributions that rounds lost, by kind: on terminals, pages and in tables."""

from collections.abc import Mapping

from fedsi.messages import Outcome

WORDS = {
    Outcome.NOT_FINITE: "update not finite",
    Outcome.OUT_OF_RANGE: "update too large to be summed exactly",
    Outcome.ABOVE_BOUND: "norm above server.norm_bound",
    Outcome.RAISED: "training raised an exception",
    Outcome.WRONG_SHAPE: "vector of the wrong size",
    Outcome.TOO_SLOW: "no reply in time",
    Outcome.PROCESS_ENDED: "process ended",
    Outcome.NODE_FAILED: "node failed otherwise",
}
"""Why a client's contribution was not aggregated, in the order of the tables."""


def by_words(losses: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of the kinds that happened, by their words.

    Args:
        losses: Counts by the names of the columns of ``rounds.csv``.
    """
    counts = {kind: losses.get(kind.name.lower(), 0) for kind in WORDS}
    return {WORDS[kind]: count for kind, count in counts.items() if count}


def in_words(losses: Mapping[str, int]) -> str:
    """Return the counts of the kinds that happened, in words; nothing if none did."""
    return ", ".join(f"{words} {count:,}" for words, count in by_words(losses).items())


def sentence(losses: Mapping[str, int], repeated: int) -> str:
    """Return how many contributions were lost, to what, and the repeated rounds; or nothing.

    Args:
        losses: Counts by the names of the columns of ``rounds.csv``.
        repeated: Number of repeated rounds.
    """
    parts = []
    if losses:
        parts.append(f"contributions lost: {sum(losses.values()):,} ({in_words(losses)})")
    if repeated:
        parts.append(f"rounds repeated: {repeated:,}")
    return "; ".join(parts)
