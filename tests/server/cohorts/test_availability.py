import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.seeds import Purpose, generator
from server.cohorts.availability import (
    DAY_SECONDS,
    Diurnal,
    Ids,
    Listed,
    Trace,
    available_in,
    read_trace,
)
from server.cohorts.sampling import uniform_cohort

CLIENTS = 6
ROUNDS = 10_000


def diurnal(round_seconds: float, number: int, population: int = CLIENTS, **more: Any) -> Diurnal:
    devices = {
        "availability": "diurnal",
        "round_seconds": round_seconds,
        "lowest_availability": 0.1,
        "highest_availability": 0.7,
        **more,
    }
    return Diurnal(Experiment(devices=devices), population, number, 0)


def test_a_daily_rhythm_is_a_cosine_with_a_phase_of_each_client() -> None:
    everyone = np.arange(CLIENTS)
    # Eight rounds a day: the mean over a day is the middle, and half a day away is its mirror.
    day = np.stack([diurnal(DAY_SECONDS / 8, r).probabilities(everyone) for r in range(1, 9)])
    assert day.mean(0) == pytest.approx(0.4)
    assert day[:4] + day[4:] == pytest.approx(0.8)
    # The squares of a cosine have the mean 1/2 whatever the phase.
    assert ((day - 0.4) ** 2).mean(0) == pytest.approx(0.3**2 / 2)
    assert day.min() > 0.1
    assert day.max() < 0.7
    assert np.ptp(day[0]) > 0.2
    tomorrow = diurnal(DAY_SECONDS / 8, 9).probabilities(everyone)
    assert tomorrow == pytest.approx(day[0])


def test_phases_are_spread_over_the_day_and_a_matter_of_the_client_alone() -> None:
    few = diurnal(60, 1, population=10).probabilities(np.arange(10))
    many = diurnal(60, 1, population=5000).probabilities(np.arange(5000))
    assert np.array_equal(few, many[:10])
    # With phases uniform over the day, the cosine is below x with probability 1 - acos(x) / pi.
    cosine = np.sort((many - 0.4) / 0.3)
    expected = 1 - np.arccos(cosine) / np.pi
    distance = np.abs(expected - np.arange(5000) / 5000).max()
    assert distance < 1.95 / math.sqrt(5000)  # Kolmogorov-Smirnov at 0.001


def test_clients_are_available_as_often_as_the_formula_says() -> None:
    everyone = np.arange(CLIENTS)
    seen = np.zeros(CLIENTS)
    # A round each day, at the same time of day.
    for number in range(1, ROUNDS + 1):
        seen[diurnal(DAY_SECONDS, number).keep(everyone)] += 1
    chance = diurnal(DAY_SECONDS, 1).probabilities(everyone)
    sigma = np.sqrt(ROUNDS * chance * (1 - chance))
    assert (np.abs(seen - ROUNDS * chance) < 4.5 * sigma).all()
    assert np.ptp(chance) * ROUNDS > 20 * sigma.max()


def test_rejection_sampling_is_a_uniform_choice_of_the_available() -> None:
    chance = diurnal(DAY_SECONDS, 1).probabilities(np.arange(CLIENTS))
    size = 2
    expected = np.zeros(CLIENTS)
    # The slow reference: every set of available clients, and a uniform choice from it.
    for there in product((False, True), repeat=CLIENTS):
        likely = np.prod(np.where(there, chance, 1 - chance))
        expected += likely * np.array(there) * min(1, size / max(1, sum(there)))
    seen = np.zeros(CLIENTS)
    for number in range(1, ROUNDS + 1):
        seen[uniform_cohort(0, number, diurnal(DAY_SECONDS, number), size)] += 1
    sigma = np.sqrt(ROUNDS * expected * (1 - expected))
    assert (np.abs(seen - ROUNDS * expected) < 4.5 * sigma).all()


def test_a_cohort_is_full_whenever_it_can_be() -> None:
    for number, size in product(range(1, 20), (1, 30, 1000)):
        available = diurnal(3600, number, population=10**5, highest_availability=0.1)
        assert len(uniform_cohort(0, number, available, size)) == size
    # All that are there, if they are fewer.
    available = diurnal(60, 1)
    there = available.sample(generator(0, Purpose.COHORT, 1), CLIENTS)
    assert 0 < len(there) < CLIENTS


