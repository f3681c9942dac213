"""Which clients take part in a round."""

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import UserError
from fedsi.seeds import Purpose, generator


def uniform_cohort(seed: int, round_number: int, population: int, size: int) -> NDArray[np.int64]:
    """Draw a cohort of fixed size uniformly without replacement, a pure function of its arguments.

    Cost grows with the cohort, not with the population. Privacy accounting that is valid for this
    sampler: fixed-size sampling without replacement under replace-one adjacency. It is not Poisson
    sampling and must not be accounted as such.

    Returns:
        Client indices in the order in which they are cut into blocks, ``[size]``.
    """
    rng = generator(seed, Purpose.COHORT, round_number)
    return rng.choice(population, size, replace=False).astype(np.int64)


def check_cohort_size(size: int, population: int) -> None:
    """Raise ``UserError`` if a cohort cannot be drawn without replacement."""
    if size > population:
        raise UserError(
            f"server.cohort_size = {size} is more than the {population} training clients of the "
            "corpus; choose a smaller cohort or a larger corpus"
        )
