"""Custom server optimizers, named by their import path, ``my_module:my_optimizer``.

Their results are checked in every round, and their errors name the user's file and line. A run has
the same bits after resuming only if an optimizer is a function of its arguments, so others are
refused before the first round.
"""

from typing import Any

import numpy as np

from fedsi.blame import blamed, kind_of, place_of, without_global_draws
from fedsi.errors import UserError
from fedsi.experiment.server import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector
from fedsi.learning.server_optimizers.table import KEYS
from fedsi.tables import refuse_without_effect

_KINDS = "biuf"
"""Kinds of numbers that a checkpoint can store."""


def checked_optimizer(own: ServerOptimizer, settings: ServerSettings) -> ServerOptimizer:
    """Return a user's optimizer with functions that are checked at each call.

    Args:
        own: The user's optimizer.
        settings: Settings with its import path.

    Raises:
        UserError: A key that it does not use was set.
    """
    path = settings.optimizer
    used = ServerSettings.model_fields.keys() - (KEYS - own.keys)
    try:
        refuse_without_effect(settings, "server", used, "optimizer")
    except ValueError as error:
        raise UserError(str(error)) from None

    def initial_state(settings: ServerSettings, size: int) -> State:
        state = _initial_state(path, own, settings, size)
        _try_out(path, own, settings, size, state)
        return state

    def step(settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
        return _step(path, own, settings, state, given)

    return ServerOptimizer(initial_state, step, own.keys)


def _initial_state(path: str, own: ServerOptimizer, settings: ServerSettings, size: int) -> State:
    called = f"initial_state of {path}{place_of(own.initial_state)}"
    with without_global_draws(called), blamed(f"initial_state of {path} failed"):
        state: Any = own.initial_state(settings, size)
    if not isinstance(state, dict):
        raise UserError(f"{called} returned {kind_of(state)}; return a dict of arrays by name")
    for name, array in state.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{called} names an array {name!r}; use variable names")
        if not isinstance(array, np.ndarray) or array.dtype.kind not in _KINDS:
            raise UserError(
                f"{called} returned {kind_of(array)} for {name}; return a NumPy array of numbers"
            )
    return state


def _step(
    path: str, own: ServerOptimizer, settings: ServerSettings, state: State, given: RoundUpdate
) -> tuple[Vector, State]:
    called = f"step of {path}{place_of(own.step)}"
    expected = {name: _form(array) for name, array in state.items()}
    failed = f"step of {path} failed in round {given.round_number}"
    with without_global_draws(called), blamed(failed):
        returned: Any = own.step(settings, state, _read_only(given))
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise UserError(f"{called} returned {kind_of(returned)}; return (direction, state)")
    direction, after = returned
    if _form(direction) != _form(given.update):
        raise UserError(
            f"{called} returned the direction {_form(direction)} instead of {_form(given.update)}"
        )
    found = (
        {name: _form(array) for name, array in after.items()} if isinstance(after, dict) else after
    )
    if found != expected:
        raise UserError(
            f"{called} returned the state {found} instead of {expected}; a state keeps the names, "
            "shapes and types of initial_state"
        )
    return direction, after


def _try_out(
    path: str, own: ServerOptimizer, settings: ServerSettings, size: int, state: State
) -> None:
    """Refuse functions whose results differ when they are called again."""
    drawn = np.random.default_rng(0).standard_normal((2, size), np.float32)
    given = RoundUpdate(drawn[0], drawn[1], 1)
    ends = []
    for first in (state, _initial_state(path, own, settings, size)):
        copies = {name: array.copy() for name, array in first.items()}
        direction, after = _step(path, own, settings, copies, given)
        ends.append({**first, **{f"next {name}": array for name, array in after.items()}})
        ends[-1][""] = direction
    one, other = ends
    if one.keys() != other.keys() or any(_differ(one[name], other[name]) for name in one):
        raise UserError(
            f"step of {path}{place_of(own.step)} or initial_state returns something else when "
            "called again with the same arguments; it must draw no random numbers and keep no state"
        )


def _differ(one: Any, other: Any) -> bool:
    return bool(one.shape != other.shape or one.tobytes() != other.tobytes())


def _read_only(given: RoundUpdate) -> RoundUpdate:
    """Return the same inputs as read-only arrays."""
    parameters, update = given.parameters.view(), given.update.view()
    parameters.flags.writeable = update.flags.writeable = False
    return RoundUpdate(parameters, update, given.round_number)


def _form(array: object) -> str:
    """Return an array's type and shape, or the kind of another value, for a sentence."""
    if not isinstance(array, np.ndarray):
        return kind_of(array)
    return f"{array.dtype} {list(array.shape)}"
