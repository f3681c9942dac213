"""A user's own algorithm that cannot be used is refused in one sentence with its file and line."""

from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.learning.algorithms.table import algorithm_of
from server.rounds import initial_server_state
from simulations import simulate
from simulations.presets import load_preset
from tests.server.test_rounds import DESCRIPTION

FILE = r"\(.*own_algorithms\.py, line \d+\)"


def named(name: str) -> Experiment:
    return load_preset("smoke").updated({"algorithm.name": f"tests.own_algorithms:{name}"})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("raises", rf"pull of .*:raises failed: RuntimeError: no luck {FILE}$"),
        ("no_pull", rf"pull of .*:no_pull {FILE} returned None; return a Pull"),
        (
            "double",
            rf"pull of .* {FILE} returned the vector as float64 \[\d+\] instead of float32",
        ),
        (
            "short",
            rf"finish of .* {FILE} returned the update as float32 \[\d+\] instead of float32",
        ),
        ("unnamed", rf"finish of .* {FILE} returned the vectors \[\] instead of \['control'\]"),
        ("not_names", r"returned of .* is 'control'; give a tuple of names"),
        ("numpy_draws", rf"pull of .* {FILE} draws from the global generator of numpy.random"),
        ("torch_draws", rf"pull of .* {FILE} draws from the global generator of torch"),
        ("python_draws", rf"pull of .* {FILE} draws from the global generator of random"),
        ("remembers", rf"pull of .* {FILE} returns something else when called again"),
        ("writes", rf"pull of .* failed: ValueError: assignment destination is read-only {FILE}"),
        ("combines", rf"combine of .* {FILE} returned a dict; return \(update, vectors\)"),
        ("nothing", "nothing is an int, and algorithm.name takes an Algorithm of"),
        ("absent", "has no absent, which algorithm.name = 'tests.own_algorithms:absent' names"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_first_round(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        initial_server_state(named(name), DESCRIPTION)
    assert "\n" not in str(caught.value)


def test_keys_and_privacy_are_checked_when_it_is_imported() -> None:
    with pytest.raises(UserError, match=r"algorithm.mu=0.5 has no effect with .*:returns_more"):
        algorithm_of(named("returns_more").updated({"algorithm.mu": 0.5}))
    private = {
        "server.sampling": "poisson",
        "server.averaging": "uniform",
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 1.0,
    }
    with pytest.raises(UserError, match="also return control, which no epsilon covers"):
        algorithm_of(named("returns_more").updated(private))


def test_the_sentence_ends_a_run(cache: Path) -> None:
    with pytest.raises(UserError, match=r"pull of .*:raises failed: RuntimeError: no luck"):
        simulate(named("raises"), cache=cache)
    with pytest.raises(
        UserError, match=r"algorithm.name = 'os:path' is not allowed: os is a module"
    ):
        load_preset("smoke").updated({"algorithm.name": "os:path"})
