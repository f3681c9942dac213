"""Messages between the server and the nodes: one message per node and round, one reply.

A message is a frozen dataclass of NumPy arrays and scalars. Flower's records are made from the two
dictionaries of ``to_parts``; ``from_parts`` validates received ones. Nothing is ever pickled.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ARRAYS, VALUES = "arrays", "values"
"""Names of the two records of a message."""
ARRAY_FORMAT = "numpy.ndarray"
"""Flower's name for the format of ``array_bytes``."""


class Outcome(IntEnum):
    """The outcome of a client in a round: its contribution was aggregated, or why it was not."""

    AGGREGATED = 0
    NOT_FINITE = 1
    """Its update was not finite."""
    OUT_OF_RANGE = 2
    """Its update was too large for the exact sum."""
    ABOVE_BOUND = 3
    """The norm of its update was above ``server.norm_bound``, which rejects such updates."""
    RAISED = 4
    """Its training raised an exception."""
    WRONG_SHAPE = 5
    """Its update, or a vector that it returned, had another size than the model."""
    TOO_SLOW = 6
    """Its node did not reply in time."""
    PROCESS_ENDED = 7
    """The process that trained it, or its SuperNode, ended."""
    NODE_FAILED = 8
    """Its node failed otherwise, sent an invalid reply, or no node hosted it."""


REJECTED = frozenset({Outcome.NOT_FINITE, Outcome.OUT_OF_RANGE, Outcome.ABOVE_BOUND})
"""Outcomes of clients that were trained and whose update was not aggregated."""
LOST = frozenset({Outcome.TOO_SLOW, Outcome.PROCESS_ENDED, Outcome.NODE_FAILED})
"""Outcomes of clients without a valid reply, as the server sees them; no node sends them."""
FAILED = LOST | {Outcome.RAISED, Outcome.WRONG_SHAPE}
"""Outcomes of clients that were not trained to their end."""

REPLY_MISSING, NODE_ENDED, APP_CRASHED = 4, 5, 8
"""Flower's codes of an error instead of a reply: there was none in time, the node ended, or the
process that it had started for the message did."""


TRAINING_COLUMNS = (
    "outcome",
    "weight",
    "examples",
    "tokens",
    "loss",
    "norm",
    "clipped",
    "steps",
    "clipped_steps",
)
"""Columns of the per-client rows that training returns. ``norm`` is the norm of the update before
clipping and ``clipped`` whether it was clipped; both are 0 in a run without a bound on norms.
``clipped_steps`` are the local steps whose gradient was clipped."""


AVX_512 = "AVX-512"
"""Instructions that fedsi's own matrix products need, as a sentence names them."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<|][bfiu][1248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n",
    re.DOTALL,
)
"""The header of the ``.npy`` file of a numeric array."""

_Message = TypeVar("_Message")


_CLIENT = re.compile(r"\(client (\d{1,18})\)")


class MessageError(Exception):
    """A message that does not match the schema."""


def at_client(reason: str, client: int | None) -> str:
    """Return a node's reason for failing, with the client that it failed at."""
    return reason if client is None else f"{reason} (client {client})"


def client_of(reason: str) -> int | None:
    """Return the client that a node's error names, or None."""
    named = _CLIENT.findall(reason)
    return int(named[-1]) if named else None


@dataclass(frozen=True)
class Describe:
    """Request for the description of a node's population."""

    experiment: str
    """TOML. Unless the node was started with a population, it prepares the corpus named there."""


@dataclass(frozen=True)
class Described:
    """Reply: the population, and the shard of it that the node hosts."""

    description: str
    """The scalars of ``fedsi.data.population.Description`` as JSON."""
    shard: int = 0
    shards: int = 1
    """The node hosts every client whose index is ``shard`` modulo ``shards``."""
    lacking: str = ""
    """What the node's processor lacks to follow ``client.products``: ``AVX_512`` or nothing."""


@dataclass(frozen=True)
class TakeInventory:
    """Request for the inventory of the user's model that the node has built."""

    experiment: str