times = st.integers(0, 30)
intervals = st.lists(
    st.tuples(st.integers(0, 5), times, st.integers(1, 9)).map(lambda i: (i[0], i[1], i[1] + i[2])),
    min_size=1,
    max_size=12,
)


@given(intervals, st.integers(0, 200))
def test_a_trace_says_who_is_there(rows: list[tuple[int, int, int]], second: int) -> None:
    clients, starts, ends = (np.array(column) for column in zip(*rows, strict=True))
    period = int(ends.max())
    trace = Trace(clients, starts.astype(float), ends.astype(float), period)
    now = second
    while now >= period:
        now -= period
    expected = sorted({client for client, start, end in rows if now in range(start, end)})
    assert trace.at(second).tolist() == expected
    experiment = Experiment(devices={"round_seconds": 0.5})
    available = available_in(experiment, 6, trace, 2 * second + 1, 0)
    assert isinstance(available, Listed)
    assert available.clients.tolist() == expected
    assert available.keep(np.array([5, 0, 3])).tolist() == [k for k in (5, 0, 3) if k in expected]
    drawn = available.sample(generator(0, Purpose.COHORT, 1), 2)
    assert len(set(drawn.tolist())) == min(2, len(expected))
    assert set(drawn.tolist()) <= set(expected)


def find(names: Sequence[str]) -> Ids:
    """Know the clients a, b, c and, held out, d."""
    return np.array(["abcd".find(name) if len(name) == 1 else -1 for name in names])


def written(path: Path, *lines: str, header: str = "client,start,end") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_trace_is_read_from_a_file(tmp_path: Path) -> None:
    lines = ["b,0,10", "unknown,0,90", "a,2.5,1e1", "d,0,3", "b,20,30"]
    trace = read_trace(written(tmp_path / "t.csv", *lines), find, 3)
    assert trace.clients.tolist() == [1, 0, 1]
    assert trace.starts.tolist() == [0, 2.5, 20]
    assert trace.ends.tolist() == [10, 10, 30]
    # The recording lasts as long as anybody in it.
    assert trace.period == 90


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_trace_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("client,start,end\r\na,2,10\r\n", encoding=encoding)
    assert read_trace(path, find, 3).clients.tolist() == [0]


def test_blank_lines_further_columns_and_their_order_do_not_matter(tmp_path: Path) -> None:
    plain = written(tmp_path / "t.csv", "a,0,1", "b,2,10")
    blank = written(tmp_path / "u.csv", "", "a,0,1", "b,2,10", "", "  ")
    further = written(
        tmp_path / "v.csv", "0,a,1,wifi", "2,b,10,", header="start, client,end,network"
    )
    traces = [read_trace(path, find, 3) for path in (plain, blank, further)]
    assert len({trace.sha256() for trace in traces}) == 1


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "has no line after its header"),
        (["a,0,1", "a,3,2"], r"line 3 of the trace .* 0 <= start < end, not 'a,3,2'"),
        (["a,3,3"], "line 2 .* not 'a,3,3'"),
        (["a,-1,3"], "line 2"),
        (["a,0,inf"], "line 2"),
        (["a,nan,3"], "line 2"),
        (["a,0,nan"], "line 2"),
        (["a,0"], "line 2"),
        (["a,0,1,2"], "line 2"),
        (["a,0,soon"], "line 2"),
        (["d,0,1", "e,0,1"], "names no training client of the corpus"),
    ],
)
def test_a_bad_trace_is_refused(tmp_path: Path, lines: list[str], expected: str) -> None:
    path = written(tmp_path / "t.csv", *lines)
    with pytest.raises(UserError, match=expected) as error:
        read_trace(path, find, 3)
    assert str(path) in str(error.value)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the trace .*none.csv: No such file"):
        read_trace(tmp_path / "none.csv", find, 3)
    (tmp_path / "empty.csv").write_text("")
    for path in (tmp_path / "empty.csv", written(tmp_path / "h.csv", header="user,from,to")):
        with pytest.raises(UserError, match=r"must begin with the line client,start,end; further"):
            read_trace(path, find, 3)
    (tmp_path / "b.csv").write_bytes(b"client,start,end\n\xff,0,1\n")
    with pytest.raises(UserError, match="is not a CSV file in UTF-8"):
        read_trace(tmp_path / "b.csv", find, 3)
