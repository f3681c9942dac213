"""The folder of a run.

It holds ``experiment.toml`` and the vocabulary, written at the beginning; ``rounds.csv``, with a
row for the untrained model and one per round; ``summary.json`` and ``model.safetensors``, written
at the end; ``best.safetensors`` if an earlier round had a lower held-out loss;
``checkpoint.safetensors``, which a private run has only until it is finished; and ``canaries.csv``
if it was audited.
``checksums.json`` has a hash of each complete file; the checkpoint has its own, and one of the rows
before it. ``provenance.json`` lists what the run's bits depend on. A run with secure noise also has
``secret.key`` until it is finished. Checkpoint and secret reveal what privacy hides, past noise and
who took part, so only their owner may read them.
"""

import json
import shutil
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_torch
from torch import Tensor

from fedsi.checksums import CHECKSUMS, Checksums
from fedsi.data.vocabulary import VOCABULARY_FILES
from fedsi.errors import DamagedError, UserError
from fedsi.experiment import Experiment
from fedsi.files import EVERYBODY, OWNER, cannot_write, sha256_of_file, write_atomically
from fedsi.tasks.table import task_of
from server.client_state_disk import FOLDER as CLIENTS
from server.cohorts.canaries import canaries_csv, read_canaries_csv
from server.round_record import RoundRecord
from server.rounds import ServerState
from server.runs.checkpoint import (
    CHECKPOINT,
    Checkpoint,
    corpus_sha256_of,
    read_checkpoint,
    write_checkpoint,
)
from server.runs.extension import (
    check_extension,
    extends,
    first_difference,
    keeps_checkpoint,
)
from server.runs.foreign import foreign_file, unknown_keys
from server.runs.killed import unlisted_experiment
from server.runs.lock import held
from server.runs.provenance import PROVENANCE
from server.runs.rounds_file import ROUNDS, RoundsFile, other_columns, parse_rows
from server.runs.rounds_follower import RoundsFollower
from server.runs.summary import Summary

