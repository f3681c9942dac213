"""Algorithms with a user's mistakes, named by tests by their import path."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fedsi.learning.algorithms.algorithm import Algorithm, Broadcast, Contribution, LocalRun, Pull
from fedsi.learning.algorithms.fed_avg import ALGORITHM as PLAIN

calls: list[int] = []


def _pull(result: Any) -> Algorithm:
    def pull(_settings: Any, given: Broadcast) -> Pull:
        found: Pull = result(given)
        return found

    return replace(PLAIN, pull=pull)


def _finish(result: Any, **names: Any) -> Algorithm:
    def finish(_settings: Any, given: Broadcast, local: LocalRun) -> Contribution:
        found: Contribution = result(given, local)
        return found

    return replace(PLAIN, finish=finish, **names)


def _broken(_given: Broadcast) -> Pull:
    raise RuntimeError("no luck\nat all")


def _counting(_given: Broadcast) -> Pull:
    calls.append(1)
    return Pull(0.001 * len(calls))


def _writing(given: Broadcast) -> Pull:
    given.start[0] = 1
    return Pull()


raises = _pull(_broken)
no_pull = _pull(lambda _: None)
double = _pull(lambda given: Pull(vector=given.start.astype(np.float64)))
short = _finish(lambda given, local: Contribution(local.trained[1:]))
unnamed = _finish(lambda given, local: Contribution(), returned=("control",))
not_names = _finish(lambda given, local: Contribution(), returned="control")
numpy_draws = _pull(lambda given: Pull(float(np.random.rand())))  # noqa: NPY002
torch_draws = _pull(lambda given: Pull(float(torch.rand(()))))
python_draws = _pull(lambda given: Pull(random.random()))
remembers = _pull(_counting)
writes = _pull(_writing)
combines = replace(PLAIN, combine=lambda *arguments: arguments[1])
returns_more = _finish(
    lambda given, local: Contribution(None, {"control": local.trained}), returned=("control",)
)
nothing = 3


def _failing(given: Broadcast, local: LocalRun) -> Contribution:
    """Fail for some contributions and diverge for others, as their bits decide."""
    choice = int(abs(float(local.trained.sum())) * 1e6) % 8
    if choice == 0:
        raise RuntimeError("it failed")
    return Contribution(np.full_like(given.start, np.nan) if choice == 1 else None)


fails_and_diverges = _finish(_failing)
