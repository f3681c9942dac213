"""The next-word protocol: sequences of token ids made from words.

After Reddi et al. (arXiv 2003.00295) and the TensorFlow Federated Stack Overflow task: a sequence
is ``bos``, the first ``sequence_length`` words, and ``eos`` only if there were fewer words; it is
padded to ``sequence_length + 1``.
"""

import numpy as np
from numpy.typing import NDArray

PAD, BOS, EOS, OOV = range(4)
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<oov>")
FIRST_WORD = len(SPECIAL_TOKENS)

Tokens = NDArray[np.int32]


def inputs_and_targets(rows: Tokens) -> tuple[Tokens, Tokens]:
    """Return a model's inputs and targets for some rows, as views: ``[rows, time]``.

    Args:
        rows: ``[rows, time + 1]``.
    """
    return rows[:, :-1], rows[:, 1:]


def lengths_of(rows: Tokens) -> NDArray[np.int64]:
    """Return the number of tokens of each row, without padding: ``[rows]``."""
    return np.asarray(np.count_nonzero(rows != PAD, axis=1), dtype=np.int64)


def pad_examples(tokens: Tokens, starts: NDArray[np.int64], sequence_length: int) -> Tokens:
    """Arrange sentences as rows of the protocol.

    Args:
        tokens: Word ids of all sentences, concatenated; none longer than the protocol's.
        starts: Start of each sentence and, last, the number of tokens, ``[sentences + 1]``.
        sequence_length: Words in a full sequence.

    Returns:
        ``[sentences, sequence_length + 1]``, padded with ``PAD``.
    """
    lengths = np.diff(starts)
    rows = np.full((len(lengths), sequence_length + 1), PAD, dtype=np.int32)
    rows[:, 0] = BOS
    columns = np.arange(sequence_length)
    filled = columns < lengths[:, None]
    rows[:, 1:][filled] = tokens[starts[0] : starts[-1]]
    short = np.flatnonzero(lengths < sequence_length)
    rows[short, lengths[short] + 1] = EOS
    return rows
