"""The task of a keyboard: to predict each next word of a sentence."""

from fedsi.data.protocol import Tokens, inputs_and_targets
from fedsi.tasks.task import Batch


def batch(rows: Tokens) -> Batch:
    """Return a batch that asks for each token but the first; its arrays are views of the rows.

    Args:
        rows: ``[batch, time + 1]``, padded at their ends.
    """
    return Batch(*inputs_and_targets(rows))
