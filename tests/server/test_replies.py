"""Nodes that lie: a reply that no honest node sends costs the node's clients, and nothing else."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.app import app
from fedsi import Experiment
from fedsi.data.population import WHOLE, Description
from fedsi.data.prepare import open_population, prepare
from fedsi.messages import (
    ARRAY_FORMAT,
    ARRAYS,
    AVX_512,
    TRAINING_COLUMNS,
    VALUES,
    Described,
    Estimated,
    FetchedVocabulary,
    Outcome,
    Resolved,
    Trained,
    array_bytes,
)
from fedsi.tasks.next_word import COLUMNS
from server.aggregation import Aggregate, evaluate_clients, train_cohort
from server.nodes import (
    NodesError,
    estimate_work,
    fetch_descriptions,
    fetch_vocabulary,
    find_clients,
)
from server.replies import (
    ReplyError,
    _norm_within,
    check_trained,
    checked_clients,
    checked_description,
    checked_vocabulary,
    checked_work,
)
from server.rounds import initial_server_state
from simulations.engines.node import node_context
from simulations.presets import load_preset
from tests.server.fake_grid import FakeGrid, Node, hosted_by

COHORT = np.array([5, 3, 8, 1, 0, 9, 7], dtype=np.int64)
HELDOUT = np.arange(180, 190)
CLIP_NORM = 0.3
HONEST, LIAR = 2, 3
MOST, LEAST = 2**63 - 1, -(2**63)

Arrays = dict[str, Any]
Lie = Callable[[Arrays], Any]
PLAIN = load_preset("smoke").updated({"server.cohort_size": len(COHORT)})
PRIVATE = PLAIN.updated(
    {
        "server.averaging": "uniform",
        "server.sampling": "poisson",
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 1.0,
    }
)


@dataclass
class World:
    """A population, and its clients' honest replies, computed once."""

    population: Path
    description: Description
    parameters: NDArray[np.float32]
    answers: dict[Any, RecordDict] = field(default_factory=dict)

    def honest(self, message: Message) -> Message:
        values = message.content.config_records[VALUES]
        arrays = message.content.array_records[ARRAYS]
        asked = arrays["clients"].data if "clients" in arrays else b""
        key = (message.metadata.message_type, tuple(values.values()), asked)
        if key not in self.answers:
            self.answers[key] = app(message, node_context(HONEST, self.population)).content
        return Message(self.answers[key], reply_to=message)

    def lying(self, lie: Lie) -> Node:
        """Return a node that changes its arrays before it sends them."""

        def node(message: Message) -> Message:
            reply = self.honest(message)
            if not message.metadata.message_type.startswith(("train", "evaluate")):
                return reply
            sent = reply.content.array_records[ARRAYS]
            arrays: Arrays = {name: array.numpy().copy() for name, array in sent.items()}
            lie(arrays)
            return message_of(arrays, reply.content.config_records[VALUES], message)

        return node

    def train(self, experiment: Experiment, *nodes: Node) -> Aggregate:
        clip_norm = CLIP_NORM if experiment is PRIVATE else math.inf
        grid = FakeGrid(dict(zip((HONEST, LIAR), nodes, strict=False)))
        return train_cohort(
            grid, hosted_by(grid.nodes), experiment, self.parameters, COHORT, 1, clip_norm
        )

    def evaluate(self, *nodes: Node) -> NDArray[np.float64]:
        grid = FakeGrid(dict(zip((HONEST, LIAR), nodes, strict=False)))
        return evaluate_clients(
            grid, hosted_by(grid.nodes), PLAIN, self.parameters, HELDOUT, 1, 10_000
        )


def message_of(arrays: Arrays, values: Any, request: Message) -> Message:
    named = {
        name: value
        if isinstance(value, Array)
        else Array(str(value.dtype), value.shape, ARRAY_FORMAT, array_bytes(value))
        for name, value in arrays.items()
    }
    content = RecordDict({ARRAYS: ArrayRecord(named), VALUES: ConfigRecord(values)})
    return Message(content, reply_to=request)


