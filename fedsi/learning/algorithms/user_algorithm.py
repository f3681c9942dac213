"""Custom algorithms, named by their import path, ``my_module:my_algorithm``.

Their results are checked at every call, and errors name the user's file and line. A run has the
same bits on any worker and after an interruption only if the results depend only on the arguments,
so an algorithm that violates this is refused before the first round.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fedsi.blame import blamed, kind_of, place_of, without_global_draws
from fedsi.errors import UserError
from fedsi.experiment import AlgorithmSettings, Experiment
from fedsi.learning.algorithms.algorithm import (
    UPDATE,
    Algorithm,
    Broadcast,
    Cohort,
    Contribution,
    LocalRun,
    Pull,
    Updates,
    Vector,
    Vectors,
)
from fedsi.learning.algorithms.imitation import PUBLIC_KEYS, check_imitation
from fedsi.learning.algorithms.table import ALGORITHMS, check_privacy
from fedsi.tables import refuse_without_effect


def checked_algorithm(experiment: Experiment) -> Algorithm:
    """Return the user's algorithm with functions that are checked at each call.

    Raises:
        UserError: It is not found, does not use a key that was set, or does not fit the experiment.
    """
    path = experiment.algorithm.name
    own = ALGORITHMS[path]
    _check_names(path, own)
    used = own.keys | ({"state_limit"} if own.kept else set())
    used |= PUBLIC_KEYS if own.imitated else set()
    try:
        refuse_without_effect(experiment.algorithm, "algorithm", used, "name")
        check_privacy(experiment, own)
        check_imitation(experiment, own)
        with blamed(f"check of {path} refuses the experiment"):
            own.check(experiment)
    except ValueError as error:
        raise UserError(str(error)) from None

    def pull(settings: AlgorithmSettings, given: Broadcast) -> Pull:
        with _called(path, "pull", own.pull) as called:
            found: Any = own.pull(settings, _read_only(given))
        _check_pull(called, found, given.start)
        return found  # type: ignore[no-any-return]

    def finish(settings: AlgorithmSettings, given: Broadcast, local: LocalRun) -> Contribution:
        with _called(path, "finish", own.finish) as called:
            trained = replace(local, trained=_locked(local.trained))
            found: Any = own.finish(settings, _read_only(given), trained)
        _check_contribution(called, found, own, given.start)
        return found  # type: ignore[no-any-return]

    def combine(
        settings: AlgorithmSettings, state: Vectors, means: Vectors, cohort: Cohort
    ) -> tuple[Vector, Vectors]:
        with _called(path, "combine", own.combine) as called:
            found: Any = own.combine(settings, _all_locked(state), _all_locked(means), cohort)
        if not isinstance(found, tuple) or len(found) != 2:
            raise UserError(f"{called} returned {kind_of(found)}; return (update, vectors)")
        _check_vector(called, "the update", found[0], means[UPDATE])
        _check_vectors(called, found[1], own.sent, means[UPDATE])
        return found[0], {name: found[1][name] for name in own.sent}

    def aggregate(settings: AlgorithmSettings, updates: Updates) -> Vector:
        assert own.aggregate is not None, "it is called only if there is one"  # noqa: S101
        with _called(path, "aggregate", own.aggregate) as called:
            found: Any = own.aggregate(settings, _locked(updates))
        _check_vector(called, "the update", found, updates[0])
        return found  # type: ignore[no-any-return]

    checked = replace(own, pull=pull, finish=finish, combine=combine)
    return replace(checked, aggregate=aggregate) if own.aggregate else checked


def try_algorithm(experiment: Experiment, size: int) -> None:
    """Refuse an algorithm whose functions fail, or differ in their results for equal arguments.

    Args:
        experiment: An experiment with a custom algorithm.
        size: Number of parameters.

    Raises:
        UserError: A function fails, or its results differ.
    """
    own, settings = checked_algorithm(experiment), experiment.algorithm
    drawn = iter(np.random.default_rng(0).standard_normal((4, size), np.float32))
    start, trained = next(drawn), next(drawn)
    given = Broadcast(start, *(dict.fromkeys(names, start / 2) for names in (own.sent, own.kept)))
    local = LocalRun(trained, 3, experiment.client.learning_rate)
    means = dict.fromkeys((UPDATE, *own.returned), trained)
    calls: dict[str, Callable[[], object]] = {
        "pull": lambda: vars(own.pull(settings, given)),
        "finish": lambda: vars(own.finish(settings, given, local)),
        "combine": lambda: own.combine(settings, given.sent, means, Cohort(1, 2, 10)),
    }
    if own.aggregate:
        aggregate = own.aggregate
        calls["aggregate"] = lambda: aggregate(settings, np.stack([start, trained]))
    for name, call in calls.items():
        if _bytes_of(call()) != _bytes_of(call()):
            function = getattr(ALGORITHMS[settings.name], name)
            raise UserError(
                f"{name} of {settings.name}{place_of(function)} returns something else when called "
                "again with the same arguments; it must draw no random numbers and keep no state"
            )


@contextmanager
def _called(path: str, name: str, function: object) -> Iterator[str]:
    """Blame a function's errors and random draws on its file; yields its name for messages."""
    called = f"{name} of {path}{place_of(function)}"
    with without_global_draws(called), blamed(f"{name} of {path} failed"):
        yield called


