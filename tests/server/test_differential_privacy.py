"""The server's side of privacy, with fabricated sums: noise, clip norms, budgets."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsi import Experiment, UserError
from fedsi.limits import FRACTION_BITS
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.privacy.adaptive_clipping import LEARNING_RATE
from fedsi.privacy.mechanisms import secure_noise
from server.aggregation import Aggregate
from server.differential_privacy import (
    CLIP_NORM,
    SCORES,
    ParticipationError,
    Privacy,
    PrivacyState,
    clip_norm_of,
    privacy_of,
)
from tests.fedsi.privacy.mechanisms.matrices import inverse

CLIENTS = 1000
Floats = NDArray[np.float64]
SIZE = 20_000
COHORT = 20


def experiment(**privacy: Any) -> Experiment:
    """Return a private experiment, by default with noise multiplier 1."""
    described = {"mechanism": "gaussian", "noise_multiplier": 1.0, "clip_norm": 0.5, **privacy}
    gaussian = described["mechanism"] == "gaussian"
    return Experiment(
        server={
            "rounds": 16,
            "cohort_size": COHORT,
            "averaging": "uniform",
            "optimizer": "sgd",
            "sampling": "poisson" if gaussian else "shuffled",
            "min_separation": "none" if gaussian else 4,
        },
        privacy=described,
    )


def private(**settings: Any) -> Privacy:
    found = privacy_of(experiment(**settings), CLIENTS)
    assert found is not None
    return found


def aggregate(clients: int = COHORT, clipped: int = 0, value: int = 0) -> Aggregate:
    rows = np.zeros((clients, len(TRAINING_COLUMNS)))
    rows[:, TRAINING_COLUMNS.index("outcome")] = Outcome.AGGREGATED
    rows[:, TRAINING_COLUMNS.index("weight")] = 1.0
    rows[:clipped, TRAINING_COLUMNS.index("clipped")] = 1.0
    return Aggregate(np.full(SIZE, value, np.int64), rows)


def releases(run: Privacy, count: int, first: PrivacyState | None = None) -> list[Any]:
    state, updates = first or run.initial_state(SIZE), []
    for number in range(1, count + 1):
        update, state = run.release(state, aggregate(), number)
        updates.append(update)
    return updates


MECHANISMS = ["gaussian", "tree", "banded", "blt"]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_on_the_mean_has_its_scale(mechanism: str, secure: bool) -> None:
    run = private(mechanism=mechanism, secure_noise=secure)
    first, *_, last = releases(run, 5)
    norms = run.mechanism.row_norms(5)
    for update, norm in ((first, norms[0]), (last, norms[4])):
        for factor in (2 / 3, 1.0, 3 / 2):
            claimed = factor * norm * 0.5 / COHORT
            near = abs(float(update.std()) / claimed - 1) < 5 / math.sqrt(2 * SIZE)
            assert near == (factor == 1.0)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_secure_noise_is_on_the_grid_and_never_the_same(mechanism: str) -> None:
    run = private(mechanism=mechanism, secure_noise=True)
    state = run.initial_state(SIZE)
    total = run._noisy_total(state, np.zeros(SIZE, np.int64), 0.5, 1, b"") * 2.0**FRACTION_BITS
    assert np.array_equal(total, np.rint(total))
    for bit in range(20):
        assert 0.4 < np.mean(total.astype(np.int64) >> bit & 1) < 0.6
    one, two = (releases(run, 1)[0] for _ in range(2))
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / math.sqrt(SIZE)


@pytest.mark.parametrize("mechanism", ["banded", "blt"])
def test_secure_correlated_noise_is_the_matrix_s(
    mechanism: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, size, rounds = private(mechanism=mechanism, secure_noise=True), 50, 16
    fresh = [secure_noise.secure_normal(size) for _ in range(rounds)]
    left = iter(fresh)
    monkeypatch.setattr(secure_noise, "secure_normal", lambda _: next(left))
    state = run.initial_state(size)
    noise = [
        run._noisy_total(state, np.zeros(size, np.int64), 0.5, number, b"")
        for number in range(1, rounds + 1)
    ]
    expected = 0.5 * inverse(run.mechanism, rounds) @ np.array(fresh)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=1.01 * 2.0 ** -(FRACTION_BITS + 1))


@pytest.mark.parametrize("clients", [0, 3, 2 * COHORT])
def test_noise_and_denominator_do_not_follow_who_took_part(clients: int) -> None:
    run = private(noise_multiplier=0.0)
    update, _ = run.release(
        run.initial_state(SIZE), aggregate(clients, value=1 << FRACTION_BITS), 1
    )
    assert (update == np.float32(1 / COHORT)).all()
    noisy = private()
    none, _ = noisy.release(noisy.initial_state(SIZE), aggregate(0), 1)
    some, _ = noisy.release(noisy.initial_state(SIZE), aggregate(clients), 1)
    assert np.array_equal(none, some)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_noise_is_a_function_of_seed_and_round_and_goes_on_after_a_stop(mechanism: str) -> None:
    run = private(mechanism=mechanism)
    whole = releases(run, 8)
    assert not np.array_equal(whole[0], whole[1])
    state = run.initial_state(SIZE)
    for number in range(1, 6):
        _, state = run.release(state, aggregate(), number)
    kept = {name: array.copy() for name, array in state.items()}
    again = privacy_of(run.experiment, CLIENTS)
    assert again is not None
    for number in (6, 7, 8):
        update, kept = again.release(kept, aggregate(), number)
        assert update.tobytes() == whole[number - 1].tobytes()


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("mechanism", ["tree", "banded", "blt"])
def test_correlated_noise_cancels_over_rounds(mechanism: str, secure: bool) -> None:
    total = np.sum(releases(private(mechanism=mechanism, secure_noise=secure), 16), axis=0)
    independent = np.sum(releases(private(), 16), axis=0)
    assert total.std() < 0.75 * independent.std()


def test_a_release_leaves_the_state_before_it_alone() -> None:
    run = private(mechanism="blt", canaries=50)
    state = run.initial_state(SIZE)
    before = {name: array.copy() for name, array in state.items()}
    _, after = run.release(state, aggregate(), 1)
    assert all(np.array_equal(state[name], before[name]) for name in state)
    assert after[SCORES].any()


def test_a_target_epsilon_is_met_and_not_wasted() -> None:
    run = private(noise_multiplier="none", target_epsilon=2.0, delta=1e-5)
    assert 1.98 < run.cost(16).epsilon <= 2.0
    assert run.noise_multiplier == run.plan.noise_multiplier


def test_extrapolation_keeps_the_noise_on_the_mean() -> None:
    run = private(population=1_000_000, cohort_size=1000, noise_multiplier=2.0)
    assert run.noise_multiplier == pytest.approx(2.0 * COHORT / 1000)
    assert (run.plan.population, run.plan.cohort_size) == (1_000_000, 1000)
    (update,) = releases(run, 1)
    assert float(update.std()) == pytest.approx(2.0 * 0.5 / 1000, rel=0.05)
    assert run.cost(16).epsilon < private(noise_multiplier=2.0).cost(16).epsilon


def test_the_budget_ends_a_run_before_it_is_exceeded() -> None:
    free = private(delta=1e-5)
    costs = [free.cost(number).epsilon for number in range(1, 17)]
    assert costs == sorted(costs)
    for rounds in (1, 7, 15):
        budget = (costs[rounds - 1] + costs[rounds]) / 2
        assert private(delta=1e-5, epsilon_budget=budget).affordable_rounds() == rounds
    assert private(delta=1e-5, epsilon_budget=costs[-1]).affordable_rounds() == 16
    with pytest.raises(UserError, match="less than the first round costs"):
        private(delta=1e-5, epsilon_budget=costs[0] / 2).affordable_rounds()


def test_adaptive_clipping_follows_the_clients_and_pays_for_it() -> None:
    run = private(clipping="adaptive", noise_multiplier=0.5)
    assert run.noise_multiplier > 0.5
    assert run.plan.noise_multiplier == 0.5
    low, high = (
        clip_norm_of(run.release(run.initial_state(SIZE), aggregate(clipped=clipped), 1)[1])
        for clipped in (0, COHORT)
    )
    assert low < 0.5 < high
    with pytest.raises(UserError, match="below a tenth of the cohort"):
        private(clipping="adaptive", noise_multiplier=3.0)


def noise_on_counts(run: Privacy, rounds: int) -> Floats:
    """Return the noise in each round's count of unclipped clients, from the clip norms."""
    state, rows = run.initial_state(1), aggregate(clipped=COHORT // 2).rows
    found = []
    for number in range(1, rounds + 1):
        _, after = run.release(state, Aggregate(np.zeros(1, np.int64), rows), number)
        found.append(-COHORT * math.log(clip_norm_of(after) / clip_norm_of(state)) / LEARNING_RATE)
    return np.array(found)


def has_its_noise(counts: Floats) -> bool:
    """Whether counts have independent noise of a twentieth of the cohort, up to chance."""
    rounds = len(counts)
    scaled = counts / (COHORT / 20)
    scale = abs(float((scaled**2).mean()) - 1) < 5 * math.sqrt(2 / rounds)
    return scale and abs(float((scaled[1:] * scaled[:-1]).mean())) < 5 / math.sqrt(rounds)


@pytest.mark.parametrize("secure", [False, True])
def test_counts_of_clients_get_their_noise(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = private(clipping="adaptive", noise_multiplier=0.5, secure_noise=secure)
    counts = noise_on_counts(run, 600)
    assert has_its_noise(counts)
    assert not any(has_its_noise(factor * counts) for factor in (0.0, 0.5, 2 / 3, 1.5))
    assert not has_its_noise(np.repeat(counts[::2], 2))
    monkeypatch.setattr(Privacy, "_noise_on_count", lambda *_: 0.0)
    assert not has_its_noise(noise_on_counts(run, 100))


def test_the_clip_norm_stays_within_what_can_be_summed() -> None:
    run = private(clipping="adaptive", noise_multiplier=0.0)
    huge = run.initial_state(SIZE)
    huge[CLIP_NORM][0] = 1e30
    _, after = run.release(huge, aggregate(clipped=COHORT), 1)
    assert clip_norm_of(after) * 2**FRACTION_BITS * run.experiment.server.largest_cohort < 2**63


def test_canaries_cannot_audit_an_extrapolation() -> None:
    with pytest.raises(UserError, match="cannot audit an extrapolation"):
        private(canaries=50, cohort_size=500)


def test_a_run_without_privacy_has_none() -> None:
    assert privacy_of(Experiment(), CLIENTS) is None
    assert clip_norm_of({}) == math.inf
    assert replace(aggregate(), rows=aggregate(0).rows).means()["update"].sum() == 0


def test_a_cohort_that_breaks_the_accounting_is_not_admitted() -> None:
    run = private(mechanism="blt")
    first = run.admitted(run.no_participations(), 1, np.array([3, 5]))
    with pytest.raises(ParticipationError, match=r"round 3 was not run, .*client 5 .* 1 and 3"):
        run.admitted(first, 3, np.array([5]))
    assert first.times.sum() == 2
    # Passes take 50 rounds: in the first 16 a client takes part once, however far apart.
    with pytest.raises(ParticipationError, match="client 5 takes part 2 times in 16 rounds"):
        run.admitted(first, 16, np.array([5]))


def test_in_an_extrapolation_the_simulated_schedule_is_checked() -> None:
    run = private(mechanism="blt", population=10**6, cohort_size=2000)
    assert run.plan.rounds_per_pass == 500
    assert run.simulated.rounds_per_pass == CLIENTS // COHORT
    assert len(run.no_participations().times) == CLIENTS
    assert private(mechanism="blt").simulated == private(mechanism="blt").plan


@pytest.mark.parametrize("mechanism", ["gaussian", "tree", "banded", "blt"])
def test_the_noise_on_the_mean_is_what_is_said(mechanism: str) -> None:
    run = private(mechanism=mechanism)
    updates = np.array(releases(run, 16))
    said = run.noise_on_mean(16) * 0.5
    assert math.sqrt(float((updates**2).mean())) == pytest.approx(said, rel=0.01)
