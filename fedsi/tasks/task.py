"""What a task gives to training and evaluation."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import PAD, Tokens


@dataclass(frozen=True)
class Batch:
    """Sequences that a model reads, and what it is asked at their positions."""

    inputs: Tokens
    """``[batch, time]``."""
    targets: Tokens
    """``[batch, time]``; ``PAD`` where nothing is asked."""

    def __len__(self) -> int:
        return len(self.inputs)

    @cached_property
    def asked(self) -> NDArray[np.bool_]:
        """Positions that have a target, ``[batch, time]``."""
        return np.asarray(self.targets != PAD)

    @cached_property
    def count(self) -> int:
        """Number of targets."""
        return int(np.count_nonzero(self.asked))
