"""Output layers with a spectrum like trained ones: states and rows lie near a few directions."""

import numpy as np

from fedsi.inference.top_k.layer import Array, OutputRows
from fedsi.inference.top_k.table import OUTPUT_LAYERS

NAMES = tuple(OUTPUT_LAYERS)


def near_directions(rows: int, size: int, states: int, seed: int = 0) -> tuple[OutputRows, Array]:
    """Return an output layer and states, float32 ``[states, size]``."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(12, size)) * np.linspace(2, 0.3, 12)[:, None]
    weight = 0.3 * rng.normal(size=(rows, 12)) @ directions + 0.02 * rng.normal(size=(rows, size))
    found = 0.2 * rng.normal(size=(states, 12)) @ directions
    found += 0.05 * rng.normal(size=(states, size)) + 0.3
    bias = rng.normal(size=rows)
    made = OutputRows(weight.astype(np.float32), bias.astype(np.float32))
    return made, found.astype(np.float32)