def _check_names(path: str, own: Algorithm) -> None:
    for field in ("sent", "returned", "kept"):
        names = getattr(own, field)
        if not isinstance(names, tuple) or not all(str(name).isidentifier() for name in names):
            raise UserError(
                f"{field} of {path} is {names!r}; give a tuple of names that are valid as variable "
                "names, such as ('control',)"
            )


def _check_pull(called: str, found: object, start: Vector) -> None:
    if not isinstance(found, Pull):
        raise UserError(f"{called} returned {kind_of(found)}; return a Pull")
    if not isinstance(found.strength, float) or not math.isfinite(found.strength):
        raise UserError(f"{called} returned the strength {found.strength!r}; return a finite float")
    if found.vector is not None:
        _check_vector(called, "the vector", found.vector, start)


def _check_contribution(called: str, found: object, own: Algorithm, start: Vector) -> None:
    if not isinstance(found, Contribution):
        raise UserError(f"{called} returned {kind_of(found)}; return a Contribution")
    if found.update is not None:
        _check_vector(called, "the update", found.update, start)
    _check_vectors(called, found.returned, own.returned, start)
    _check_vectors(called, found.kept, own.kept, start)


def _check_vectors(called: str, found: object, names: tuple[str, ...], like: Vector) -> None:
    if not isinstance(found, Mapping) or set(found) != set(names):
        what = (
            f"the vectors {sorted(map(str, found))}"
            if isinstance(found, Mapping)
            else kind_of(found)
        )
        raise UserError(f"{called} returned {what} instead of {sorted(names)}")
    for name in names:
        _check_vector(called, name, found[name], like)


def _check_vector(called: str, what: str, found: object, like: Vector) -> None:
    form = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else kind_of(found)
    right = f"{like.dtype} {list(like.shape)}"
    if form != right:
        raise UserError(f"{called} returned {what} as {form} instead of {right}")


def _read_only(given: Broadcast) -> Broadcast:
    """Return what writing to is an error."""
    return Broadcast(_locked(given.start), _all_locked(given.sent), _all_locked(given.kept))


def _all_locked(vectors: Vectors) -> dict[str, Vector]:
    return {name: _locked(vector) for name, vector in vectors.items()}


def _locked(vector: Vector) -> Vector:
    view = vector.view()
    view.flags.writeable = False
    return view


def _bytes_of(value: object) -> object:
    """Return something that is equal for equal bits."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, Mapping):
        return {name: _bytes_of(one) for name, one in value.items()}
    return [_bytes_of(one) for one in value] if isinstance(value, tuple) else value