@pytest.fixture(scope="module")
def world(cache: Path) -> World:
    population = prepare(PLAIN.data, cache)
    description = open_population(population).description
    return World(population, description, initial_server_state(PLAIN, description).parameters)


def silent(_message: Message) -> None:
    """Never reply."""


def column(name: str, value: float, clients: slice | int = slice(None)) -> Lie:
    def lie(arrays: Arrays) -> None:
        arrays["rows"][clients, TRAINING_COLUMNS.index(name)] = value

    return lie


def sums(change: Callable[[NDArray[np.int64]], Any]) -> Lie:
    return lambda arrays: arrays.update(sums=change(arrays["sums"]))


def rows(change: Callable[[NDArray[np.float64]], Any]) -> Lie:
    return lambda arrays: arrays.update(rows=change(arrays["rows"]))


def all_failed(arrays: Arrays) -> None:
    """Reply that no client could be trained, but send their sum."""
    arrays["rows"][:] = 0
    arrays["rows"][:, 0] = Outcome.RAISED


ANYWHERE = {
    **{
        f"{name} {value}": column(name, value)
        for name in TRAINING_COLUMNS
        for value in (math.inf, -math.inf, -1.0, -1e300)
    },
    **{
        f"{name} is not a number": column(name, math.nan)
        for name in TRAINING_COLUMNS
        if name != "loss"
    },
    **{f"{name} in parts": column(name, 0.5) for name in ("outcome", "examples", "tokens")},
    "more steps were clipped than taken": column("clipped_steps", 1e5),
    "one client": column("weight", math.nan, 0),
    "outcome 7": column("outcome", 7),
    "examples 1e300": column("examples", 1e300),
    "tokens 1e300": column("tokens", 1e300),
    "weight 0": column("weight", 0),
    "weight 2": column("weight", 2.5),
    "clipped 2": column("clipped", 2),
    "all not a number": rows(lambda x: np.full_like(x, np.nan)),
    "all zeros": rows(np.zeros_like),
    "rows short": rows(lambda x: x[:-1]),
    "rows narrow": rows(lambda x: x[:, :-1]),
    "rows flat": rows(np.ravel),
    "rows of float32": rows(lambda x: x.astype(np.float32)),
    "all failed": all_failed,
    "sums most": sums(lambda x: np.full_like(x, MOST)),
    "sums least": sums(lambda x: np.full_like(x, LEAST)),
    "one sum most": sums(lambda x: np.where(np.arange(len(x)) == 17, MOST, x)),
    "one sum least": sums(lambda x: np.where(np.arange(len(x)) == 17, LEAST, x)),
    "sums short": sums(lambda x: x[:-1]),
    "sums long": sums(lambda x: np.append(x, 0)),
    "sums of float64": sums(lambda x: x.astype(np.float64)),
    "sums of two axes": sums(lambda x: x[None]),
    "no sums": lambda arrays: arrays.pop("sums"),
    "more": lambda arrays: arrays.update(more=np.zeros(1)),
}
del ANYWHERE[f"loss {math.inf}"]  # an honest client's may be
CLIPPED = {
    "sums 2^61": sums(lambda x: np.full_like(x, 2**61)),
    "a norm beyond all clients'": sums(
        lambda x: np.full_like(x, math.ceil(CLIP_NORM * 2**36 * len(COHORT) / math.sqrt(len(x))))
    ),
    "one entry beyond a norm": sums(
        lambda x: np.where(np.arange(len(x)) == 3, int(CLIP_NORM * 2**36) * len(COHORT), x)
    ),
}


