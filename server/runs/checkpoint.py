"""The checkpoint: everything that the next round needs, in one file with its own hash."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fedsi.errors import DamagedError, UserError
from fedsi.hashed_arrays import Arrays, from_bytes, to_bytes
from fedsi.privacy.participation import Participations
from server.rounds import ServerState
from server.runs.rounds_file import Seal

CHECKPOINT = "checkpoint.safetensors"

_OPTIMIZER, _PRIVACY, _PARTICIPATIONS = "optimizer.", "privacy.", "participations."
_ALGORITHM, _STATE_ROUNDS = "algorithm.", "state_rounds"


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round, and a seal of the rows up to it."""

    state: ServerState
    seal: Seal


def write_checkpoint(checkpoint: Checkpoint, data_sha256: str) -> bytes:
    """Return a checkpoint as the bytes of a safetensors file.

    Args:
        checkpoint: The state, and its rows.
        data_sha256: Hash of the corpus, and of the trace if there is one.
    """
    meta = {
        "round": str(checkpoint.state.round_number),
        "data_sha256": data_sha256,
        "row": checkpoint.seal.row,
        "rows_sha256": checkpoint.seal.sha256,
    }
    return to_bytes(_arrays(checkpoint.state), meta)


def read_checkpoint(content: bytes, path: Path, fresh: ServerState, data_sha256: str) -> Checkpoint:
    """Return the checkpoint in the bytes of a file.

    Args:
        content: The bytes of the file.
        path: The file's path, for the error.
        fresh: The state before the first round, which has the expected shapes.
        data_sha256: Hash of the current corpus and trace.

    Raises:
        UserError: It is damaged, or made from another corpus, trace or model.
    """
    arrays, meta = _read(content, path)
    found, expected = _forms(arrays), _forms(_arrays(fresh))
    others = {name for name in found.keys() | expected if found.get(name) != expected.get(name)}
    same_data = meta["data_sha256"] == data_sha256
    if same_data and others and all(name.startswith(_OPTIMIZER) for name in others):
        raise UserError(
            f"the checkpoint {path} does not hold what the server optimizer keeps between rounds: "
            "its code has changed; restore the code that the run began with, or start again with "
            "--overwrite"
        )
    if not same_data or others:
        raise UserError(
            f"the checkpoint {path} was made from another corpus or trace; start again with "
            "--overwrite"
        )
    state = _state(int(meta["round"]), arrays, fresh)
    return Checkpoint(state, Seal(meta["row"], meta["rows_sha256"]))


def corpus_sha256_of(content: bytes, path: Path) -> str:
    """Return the hash of the corpus that a checkpoint was made from.

    Args:
        content: The bytes of the file.
        path: The file's path, for the error.

    Raises:
        DamagedError: It is damaged.
    """
    return _read(content, path)[1]["data_sha256"].partition(" ")[0]


def _read(content: bytes, path: Path) -> tuple[Arrays, dict[str, str]]:
    try:
        return from_bytes(content)
    except ValueError as error:
        raise DamagedError(
            f"the checkpoint {path} is damaged ({error}); start again with --overwrite"
        ) from None


def _forms(arrays: Arrays) -> dict[str, tuple[Any, ...]]:
    """Return types and shapes of arrays."""
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def _arrays(state: ServerState) -> Arrays:
    """Return the arrays of a state that a checkpoint keeps, by name."""
    participations = vars(state.participations) if state.participations else {}
    return {
        "parameters": state.parameters,
        **{_OPTIMIZER + name: array for name, array in state.optimizer.items()},
        **{_PRIVACY + name: array for name, array in state.privacy.items()},
        **{_PARTICIPATIONS + name: array for name, array in participations.items()},
        **{_ALGORITHM + name: array for name, array in state.algorithm.items()},
        **({} if state.state_rounds is None else {_STATE_ROUNDS: state.state_rounds}),
    }


def _state(number: int, arrays: Arrays, fresh: ServerState) -> ServerState:
    optimizer, privacy, algorithm = (
        {name: arrays[prefix + name] for name in part}
        for prefix, part in (
            (_OPTIMIZER, fresh.optimizer),
            (_PRIVACY, fresh.privacy),
            (_ALGORITHM, fresh.algorithm),
        )
    )
    participations = fresh.participations and Participations(
        **{field.name: arrays[_PARTICIPATIONS + field.name] for field in fields(Participations)}
    )
    return ServerState(
        number,
        arrays["parameters"],
        optimizer,
        privacy,
        participations,
        algorithm,
        arrays.get(_STATE_ROUNDS),
    )
