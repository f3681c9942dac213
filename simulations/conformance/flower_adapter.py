"""Flower's strategies with fixed clipping (``flwr.serverapp.strategy``) under the kit.

The adapter hands a strategy the replies that clients would send, and subtracts the global arrays
from what it returns. Client-side clipping runs Flower's own modifier of the client app.
"""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import absl.logging
import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from simulations.conformance.adapter import (
    CannotBeAskedError,
    Floats,
    Ids,
    RefusedError,
    Releases,
    Round,
    Sampler,
)
from simulations.engines.flower_private import identify

ARRAYS = "arrays"
POPULATION = 1000
SEED = 7


class Flower:
    """A strategy with fixed clipping around FedAvg, as in Flower's examples.

    Args:
        client_side: Whether clients clip, instead of the server.
    """

    def __init__(self, *, client_side: bool) -> None:
        self._client_side = client_side
        self.name = f"Flower, fixed clipping by the {'clients' if client_side else 'server'}"

    def release(self, asked: Round, trials: int) -> Floats:
        """Return the strategy's new global arrays; the old ones are zero."""
        identify(run_id=1, node_id=1)
        with _quiet():
            return np.array([self._release(asked) for _ in range(trials)])

    def _release(self, asked: Round) -> Floats:
        kind: Any = (
            DifferentialPrivacyClientSideFixedClipping
            if self._client_side
            else DifferentialPrivacyServerSideFixedClipping
        )
        strategy = kind(FedAvg(), asked.noise_multiplier, asked.clip_norm, asked.cohort_size)
        start = _record(np.zeros(asked.updates.shape[1]))
        strategy.current_arrays = start
        replies = [
            self._reply(node, update, int(examples), asked.clip_norm)
            for node, (update, examples) in enumerate(
                zip(asked.updates, asked.examples, strict=True), start=1
            )
        ]
        arrays, _ = strategy.aggregate_train(1, replies)
        if arrays is None:
            raise RefusedError("the strategy returns no arrays")
        return np.asarray(arrays.to_numpy_ndarrays()[0], np.float64)

    def _reply(self, node: int, update: Floats, examples: int, clip_norm: float) -> Message:
        def trained(message: Message, _: Context) -> Message:
            metrics = MetricRecord({"num-examples": examples})
            return Message(RecordDict({ARRAYS: _record(update), "m": metrics}), reply_to=message)

        config = ConfigRecord({"clipping_norm": clip_norm})
        content = RecordDict({ARRAYS: _record(np.zeros_like(update)), "config": config})
        message = Message(content, dst_node_id=node, message_type=MessageType.TRAIN)
        context = Context(1, node, {}, RecordDict(), {})
        if self._client_side:
            return fixedclipping_mod(message, context, trained)
        return trained(message, context)

    def tree_noise(self, rounds: int, size: int) -> Floats:
        """Refuse the question."""
        raise CannotBeAskedError("Flower has no tree aggregation")

    def cohorts(self, sampler: Sampler) -> list[Ids]:
        """Return the nodes that FedAvg samples."""
        if sampler.kind == "shuffled":
            raise CannotBeAskedError("Flower has no sampler that keeps participations apart")
        grid: Any = _Nodes(sampler.population)
        with _quiet():
            draws = [sample_nodes(grid, 2, sampler.cohort_size)[0] for _ in range(sampler.rounds)]
        return [np.array(one) for one in draws]

    def counts(self, unclipped: int, cohort_size: int, trials: int) -> Floats:
        """Refuse the question."""
        raise CannotBeAskedError("fixed clipping releases no count")

    def epsilon(self, asked: Releases) -> float:
        """Return epsilon of Flower's accountant."""
        everyone = asked.sampling_rate == 1
        config = PrivacyConfig(
            target_delta=asked.delta,
            population_size=POPULATION,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=(
                SamplingMethod.NO_AMPLIFICATION if everyone else SamplingMethod.POISSON
            ),
        )
        accountant = RdpAccountant(config)
        cohort = round(POPULATION * asked.sampling_rate)
        event = GaussianPrivacyEvent(asked.noise_multiplier, cohort, POPULATION)
        with _quiet():
            accountant.compose(event, asked.rounds)
            return float(accountant.get_epsilon(asked.delta))


class _Nodes:
    """What ``sample_nodes`` needs of a grid."""

    def __init__(self, population: int) -> None:
        self._population = population

    def get_node_ids(self) -> range:
        return range(self._population)


def _record(values: Floats) -> ArrayRecord:
    return ArrayRecord({"flat": Array(values.astype(np.float32))})


@contextmanager
def _quiet() -> Iterator[None]:
    """Within this context Flower and absl log nothing, NumPy does not warn, and draws are fixed.

    Flower draws from the global generators of Python and of NumPy.
    """
    logger = logging.getLogger("flwr")
    disabled, verbosity = logger.disabled, absl.logging.get_verbosity()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    logger.disabled = True
    absl.logging.set_verbosity(absl.logging.ERROR)
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        logger.disabled = disabled
        absl.logging.set_verbosity(verbosity)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def server_side() -> Flower:
    """Return the adapter of clipping by the server."""
    return Flower(client_side=False)


def client_side() -> Flower:
    """Return the adapter of clipping by the clients."""
    return Flower(client_side=True)