@pytest.mark.parametrize("lie", [*ANYWHERE, *CLIPPED])
def test_a_node_that_lies_about_training_loses_its_clients(
    world: World, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    for experiment in (PLAIN, PRIVATE) if lie in ANYWHERE else (PRIVATE,):
        caplog.clear()
        told = {**ANYWHERE, **CLIPPED}[lie]
        found = world.train(experiment, world.honest, world.lying(told))
        expected = world.train(experiment, world.honest, silent)
        assert 0 < found.lost == expected.lost < len(COHORT)
        assert np.array_equal(found.sums, expected.sums)
        assert np.array_equal(found.rows[:, 1:], expected.rows[:, 1:])
        hurt = expected.column("outcome") == Outcome.TOO_SLOW
        assert (found.column("outcome")[hurt] == Outcome.NODE_FAILED).all()
        assert sum(f"node {LIAR}" in line for line in caplog.messages) == 2
        with pytest.raises(NodesError, match="no node could train in round 1"):
            world.train(experiment, world.lying(told))


def evaluation(name: str, value: float) -> Lie:
    def lie(arrays: Arrays) -> None:
        arrays["rows"][0, COLUMNS.index(name)] = value

    return lie


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 0.5, 1e12])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_node_that_lies_about_an_evaluation_is_left_out(
    world: World, name: str, value: float
) -> None:
    expected = world.evaluate(world.honest, silent)
    found = world.evaluate(world.honest, world.lying(evaluation(name, value)))
    believed = "loss" in name and not value < 0
    assert len(found) == (len(HELDOUT) if believed else len(expected))
    if not believed:
        assert np.array_equal(found, expected)


BYTES = st.tuples(st.integers(0, 10**6), st.integers(0, 255))
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e308, math.nan, math.inf, -math.inf])
INTEGERS = st.sampled_from([0, 1, -1, MOST, LEAST, 2**62, -(2**62)]) | st.integers(LEAST, MOST)


@settings(max_examples=60)
@given(
    st.lists(BYTES, max_size=3),
    st.lists(st.tuples(st.integers(0, 10**6), NUMBERS | st.floats()), max_size=3),
    st.lists(st.tuples(st.integers(0, 10**6), INTEGERS), max_size=3),
    st.booleans(),
)
def test_whatever_a_node_says_the_sum_is_possible(
    world: World,
    flips: list[tuple[int, int]],
    cells: list[tuple[int, float]],
    entries: list[tuple[int, int]],
    private: bool,
) -> None:
    def lie(arrays: Arrays) -> None:
        for place, value in cells:
            arrays["rows"].flat[place % arrays["rows"].size] = value
        for place, integer in entries:
            arrays["sums"][place % len(arrays["sums"])] = integer
        for place, byte in flips:
            name = ("rows", "sums")[place % 2]
            array = arrays[name]
            data = bytearray(array.data if isinstance(array, Array) else array_bytes(array))
            data[place % min(len(data), 4096)] = byte
            arrays[name] = Array(str(np.dtype(np.int64)), (1,), ARRAY_FORMAT, bytes(data))

    experiment = PRIVATE if private else PLAIN
    found = world.train(experiment, world.honest, world.lying(lie))
    if found.lost:
        expected = world.train(experiment, world.honest, silent)
        assert (found.lost, found.sums.tobytes()) == (expected.lost, expected.sums.tobytes())
        return
    believed = Trained(found.sums, found.rows)
    clip_norm = CLIP_NORM if private else math.inf
    check_trained(believed, experiment, len(COHORT), len(found.sums), clip_norm)
    assert np.isfinite(found.means()["update"]).all()


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=9), st.integers(-2, 2))
def test_a_norm_is_compared_exactly(entries: list[int], off: int) -> None:
    squares = sum(entry * entry for entry in entries)
    bound = Fraction(math.isqrt(squares) + off)
    assert _norm_within(np.array(entries), bound) == (squares <= bound * bound)