@dataclass(frozen=True)
class TakenInventory:
    """Reply: ``fedsi.models.inventory.Inventory`` as JSON."""

    inventory: str


@dataclass(frozen=True)
class FetchVocabulary:
    """Request for the vocabulary of a node's population."""

    experiment: str


@dataclass(frozen=True)
class FetchedVocabulary:
    """Reply: the vocabulary's file."""

    file_name: str
    content: str
    """The file's text as a JSON string, which may contain characters that are not valid text."""


@dataclass(frozen=True)
class Resolve:
    """Request to look up clients by their ids in the corpus."""

    experiment: str
    names: str
    """A list of ids as JSON."""


@dataclass(frozen=True)
class Resolved:
    """Reply: the places of these clients in the population."""

    clients: NDArray[np.int64]
    """Indices, -1 for unknown ids: ``[names]``."""


@dataclass(frozen=True)
class Estimate:
    """Request to estimate the work of some clients."""

    experiment: str
    clients: NDArray[np.int64]
    """Indices in the population, ``[clients]``."""


@dataclass(frozen=True)
class Estimated:
    """Reply: the work by which nodes are balanced."""

    work: NDArray[np.int64]
    """Approximate number of target tokens of a pass over each client, ``[clients]``."""


@dataclass(frozen=True)
class Train:
    """Request to train a block of a round's cohort from the global parameters."""

    experiment: str
    round_number: int
    parameters: NDArray[np.float32]
    """``[parameters]``."""
    clients: NDArray[np.int64]
    """Indices in the population, ``[clients]``."""
    clip_norm: float
    """Largest L2 norm of a client's update; infinite without clipping."""
    sent: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """The vectors that the algorithm sends, one after the other: ``[vectors * parameters]``."""
    states: str = ""
    """Folder of the vectors that clients keep (``fedsi.client_states``); empty if they keep
    none."""
    state_rounds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The round in which each client's vectors were written, 0 for none: ``[clients]``, or ``[0]``
    if they keep none."""
    mask_key: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Key of the round's masks as 4 words; empty without secure aggregation."""
    participants: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The clients of the masked round, those that drop out included: ``[participants]``."""
    attempt: int = 0
    """Earlier attempts of the same round, which were dropped."""


@dataclass(frozen=True)
class Trained:
    """Reply: the exact sum of the block's updates, and each client's row.

    With secure aggregation all sums are masked, and a row has nothing but the outcome.
    """

    sums: NDArray[np.int64]
    """Fixed-point sum of weighted updates, ``[parameters]``."""
    rows: NDArray[np.float64]
    """``[clients, columns of TRAINING_COLUMNS]``, in the order requested."""
    returned: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Fixed-point sums of the weighted vectors that the algorithm returns, one after the other:
    ``[vectors * parameters]``."""
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Sums of what the rows would tell, ``[COUNTS]`` as in
    ``fedsi.sums.totals``; empty without secure aggregation."""
    updates: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """Each client's update, zeros unless it is aggregated: ``[clients * parameters]``; empty, and
    the sums are not, unless the algorithm aggregates updates in another way."""


@dataclass(frozen=True)
class Reveal:
    """Request for shares of secrets, to remove the masks of a round.

    Of each client that was aggregated it is the own seed, and of others the private key.
    """

    experiment: str
    mask_key: NDArray[np.int64]
    participants: NDArray[np.int64]
    survivors: NDArray[np.int64]
    """The clients that were aggregated, ascending."""
    clients: NDArray[np.int64]
    """The survivors whose shares are requested, ``[clients]``."""


@dataclass(frozen=True)
class Revealed:
    """Reply: the shares."""

    owners: NDArray[np.int64]
    """The client whose secret it is, ``[shares]``."""
    holders: NDArray[np.int64]
    """The client that held the share, ``[shares]``."""
    shares: NDArray[np.int64]
    """``[shares * words of a share]``."""


@dataclass(frozen=True)
class TrainPooled:
    """Request to train one learner on the pooled examples of a round's cohort."""

    experiment: str
    round_number: int
    parameters: NDArray[np.float32]
    """``[parameters]``."""
    memory: NDArray[np.float32]
    """Memory of the learner's optimizer."""
    clients: NDArray[np.int64]
    """Indices in the population, ``[clients]``."""