EXPERIMENT, SUMMARY = "experiment.toml", "summary.json"
MODEL, BEST, CANARIES = "model.safetensors", "best.safetensors", "canaries.csv"
COHORT_KEY = "secret.key"
"""The secret that decides who takes part in a run with secure noise, until the run is finished."""
EXPORTED = {"onnx": "model.onnx", "torch-export": "model.pt2"}
"""Default file of the exported model, by format."""
MEASURED = "heldout.json"
"""Counts of a trial's model on each held-out client."""
NGRAMS, AUDIT = "ngrams.json", "audit.json"
"""Counts of n-gram models on the run's held-out clients, and the attack of an audit."""
_OF_THE_MODEL = (*EXPORTED.values(), MEASURED, NGRAMS, AUDIT)
"""Files made later from a finished run's model, and invalid without it."""
_FILES = (
    EXPERIMENT, *VOCABULARY_FILES, ROUNDS, SUMMARY, MODEL, BEST, CHECKPOINT, CANARIES, COHORT_KEY,
    PROVENANCE, CHECKSUMS,
)  # fmt: skip
_LATER = (SUMMARY, MODEL, CHECKPOINT)
"""Files that never exist before ``checksums.json``."""
_MEND = "put back the file that the run wrote, or run again with fedsi run --overwrite"


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rounds = RoundsFile(path, self._metrics)

    def held(self) -> AbstractContextManager[None]:
        """Lock the folder, so that no other process runs in it."""
        return held(self.path)

    def check_free(self, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        """Refuse a folder that this experiment's run must not be written to.

        Raises:
            UserError: The folder holds a run and neither ``overwrite`` nor ``resume`` is set; or
                the path
                is a file; or the folder is damaged, or holds a run of another experiment.
        """
        if overwrite and resume:
            raise UserError("give either --resume or --overwrite, not both")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; name a folder with --out")
        taken = any((self.path / name).exists() for name in _FILES)
        if not taken or overwrite:
            return
        if not resume:
            raise UserError(
                f"{self.path} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or name another folder with --out"
            )
        before = self.experiment()
        if extends(before, experiment):
            check_extension(self.path, before, experiment, self.records())
            self._check_kept()
        elif not experiment.continues(before):
            other = first_difference(before, experiment)
            raise UserError(
                f"{self.path} holds a run of another experiment ({other}); "
                "resume it without naming an experiment, or name another folder with --out"
            )

    def claim(self, experiment: Experiment, *, overwrite: bool, resume: bool) -> None:
        """Prepare the folder for a run's rows.

        A run that was killed before it began, or that does not exist yet, starts from the
        beginning.

        Raises:
            UserError: Same as ``check_free``; or the folder cannot be written.
        """
        self.check_free(experiment, overwrite=overwrite, resume=resume)
        if resume and self._checksums():
            self._extend(experiment)
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in (*_FILES, *_OF_THE_MODEL):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / CLIENTS, ignore_errors=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        toml = experiment.to_toml().encode()
        write_atomically(self.path / EXPERIMENT, toml)
        self._rounds.replace([])
        self._list({EXPERIMENT: sha256(toml).hexdigest()})

    def _check_kept(self) -> None:
        """Refuse to continue a finished run without a checkpoint."""
        if self.summary() is not None and not (self.path / CHECKPOINT).exists():
            raise UserError(
                f"{self.path / CHECKPOINT} is missing, without which a finished run cannot be "
                "continued; restore it, or start again with --overwrite"
            )

    def _extend(self, experiment: Experiment) -> None:
        """Turn a finished run into an unfinished one that ends later.

        If the process is killed meanwhile, the run is still finished or can be continued.
        """
        sums = self._checksums()
        if not sums or not extends(self.experiment(), experiment):
            return
        for name in (SUMMARY, MODEL, ROUNDS):
            sums = sums.without(name)
        sums.write(self.path)
        for name in (SUMMARY, MODEL, *_OF_THE_MODEL):
            (self.path / name).unlink(missing_ok=True)
        self.save_experiment(experiment)

    def experiment(self) -> Experiment:
        """Read the run's experiment.

        Raises:
            UserError: It is missing or damaged.
        """
        path, sums = self.path / EXPERIMENT, self._checksums()
        if not sums or EXPERIMENT not in sums.whole:
            return unlisted_experiment(path)
        text = sums.read_file(path, _MEND).decode()
        try:
            return Experiment.from_toml(text, source=str(path))
        except UserError:
            unknown = unknown_keys(text)
            if not unknown:
                raise
            why = f"it has the key {unknown[0]}, which is not known here"
            raise foreign_file(path, why, self.path / SUMMARY) from None

    def save_experiment(self, experiment: Experiment) -> None:
        """Replace the run's experiment with one of the same bits."""
        self._keep(EXPERIMENT, experiment.to_toml().encode())

    def corpus_sha256(self) -> str | None:
        """Return the hash of the corpus that the run was trained on; None before a checkpoint.

        Raises:
            DamagedError: The summary or the checkpoint is damaged.
        """
        if summary := self.summary():
            return summary.corpus_sha256
        path = self.path / CHECKPOINT
        return corpus_sha256_of(path.read_bytes(), path) if path.exists() else None

    def save_vocabulary(self, file_name: str, text: str) -> None:
        """Save the vocabulary of the model's token ids, which ``load_vocabulary`` reads."""
        content = text.encode("utf-8", "surrogatepass")
        self._keep(file_name, content)

    def check_vocabulary(self) -> None:
        """Refuse a vocabulary that is not the one that the run wrote.

        Raises:
            DamagedError: It is damaged or missing.
        """
        sums = self._checksums() or Checksums()
        for name in VOCABULARY_FILES:
            if name in sums.whole or (self.path / name).exists():
                sums.read_file(self.path / name, _MEND)

    def vocabulary_sha256(self) -> str:
        """Return the hash of the vocabulary's file."""
        return next(
            sha256_of_file(self.path / name)
            for name in VOCABULARY_FILES
            if (self.path / name).exists()
        )

    def save_provenance(self, facts: dict[str, Any]) -> None:
        """Save the facts that the run's bits depend on."""
        content = (json.dumps(facts, indent=1) + "\n").encode()
        self._keep(PROVENANCE, content)

    def provenance(self) -> dict[str, Any] | None:
        """Read the facts that the run's bits depend on; None for a run that has not begun.

        Raises:
            DamagedError: The file is damaged.
        """
        sums = self._checksums()
        if not sums or PROVENANCE not in sums.whole:
            return None
        return dict(json.loads(sums.read_file(self.path / PROVENANCE, _MEND)))

    def save_secret(self, secret: bytes) -> None:
        """Save the secret that decides who takes part; only the file's owner can read it."""
        content = secret.hex().encode()
        self._keep(COHORT_KEY, content, OWNER)

    def secret(self) -> bytes:
        """Read the secret that decides who takes part.

        Raises:
            DamagedError: It is missing or damaged.
        """
        path = self.path / COHORT_KEY
        try:
            return bytes.fromhex((self._checksums() or Checksums()).read_file(path, "").decode())
        except DamagedError:
            raise DamagedError(
                f"{path} is missing or damaged, and without it nobody can draw the cohorts that "
                "the run with privacy.secure_noise began with; put it back, or start again with "
                "--overwrite"
            ) from None

    def save_canaries(
        self,
        scores: NDArray[np.float64],
        distances: NDArray[np.float64],
        included: NDArray[np.bool_],
    ) -> None:
        """Write ``canaries.csv``, with one row per canary of an audited run."""
        content = canaries_csv(scores, distances, included)
        self._keep(CANARIES, content)

    def canaries(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Read ``canaries.csv``: the scores, and whether each canary took part.

        Raises:
            UserError: It is missing or damaged.
        """
        return read_canaries_csv(
            (self._checksums() or Checksums()).read_file(self.path / CANARIES, _MEND)
        )

    def append(self, record: RoundRecord) -> None:
        """Add a row to ``rounds.csv``.

        Raises:
            UserError: The disk is full; earlier rows are unchanged.
        """
        self._rounds.append(record)

    def amend(self, record: RoundRecord) -> None:
        """Replace the last row of ``rounds.csv``."""
        self._rounds.amend(record)

    def records(self) -> list[RoundRecord]:
        """Read ``rounds.csv``.

        Raises:
            UserError: It is missing or damaged.
        """
        sums = self._checksums()
        if sums and ROUNDS in sums.whole:
            content = sums.read_file(self._rounds.path, _MEND)
            if why := other_columns(content, self._metrics()):
                raise foreign_file(self._rounds.path, why, self.path / SUMMARY)
            return parse_rows(content, self._rounds.path, self._metrics())
        return self._rounds.read()

    def follower(self) -> RoundsFollower:
        """Return a reader of ``rounds.csv`` while another process writes it."""
        return RoundsFollower(self.path, self._metrics)

    def save_checkpoint(self, state: ServerState, record: RoundRecord, data_sha256: str) -> None:
        """Save everything that the next round needs; an older checkpoint is replaced atomically.

        The rows of earlier rounds are flushed to disk first; the row of this round may be written
        before or after.

        Args:
            state: The state after the round.
            record: The round's record.
            data_sha256: Hash of the corpus, and of the trace if there is one.
        """
        self._rounds.sync()
        checkpoint = Checkpoint(state, self._rounds.seal(record))
        content = write_checkpoint(checkpoint, data_sha256)
        write_atomically(self.path / CHECKPOINT, content, OWNER)

    def check_checkpoint(self, fresh: ServerState, data_sha256: str) -> None:
        """Refuse a checkpoint that ``load_checkpoint`` would refuse.

        Raises:
            UserError: It is damaged, or made from another corpus, trace or model.
        """
        path = self.path / CHECKPOINT
        if path.exists():
            read_checkpoint(path.read_bytes(), path, fresh, data_sha256)

    def load_checkpoint(self, fresh: ServerState, data_sha256: str) -> ServerState:
        """Return the state to continue from, and truncate ``rounds.csv`` to its round.

        Args:
            fresh: The state before the first round, returned if there is no checkpoint yet.
            data_sha256: Hash of the current corpus, and of the trace if there is one.

        Raises:
            UserError: The checkpoint is damaged, or made from another corpus, trace or model; or
                the rows
                before it are not those that the run wrote.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            self._rounds.replace([])
            return fresh
        checkpoint = read_checkpoint(path.read_bytes(), path, fresh, data_sha256)
        self._rounds.cut(checkpoint.state.round_number, checkpoint.seal)
        return checkpoint.state

    def finish(self, summary: Summary, model: bytes) -> None:
        """Write the model and the summary, and delete past noise, participations and the secret.

        The run is finished when ``checksums.json`` has the summary.
        """
        text = summary.text().encode()
        write_atomically(self.path / MODEL, model)
        write_atomically(self.path / SUMMARY, text)
        contents = {MODEL: model, SUMMARY: text}
        hashes = {name: sha256(content).hexdigest() for name, content in contents.items()}
        self._list({**hashes, ROUNDS: self._rounds.sha256()})
        self.forget()

    def forget(self) -> None:
        """Remove the files of a finished private run that must stay secret.

        Other runs keep their checkpoint, so that they can be continued.
        """
        if not keeps_checkpoint(self.experiment()):
            for name in (CHECKPOINT, COHORT_KEY):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / CLIENTS, ignore_errors=True)

    def finished(self, experiment: Experiment) -> Summary | None:
        """Read the summary of a finished run; None if it is unfinished or is to be continued.

        Raises:
            DamagedError: It is damaged, or missing though the run is finished.
        """
        summary = self.summary()
        if summary is None or extends(self.experiment(), experiment):
            return None
        self.forget()  # it may have been killed before it could
        return summary

    def summary(self) -> Summary | None:
        """Read the summary; None until the run is finished.

        Raises:
            DamagedError: It is damaged, or missing although the run is finished.
            UserError: A field is missing or unknown; another version may have written it.
        """
        sums = self._checksums()
        if not sums or SUMMARY not in sums.whole:
            return None
        path = self.path / SUMMARY
        return Summary.from_text(sums.read_file(path, _MEND), path)

    def model(self) -> dict[str, Tensor]:
        """Read the named parameters of a finished run.

        Raises:
            UserError: The file is missing or damaged.
        """
        return self._parameters(MODEL)

    def best_model(self) -> dict[str, Tensor]:
        """Read the named parameters of the round with the lowest held-out loss.

        Raises:
            UserError: The file is missing, because the last round had it, or damaged.
        """
        return self._parameters(BEST)

    def save_best(self, model: bytes) -> None:
        """Keep the model of the round with the lowest held-out loss."""
        self._keep(BEST, model)

    def remove_best(self) -> None:
        """Remove the model that ``save_best`` wrote."""
        sums = self._checksums()
        if sums and BEST in sums.whole:
            sums.without(BEST).write(self.path)
        (self.path / BEST).unlink(missing_ok=True)

    def _parameters(self, name: str) -> dict[str, Tensor]:
        path = self.path / name
        content = (self._checksums() or Checksums()).read_file(path, _MEND)
        try:
            return dict(load_torch(content))
        except (SafetensorError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}; {_MEND}") from None

    def _checksums(self) -> Checksums | None:
        """Read the checksums; None for a run that has not begun.

        Raises:
            DamagedError: They are damaged, or missing although the run has begun.
        """
        begun = (CHECKSUMS, *_LATER)
        if not any((self.path / name).exists() for name in begun):
            return None
        return Checksums.read(self.path, _MEND)

    def _metrics(self) -> tuple[str, ...]:
        return task_of(self.experiment()).names

    def _keep(self, name: str, content: bytes, mode: int = EVERYBODY) -> None:
        """Write a file and record its hash; while it is being replaced, no hash is recorded."""
        new, sums = sha256(content).hexdigest(), self._checksums() or Checksums()
        if sums.whole.get(name, new) != new:
            sums.without(name).write(self.path)
        write_atomically(self.path / name, content, mode)
        self._list({name: new})

    def _list(self, hashes: dict[str, str]) -> None:
        (self._checksums() or Checksums()).with_whole(hashes).write(self.path)
