"""The degree to which a run went wrong, judged against the unigram model."""

from server.runs.summary import Summary

_WILD = 1.5
"""Ratio to the unigram model's loss above which a cohort's training loss is no chance."""


def degree(summary: Summary) -> str:
    """Return in words how badly a run ended; an empty text if it ended better than unigram.

    A run may end far above the unigram model's loss without meeting the limit at which it is
    stopped as diverged, and its clients' local training may diverge while the average does not.
    """
    loss, unigram, trained = summary.heldout_loss, summary.unigram_loss, summary.train_loss
    found = []
    if loss is None:
        found.append("its loss is not finite")
    elif unigram is not None and loss >= unigram:
        found.append(f"{loss - unigram:.3f} nats worse than the unigram model")
    if unigram is not None and trained is not None and trained > _WILD * unigram:
        found.append(f"local training diverged: the loss of the last cohort is {trained:.3f}")
    return "; ".join(found)
