"""Users' server optimizers: refused in one sentence that names the file and line, or used."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.experiment import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, take_step
from fedsi.learning.server_optimizers.table import optimizer_of
from server.runs.folder import RunFolder
from simulations import simulate
from tests.test_docs import fenced


def settings_of(name: str, **more: float) -> ServerSettings:
    return ServerSettings(optimizer=f"tests.own_optimizers:{name}", **more)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "missing",
            r"own_optimizers.py\) has no missing, which server.optimizer = .* names; define it",
        ),
        (
            "not_one",
            r"not_one is a dict, and server.optimizer takes a ServerOptimizer of",
        ),
        ("raises", r"step of .*:raises failed in round 1: KeyError: 'nonsense' \(.*rs.py, line 2"),
        ("writes", r"failed in round 1: ValueError: assignment destination is read-only \(.*line"),
        ("short", r"\(.*rs.py, line \d+\) returned the direction float32 \[4\] instead of .*\[5"),
        ("wide", r"returned the direction float64 \[5\] instead of float32 \[5\]"),
        ("alone", r"returned a ndarray; return \(direction, state\)"),
        ("forgets", r"line \d+\) returned the state {} instead of {'first': 'float32 \[5\]'}"),
        ("widens", r"the state {'first': 'float64 \[5\]'} instead of {'first': 'float32 \[5\]'}"),
        ("draws_numpy", r"line \d+\) draws from the global generator of numpy.random, so that"),
        ("draws_python", r"line \d+\) draws from the global generator of random, so that"),
        ("draws_torch", r"line \d+\) draws from the global generator of torch, so that"),
        ("unseeded", r"line \d+\) or initial_state returns something else when called agai"),
        ("remembers", r"returns something else when called again with the same arguments; it"),
        ("no_dict", r"initial_state of .*line \d+\) returned a list; return a dict of arrays"),
        ("a_list", r"line \d+\) returned a list for first; return a NumPy array of numbers"),
        ("bad_name", r"line \d+\) names an array 'a b'; use variable names"),
    ],
)
def test_refuses_in_one_sentence(name: str, expected: str) -> None:
    settings = settings_of(name)
    with pytest.raises(UserError, match=expected) as error:
        optimizer_of(settings).initial_state(settings, 5)
    assert "\n" not in str(error.value)


def test_later_rounds_are_checked_too() -> None:
    settings = settings_of("late")
    optimizer = optimizer_of(settings)
    state = optimizer.initial_state(settings, 2)
    zeros = np.zeros(2, np.float32)
    with pytest.raises(UserError, match=r"late failed in round 2: KeyError: 'nonsense' \(.*line"):
        take_step(optimizer, settings, state, RoundUpdate(zeros, zeros, 2))


def test_keys_that_it_does_not_use_are_refused() -> None:
    assert optimizer_of(settings_of("with_momentum", momentum=0.5)).keys == {"momentum"}
    with pytest.raises(UserError, match=r"^server.momentum=0.5 has no effect with .*:plain, which"):
        optimizer_of(settings_of("plain", momentum=0.5))
    with pytest.raises(UserError, match=r"^server.adaptivity=0.1 has no effect"):
        optimizer_of(settings_of("with_momentum", adaptivity=0.1))


def test_the_pages_optimizer_runs_and_resumes_with_the_same_bits(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = fenced("docs/own-server-optimizer.md", "python")
    assert len(code.splitlines()) < 40
    (tmp_path / "my_optimizer.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    lion = smoke.updated(
        {
            "server.optimizer": "my_optimizer:lion",
            "server.learning_rate": 0.001,
            "server.momentum": 0.8,
        }
    )
    whole = simulate(lion, cache=cache).summary.model_sha256

    def interrupt(_experiment: object, record: object) -> None:
        if getattr(record, "round", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(lion, cache=cache, out=tmp_path / "run", on_round=interrupt)
    changed = code.replace('"first"', '"other"')
    (tmp_path / "my_optimizer.py").write_text(changed)
    monkeypatch.delitem(sys.modules, "my_optimizer")
    with pytest.raises(UserError, match="does not hold what the server optimizer keeps between"):
        simulate(lion, cache=cache, out=tmp_path / "run", resume=True)
    (tmp_path / "my_optimizer.py").write_text(code)
    monkeypatch.delitem(sys.modules, "my_optimizer")
    resumed = simulate(lion, cache=cache, out=tmp_path / "run", resume=True)
    assert resumed.summary.model_sha256 == whole
    assert RunFolder(tmp_path / "run").summary()
    monkeypatch.delitem(sys.modules, "my_optimizer")