def test_the_largest_honest_sums_are_believed() -> None:
    for experiment, clip_norm, entry in (
        (PLAIN, math.inf, 2**62 // len(COHORT) * len(COHORT)),
        (PRIVATE, 0.5, 2**35 * len(COHORT)),
    ):
        row = np.zeros((len(COHORT), len(TRAINING_COLUMNS)))
        row[:, TRAINING_COLUMNS.index("weight")] = 1
        row[:, TRAINING_COLUMNS.index("examples")] = 1
        for sign in (1, -1):
            trained = Trained(np.array([0, sign * entry]), row)
            check_trained(trained, experiment, len(COHORT), 2, clip_norm)
            beyond = Trained(np.array([1, sign * entry + sign * 2**40]), row)
            with pytest.raises(ReplyError, match="beyond what 7 clients may add"):
                check_trained(beyond, experiment, len(COHORT), 2, clip_norm)


SIZES = ("training_clients", "heldout_clients", "training_examples", "heldout_examples")


def test_descriptions_are_possible(world: World) -> None:
    said = {f.name: getattr(world.description, f.name) for f in fields(world.description)}
    described = checked_description(Described(json.dumps(said), lacking=AVX_512))
    assert described == (world.description, WHOLE, AVX_512)
    with pytest.raises(ReplyError, match="lacks something that no run needs"):
        checked_description(Described(json.dumps(said), lacking="\x1b[2J"))
    lies = {
        **{name: value for name in SIZES for value in (-1, 10**18)},
        "vocabulary_size": 10**9,
        "sequence_length": 0,
        "unigram_loss": math.nan,
    }
    texts = [json.dumps({**said, name: value}) for name, value in lies.items()]
    texts += [json.dumps({**said, "vocabulary_size": size}) for size in (0, -5, 10**15)]
    huge = json.dumps(said).replace('"vocabulary_size": ', '"vocabulary_size": ' + "9" * 5000)
    for text in (*texts, huge, "{}", "[" * 100_000, "", "NaN"):
        with pytest.raises(ReplyError):
            checked_description(Described(text))


def test_vocabularies_are_vocabularies() -> None:
    words = "# words are split at letters\na\n"
    good = FetchedVocabulary("vocabulary.txt", json.dumps(words))
    assert checked_vocabulary(good) == ("vocabulary.txt", words)
    for lie in (
        replace(good, file_name="../../etc/passwd"),
        replace(good, file_name="experiment.toml"),
        replace(good, content="[" * 100_000),
        replace(good, content="7"),
        replace(good, content='"no such header"'),
        FetchedVocabulary("tokenizer.json", json.dumps("[" * 100_000)),
    ):
        with pytest.raises(ReplyError):
            checked_vocabulary(lie)


@given(st.lists(INTEGERS, max_size=5), st.integers(0, 5))
def test_indices_and_work_are_in_range(values: list[int], asked: int) -> None:
    array = np.array(values, np.int64)
    checks: list[tuple[Callable[[], NDArray[np.int64]], range]] = [
        (lambda: checked_clients(Resolved(array), names=asked, population=9), range(-1, 9)),
        (lambda: checked_work(Estimated(array), clients=asked), range(2**40 + 1)),
    ]
    for check, right in checks:
        if len(values) == asked and all(value in right for value in values):
            assert np.array_equal(check(), array)
        else:
            with pytest.raises(ReplyError):
                check()


def test_a_node_that_lies_about_what_it_hosts_is_passed_over(world: World) -> None:
    def says(answer: Any) -> Node:
        values = {f.name: getattr(answer, f.name) for f in fields(answer)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        scalars = {name: value for name, value in values.items() if name not in arrays}
        return lambda message: message_of(arrays, scalars, message)

    clients = np.array([3, 4])

    def grid(lie: Any) -> FakeGrid:
        return FakeGrid({LIAR: says(lie), HONEST: world.honest})

    both = [LIAR, HONEST]
    hosting = hosted_by(both)
    assert list(fetch_descriptions(grid(Described("{}")), both, PLAIN, 1.0)) == [HONEST]
    assert find_clients(
        grid(Resolved(clients + 200)), hosting, PLAIN, 200, ["7", "x"]
    ).tolist() == [
        7,
        -1,
    ]
    honest = estimate_work(FakeGrid({HONEST: world.honest}), [HONEST], PLAIN, clients)
    assert honest is not None
    found = estimate_work(grid(Estimated(-clients)), both, PLAIN, clients)
    assert found is not None
    assert np.array_equal(found, honest)
    name, text = fetch_vocabulary(grid(FetchedVocabulary("x", "y")), both, PLAIN)
    assert (name, text.count("\n")) == ("vocabulary.txt", world.description.vocabulary_size - 3)
