"""What a run leaves on disk.

``experiment.toml`` and the vocabulary (at the beginning), ``rounds.csv`` (one row a round, written
as it ends), ``summary.json`` and ``model.safetensors`` (at the end), and
``checkpoint.safetensors`` while the run is not finished; ``canaries.csv`` if it was audited.
A run with secure noise has ``secret.key`` besides while it is not finished. Checkpoint and secret
tell what privacy hides, past noise and who took part: only their owner may read them.
"""

import csv
import io
import json
import os
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from safetensors.torch import load as load_torch
from torch import Tensor

from fedsi.data.vocabulary import VOCABULARY_FILES
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.files import OWNER, cannot_write, sha256_of_file, write_atomically
from fedsi.privacy.participation import Participations
from fedsi.training.metrics import Metrics
from server.rounds import RoundRecord, State

EXPERIMENT, ROUNDS, SUMMARY = "experiment.toml", "rounds.csv", "summary.json"
MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
CANARIES = "canaries.csv"
COHORT_KEY = "secret.key"
"""What decides who takes part in a run with secure noise, while the run is not finished."""
EXPORTED = {"onnx": "model.onnx", "torch-export": "model.pt2"}
"""Where the model is exported to, by format, if no other place is named."""
SCORES = "lengths.json"
"""What the model scored at each sequence length of a study."""
_OF_THE_MODEL = (*EXPORTED.values(), SCORES)
"""Made of a finished run's model later, and void with it."""
_OPTIMIZER, _PRIVACY, _PARTICIPATIONS = "optimizer.", "privacy.", "participations."
_FILES = (EXPERIMENT, *VOCABULARY_FILES, ROUNDS, SUMMARY, MODEL, CHECKPOINT, CANARIES, COHORT_KEY)
_ROUND_TYPES = {f.name: f.type for f in fields(RoundRecord) if f.name != "heldout"}
_METRICS = [field.name for field in fields(Metrics)]
COLUMNS = [*_ROUND_TYPES, *(f"heldout_{name}" for name in _METRICS)]
"""Columns of ``rounds.csv``; the held-out ones are empty in rounds without evaluation."""


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_free(self, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        """Refuse a place that this experiment's run must not be written to.

        Raises:
            UserError: The folder holds a run and neither ``overwrite`` nor ``resume`` is set; or
                the path is a file; or there is nothing to resume, or another experiment's run.
        """
        if overwrite and resume:
            raise UserError("give either --resume or --overwrite, not both")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; name a folder with --out")
        taken = any((self.path / name).exists() for name in _FILES)
        if resume and not (self.path / EXPERIMENT).exists():
            raise UserError(
                f"{self.path} holds no run to resume; name its folder with --out, or leave "
                "--resume out"
            )
        if taken and not overwrite and not resume:
            raise UserError(
                f"{self.path} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or name another folder with --out"
            )
        if resume and self.experiment() != experiment:
            raise UserError(
                f"{self.path} holds a run of another experiment; resume it without naming an "
                "experiment, or name another folder with --out"
            )

    def claim(self, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        """Make the folder ready for a run's rows.

        Raises:
            UserError: As ``check_free``; or the place cannot be written.
        """
        self.check_free(experiment, overwrite=overwrite, resume=resume)
        if resume:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (*_FILES, *_OF_THE_MODEL):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        write_atomically(self.path / EXPERIMENT, experiment.to_toml().encode())
        self._write_rows([])

    def experiment(self) -> Experiment:
        """Read the run's experiment."""
        return Experiment.from_file(self.path / EXPERIMENT)

    def save_vocabulary(self, file_name: str, text: str) -> None:
        """Keep what the model's token ids stand for; ``load_vocabulary`` reads it."""
        write_atomically(self.path / file_name, text.encode("utf-8", "surrogatepass"))

    def vocabulary_sha256(self) -> str:
        """Return the hash of the vocabulary's file."""
        return next(
            sha256_of_file(self.path / name)
            for name in VOCABULARY_FILES
            if (self.path / name).exists()
        )

    def save_secret(self, secret: bytes) -> None:
        """Keep what decides who takes part; only the file's owner can read it."""
        write_atomically(self.path / COHORT_KEY, secret.hex().encode(), OWNER)

    def secret(self, size: int) -> bytes:
        """Read what decides who takes part.

        Args:
            size: How many bytes it has.

        Raises:
            UserError: It is missing or damaged.
        """
        path = self.path / COHORT_KEY
        try:
            secret = bytes.fromhex(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            secret = b""
        if len(secret) != size:
            raise UserError(
                f"{path} is missing or damaged, and without it nobody can draw the cohorts that "
                "the run with privacy.secure_noise began with; put it back, or start again with "
                "--overwrite"
            )
        return secret

    def save_canaries(self, scores: NDArray[np.float64], included: NDArray[np.bool_]) -> None:
        """Write ``canaries.csv``: a row for each canary of an audited run."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("canary", "included", "score"))
        writer.writerows(zip(range(len(scores)), included.tolist(), scores.tolist(), strict=True))
        write_atomically(self.path / CANARIES, text.getvalue().encode())

    def canaries(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Read ``canaries.csv``: the scores, and whether each canary took part.

        Raises:
            UserError: It is missing or damaged.
        """
        path = self.path / CANARIES
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            included = [{"True": True, "False": False}[row["included"]] for row in rows]
            if not rows:
                raise ValueError("it has no rows")
            return np.array([float(row["score"]) for row in rows]), np.array(included)
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(
                f"cannot read {path}: {error}; put back the file that the run wrote, or run again"
            ) from None

    def append(self, record: RoundRecord) -> None:
        """Add a row to ``rounds.csv``.

        Raises:
            UserError: The disk is full; the rows before stay as they were.
        """
        path = self.path / ROUNDS
        try:
            with path.open("r+b") as file:
                end = file.seek(0, io.SEEK_END)
                try:
                    file.write(_csv_lines([record]))
                    file.flush()
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise cannot_write(path, error) from error

    def records(self) -> list[RoundRecord]:
        """Read ``rounds.csv``.

        Raises:
            UserError: It is missing or damaged.
        """
        path = self.path / ROUNDS
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames
                rows = list(reader)
            if columns != COLUMNS:
                raise UserError(
                    f"{path} has the columns of another version of fedsi; start again with "
                    "--overwrite, or name another folder with --out"
                )
            return [_record(row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"cannot read {path}: {error}; start again with --overwrite") from None

    def save_checkpoint(self, state: State, data_sha256: str) -> None:
        """Keep what the next round needs; an older checkpoint is replaced at once.

        The rows of the rounds before are brought to the disk first.
        """
        with (self.path / ROUNDS).open("rb") as file:
            os.fsync(file.fileno())
        arrays = _arrays(state)
        meta = {"round": str(state.round_number), "data_sha256": data_sha256}
        write_atomically(self.path / CHECKPOINT, save(arrays, metadata=meta), OWNER)

    def load_checkpoint(self, fresh: State, data_sha256: str) -> State:
        """Return the state to continue from, and cut rows of later rounds off ``rounds.csv``.

        Args:
            fresh: The state before the first round, returned if there is no checkpoint yet.
            data_sha256: Hash of the corpus, and of the trace if there is one, as they are now.

        Raises:
            UserError: The checkpoint is damaged, or made from another corpus, trace or model; or
                a row before it is missing.
        """
        path = self.path / CHECKPOINT
        state = fresh
        if path.exists():
            state = _read_checkpoint(path, fresh, data_sha256)
        rows = [row for row in self.records() if row.round <= state.round_number]
        if [row.round for row in rows] != list(range(1, state.round_number + 1)):
            raise UserError(
                f"{self.path / ROUNDS} lacks rows of the {state.round_number} rounds that the "
                "checkpoint comes after; put it back, or start again with --overwrite"
            )
        self._write_rows(rows)
        return state

    def finish(self, summary: dict[str, Any], model: bytes) -> None:
        """Write the model and the summary, and forget past noise, who took part and the secret."""
        write_atomically(self.path / MODEL, model)
        text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path / SUMMARY, text.encode())
        self.forget()

    def forget(self) -> None:
        """Remove what a finished run has no use for, and nobody else may see."""
        for name in (CHECKPOINT, COHORT_KEY):
            (self.path / name).unlink(missing_ok=True)

    def summary(self) -> dict[str, Any] | None:
        """Read the summary; None while the run is not finished."""
        try:
            return dict(json.loads((self.path / SUMMARY).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"cannot read {self.path / SUMMARY}: {error}; start again with --overwrite"
            ) from None

    def model(self) -> dict[str, Tensor]:
        """Read the named parameters of a finished run.

        Raises:
            UserError: The file is missing or damaged.
        """
        path = self.path / MODEL
        try:
            return dict(load_torch(path.read_bytes()))
        except (OSError, SafetensorError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"cannot read {path}: {reason}; put back the file that the run wrote, or run again "
                "with fedsi run --overwrite"
            ) from None

    def _write_rows(self, records: list[RoundRecord]) -> None:
        header = (",".join(COLUMNS) + "\r\n").encode()
        write_atomically(self.path / ROUNDS, header + _csv_lines(records))


def _csv_lines(records: list[RoundRecord]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    for record in records:
        heldout = astuple(record.heldout) if record.heldout else [""] * len(_METRICS)
        writer.writerow([*(getattr(record, name) for name in _ROUND_TYPES), *heldout])
    return text.getvalue().encode()


def _record(row: dict[str, str]) -> RoundRecord:
    values = {name: kind(row[name]) for name, kind in _ROUND_TYPES.items()}  # type: ignore
    heldout = {name: row[f"heldout_{name}"] for name in _METRICS}
    evaluated = heldout["loss"] != ""
    metrics = Metrics(**{k: float(v) for k, v in heldout.items()}) if evaluated else None
    return RoundRecord(**values, heldout=metrics)


def _read_checkpoint(path: Path, fresh: State, data_sha256: str) -> State:
    try:
        content = path.read_bytes()
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        meta = header["__metadata__"]
        number = int(meta["round"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UserError(
            f"the checkpoint {path} is damaged ({error}); start again with --overwrite"
        ) from None
    expected = _arrays(fresh)
    same_shape = {k: v.shape for k, v in arrays.items()} == {
        k: v.shape for k, v in expected.items()
    }
    if meta.get("data_sha256") != data_sha256 or not same_shape:
        raise UserError(
            f"the checkpoint {path} was made from another corpus or trace; start again with "
            "--overwrite"
        )
    copies = {name: np.array(value) for name, value in arrays.items()}
    optimizer, privacy = (
        {name: copies[prefix + name] for name in part}
        for prefix, part in ((_OPTIMIZER, fresh.optimizer), (_PRIVACY, fresh.privacy))
    )
    participations = fresh.participations and Participations(
        **{field.name: copies[_PARTICIPATIONS + field.name] for field in fields(Participations)}
    )
    return State(number, copies["parameters"], optimizer, privacy, participations)


def _arrays(state: State) -> dict[str, NDArray[Any]]:
    """Return everything of a state that a checkpoint keeps, by name."""
    participations = vars(state.participations) if state.participations else {}
    return {
        "parameters": state.parameters,
        **{_OPTIMIZER + name: array for name, array in state.optimizer.items()},
        **{_PRIVACY + name: array for name, array in state.privacy.items()},
        **{_PARTICIPATIONS + name: array for name, array in participations.items()},
    }
