"""The range of a panel over rounds, in which the later rounds count.

Untrained models are worse by whole nats, and a unigram model stays far above trained ones. With
both in the range half of a panel is empty, and the differences that matter are pressed together.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

_START = 0.2
"""Share of the rounds whose values may lie outside the range, from where the curves come in."""
_FEWEST_ROUNDS = 2
"""Later rounds without which nothing would be left of the curves."""
_FAR = 1.3
"""Multiple of the later values' range beyond which other values are left out."""
_MARGIN = 0.05


def leave_out_start(
    axes: Axes,
    points: NDArray[np.float64],
    kept: Sequence[float],
    lines: Sequence[float] = (),
) -> None:
    """Set the range to that of the later rounds, if it is much smaller than that of all.

    Args:
        axes: The axes, to which all curves have been added.
        points: Rounds and values, ``[points, 2]``.
        kept: Other values that have to stay in the range.
        lines: Values of lines across the panel, which stay unless they are far above.
    """
    later = points[points[:, 0] > _START * points[:, 0].max(initial=0)]
    if len(np.unique(later[:, 0])) < _FEWEST_ROUNDS:
        return
    inner = np.array([*later[:, 1], *kept])
    near = [one for one in lines if one <= inner.min() + _FAR * np.ptp(inner)]
    low, high = min([inner.min(), *near]), max([inner.max(), *near])
    if np.ptp([*points[:, 1], *kept, *lines]) > _FAR * (high - low) > 0:
        margin = _MARGIN * (high - low)
        axes.set_ylim(low - margin, high + margin)
