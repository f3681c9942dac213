"""Contract of all mechanisms: the accounting matches the noise that is added.

Whole releases of sums of zeros are measured, independently of the mechanism's own statements. Their
covariance over rounds gives the largest effect of a client in standard deviations, which must match
the accounting. Mechanisms with faults show that the measurement detects them.
"""

import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsi import Experiment, UserError
from fedsi.experiment.keys import keys_of
from fedsi.messages import TRAINING_COLUMNS
from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState
from fedsi.privacy.mechanisms.table import MECHANISMS, accounting_of
from server.aggregation import Aggregate
from server.differential_privacy import Privacy, privacy_of
from simulations import simulate
from simulations.presets import load_preset
from tests.test_docs import ROOT, fenced

PAIRINGS = [(name, sampling) for name in MECHANISMS for sampling in MECHANISMS[name].samplings]
ROUNDS, SEPARATION, COHORT = 8, 3, 20
SIZE = 20_000
CLIP_NORM, NOISE = 0.5, 0.8

Change = Callable[[NoiseState, int, NDArray[np.float32]], NDArray[np.float32]]
"""What a fault makes of a round's noise."""
Rows = NDArray[np.float64]
"""Noise of each round in units of noise multiplier times clip norm: ``[ROUNDS, SIZE]``."""


def private(mechanism: str, sampling: str, **settings: Any) -> Privacy:
    accounting = accounting_of(mechanism, sampling)
    experiment = Experiment(
        server={
            "rounds": ROUNDS,
            "cohort_size": COHORT,
            "averaging": "uniform",
            "sampling": sampling,
            "min_separation": SEPARATION if accounting is Accounting.KEPT_APART else "none",
            "groups": SEPARATION if accounting is Accounting.TAKING_TURNS else "none",
        },
        privacy={
            "mechanism": mechanism,
            "noise_multiplier": NOISE,
            "clip_norm": CLIP_NORM,
            **settings,
        },
    )
    found = privacy_of(experiment, SEPARATION * COHORT)
    assert found is not None
    return found


def released(run: Privacy) -> Rows:
    state, rows = run.initial_state(SIZE), []
    nobody = np.zeros((0, len(TRAINING_COLUMNS)))
    for number in range(1, ROUNDS + 1):
        update, state = run.release(state, Aggregate(np.zeros(SIZE, np.int64), nobody), number)
        rows.append(update.astype(np.float64) * COHORT / (NOISE * CLIP_NORM))
    return np.array(rows)