@dataclass(frozen=True)
class TrainedPooled:
    """Reply: the learner after the round, and each client's row."""

    parameters: NDArray[np.float32]
    """``[parameters]``."""
    memory: NDArray[np.float32]
    rows: NDArray[np.float64]
    """``[clients, columns of TRAINING_COLUMNS]``, in the order requested."""


@dataclass(frozen=True)
class Evaluate:
    """Request to evaluate the global parameters on some clients."""

    experiment: str
    parameters: NDArray[np.float32]
    clients: NDArray[np.int64]


@dataclass(frozen=True)
class Personalise:
    """Request to fine-tune the global parameters on some clients, and to evaluate the results."""

    experiment: str
    parameters: NDArray[np.float32]
    clients: NDArray[np.int64]


@dataclass(frozen=True)
class Evaluated:
    """Reply: each client's counts."""

    rows: NDArray[np.float64]
    """``[clients, columns of the task]``, in the order requested; all NaN for a client that could
    not be evaluated. In reply to ``Personalise`` the columns before and then those after it."""


def evaluated(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which clients of the rows of ``Evaluated`` could be evaluated: ``[clients]``."""
    return np.asarray((~np.isnan(rows)).any(axis=1))


def split(names: Sequence[str], joined: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return views of vectors that stand one after the other, by name.

    Args:
        names: Names of the vectors, in their order.
        joined: ``[vectors * parameters]``.
    """
    return dict(zip(names, np.split(joined, len(names)), strict=True)) if names else {}


_TYPES: dict[Any, tuple[np.dtype[Any], int] | type] = {
    NDArray[np.float32]: (np.dtype(np.float32), 1),
    NDArray[np.int64]: (np.dtype(np.int64), 1),
    NDArray[np.float64]: (np.dtype(np.float64), 2),
    float: float,
    int: int,
    str: str,
}
"""The requirement of each field type: (dtype, axes) of an array, or a scalar's type."""


def to_parts(message: Any) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Split a message into its arrays and its scalars."""
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    scalars = {name: value for name, value in values.items() if name not in arrays}
    return arrays, scalars


def array_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a ``.npy`` file, the format that Flower transports.

    The array is copied once; ``numpy.save`` into memory, as in Flower, takes several times as long.
    """
    head = BytesIO()
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(array))
    return b"".join((head.getvalue(), np.ascontiguousarray(array).data))


def array_of_bytes(data: bytes) -> NDArray[Any]:
    """Return a read-only array over the bytes of a ``.npy`` file, without copying.

    The header is matched by a pattern, not parsed as Python as in NumPy, so invalid data always
    raises the same error.

    Raises:
        ValueError: The bytes are not such a file, or not numbers in C order.
    """
    head = _HEADER.match(data)
    if head is None or int.from_bytes(data[8:10], "little") != head.end() - 10:
        raise ValueError("not an array of numbers in the order of C")
    shape = [int(size) for size in head["shape"].split(b",") if size.strip()]
    return np.frombuffer(data, head["dtype"].decode(), offset=head.end()).reshape(shape)


def from_parts(
    kind: type[_Message], arrays: Mapping[str, NDArray[Any]], scalars: Mapping[str, Any]
) -> _Message:
    """Build a message from its parts and validate it.

    Raises:
        MessageError: A part is missing, unknown, or of the wrong type, dtype or number of axes.
    """
    parts = {**arrays, **scalars}
    expected = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if parts.keys() != expected.keys():
        raise MessageError(
            f"{kind.__name__} has the parts {sorted(expected)}, received {sorted(parts)}"
        )
    for name, value in parts.items():
        rule = _TYPES[expected[name]]
        fits = (
            isinstance(value, np.ndarray) and (value.dtype, value.ndim) == rule
            if isinstance(rule, tuple)
            else isinstance(value, rule)
        )
        if not fits:
            raise MessageError(f"part {name} of {kind.__name__} is not {expected[name]}")
    return kind(**parts)