def faults(rows: Rows, run: Privacy) -> set[str]:
    """Return the significant differences between a release's noise and its accounting."""
    covariance = rows @ rows.T / SIZE
    said = run.mechanism.row_norms(ROUNDS) ** 2
    if (np.abs(np.diag(covariance) / said - 1) > 5 * math.sqrt(2 / SIZE)).any():
        return {"scale"}
    if MECHANISMS[run.plan.mechanism].is_independent:
        between = covariance - np.diag(np.diag(covariance))
        return {"not independent"} if (np.abs(between) > 5 / math.sqrt(SIZE)).any() else set()
    if np.linalg.eigvalsh(covariance)[0] < 1e-6:
        return {"sensitivity"}
    if run.plan.accounting is Accounting.TAKING_TURNS:
        return faults_of_turns(np.linalg.inv(covariance), run.plan)
    found = set()
    for rounds in (1, 2, ROUNDS // 2, ROUNDS):
        moved = largest_move(covariance[:rounds, :rounds], run.plan)
        priced = epsilon(run.plan, rounds).sensitivity
        # Its relative error is 1 / sqrt(2 SIZE). A cost may count a mechanism's inner nodes,
        # which nobody sees, but only slightly.
        if not 0.9 < moved / priced < 1 + 5 / math.sqrt(2 * SIZE):
            found.add("sensitivity")
    return found


def faults_of_turns(precision: NDArray[Any], plan: Plan) -> set[str]:
    """Return what keeps turns from being separate Gaussian mechanisms of sensitivity 1."""
    tolerance = 5 / math.sqrt(SIZE)
    each = np.sqrt(np.diag(precision))
    found = {"sensitivity"} if not (each > 0.9).all() or (each > 1 + tolerance).any() else set()
    apart = np.abs(np.subtract.outer(range(ROUNDS), range(ROUNDS))) >= plan.groups
    shared = (np.abs(precision[apart]) > tolerance).any()
    return found | ({"turns share noise"} if shared else set())


def largest_move(covariance: NDArray[np.float64], plan: Plan) -> float:
    """Return the largest effect of one client on the first rounds, in standard deviations."""
    inverse, rounds = np.linalg.inv(covariance), len(covariance)
    largest = 0.0
    for pattern in itertools.product((-1.0, 0.0, 1.0), repeat=rounds):
        turns = np.flatnonzero(pattern)
        if len(turns) > plan.participations_within(rounds) or (
            len(turns) > 1 and np.diff(turns).min() < plan.min_separation
        ):
            continue
        largest = max(largest, float(np.array(pattern) @ inverse @ pattern))
    return math.sqrt(largest)


@pytest.mark.parametrize(("mechanism", "sampling"), PAIRINGS)
def test_the_noise_that_is_priced_is_added(mechanism: str, sampling: str) -> None:
    run = private(mechanism, sampling)
    assert faults(released(run), run) == set()


@pytest.mark.parametrize(("mechanism", "sampling"), PAIRINGS)
def test_secure_noise_is_as_much(mechanism: str, sampling: str) -> None:
    run = private(mechanism, sampling, secure_noise=True)
    assert faults(released(run), run) == set()


@dataclass(frozen=True)
class Faulty:
    """A mechanism whose noise is changed after it is drawn."""

    honest: Any
    change: Change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    def initial_state(self, size: int) -> NoiseState:
        return {**self.honest.initial_state(size), "kept": np.zeros(size, np.float32)}

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[np.float32]:
        noise = self.honest.noise(state, round_number, fresh)
        return self.change(state, round_number, noise)


def every_two_rounds(
    state: NoiseState, round_number: int, noise: NDArray[np.float32]
) -> NDArray[np.float32]:
    if round_number % 2:
        state["kept"] = noise.copy()
    return state["kept"]


def scaled(factor: float) -> Change:
    return lambda _state, _round, noise: (factor * noise).astype(np.float32)


FAULTS: dict[str, Change] = {
    "none": scaled(0.0),
    "half": scaled(0.5),
    "two thirds": scaled(2 / 3),
    "half as much again": scaled(1.5),
    "repeated every two rounds": every_two_rounds,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("mechanism", "sampling"), PAIRINGS)
def test_planted_faults_are_found(mechanism: str, sampling: str, fault: str) -> None:
    run = private(mechanism, sampling)
    planted = replace(run, mechanism=Faulty(run.mechanism, FAULTS[fault]))
    assert faults(released(planted), planted)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The mechanism of the documentation: its file, and its line in the table."""
    (code,) = fenced("docs/add-a-mechanism.md", "python")
    page = (ROOT / "docs/add-a-mechanism.md").read_text()
    (line,) = re.finditer(r'^"(\w+)": "[\w.]+",$', page, re.MULTILINE)
    name = line[1]
    (tmp_path / f"planted_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MECHANISMS.entries, name, f"planted_{name}")
    return name


@pytest.mark.parametrize("secure", [False, True])
def test_one_file_and_one_line_are_a_mechanism(planted: str, secure: bool) -> None:
    run = private(planted, "shuffled", secure_noise=secure)
    assert faults(released(run), run) == set()
    assert planted in keys_of("privacy.mechanism")[0].keys[0].allowed


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_new_mechanism_are_found(planted: str, fault: str) -> None:
    run = private(planted, "shuffled")
    faulty = replace(run, mechanism=Faulty(run.mechanism, FAULTS[fault]))
    assert faults(released(faulty), faulty)


def test_what_a_new_mechanism_does_not_claim_is_refused(planted: str) -> None:
    with pytest.raises(UserError, match="has no valid accounting"):
        private(planted, "poisson")
    with pytest.raises(UserError, match=f"bands has no effect with .*={planted}; set .*=banded"):
        private(planted, "shuffled", bands=3)


def test_a_new_mechanism_trains(planted: str, cache: Path) -> None:
    experiment = load_preset("smoke").updated(
        {
            "server.rounds": 2,
            "server.sampling": "shuffled",
            "server.averaging": "uniform",
            "privacy.mechanism": planted,
            "privacy.noise_multiplier": 0.5,
        }
    )
    summary = simulate(experiment, cache=cache).summary
    assert summary.privacy
    assert summary.privacy.epsilon
    assert 0 < summary.privacy.epsilon < math.inf


def test_the_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'guassian' is not allowed: did you mean gaussian\?"):
        Experiment(privacy={"mechanism": "guassian"})


@pytest.mark.usefixtures("fresh_processes")
def test_choosing_nothing_loads_no_library() -> None:
    script = (
        "import sys, fedsi.experiment, simulations.cli.main;"
        "print([m for m in ('scipy', 'torch') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
