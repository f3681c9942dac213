"""The progress of a run: its rounds, checkpoints, best model and summary, in memory and on disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.client_states import ClientStates
from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from fedsi.models.parameters import Layout, Parameters
from fedsi.seeds import Seed
from server.best_model import Best, better, recalled
from server.client_state_disk import clients_and_bytes
from server.cohorts.availability import Trace
from server.differential_privacy import SCORES, Privacy
from server.endings import OBSERVER, Course, ending
from server.lengths import ByLength, evaluate_lengths_on_nodes
from server.nodes import Hosting
from server.observers import Observer, RunObserver
from server.personalisation import personalise_clients
from server.public_distillation import PublicDistillation
from server.round_record import RoundRecord
from server.rounds import (
    ServerState,
    evaluate_round,
    evaluated_clients,
    rounds_to_run,
    run_rounds,
    untrained_round,
)
from server.runs.folder import RunFolder
from server.runs.summarise import model_file, not_private, summarise_run
from server.runs.summary import AuditSummary, PersonalisationSummary, Summary
from server.warm_start import WARM_START

CHECKPOINT_SECONDS = 60.0
"""Seconds after which a round gets a checkpoint even without an evaluation."""


@dataclass
class RunProgress:
    """The progress of a run, in memory and on disk."""

    experiment: Experiment
    description: Description
    trace: Trace | None
    private: Privacy | None
    state: ServerState
    folder: RunFolder | None
    states: ClientStates | None = None
    public: PublicDistillation | None = None
    records: list[RoundRecord] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    observers: Sequence[Observer] = ()
    best: Best | None = None
    warm_start: dict[str, Any] = field(default_factory=dict)
    """Counts of kept, new and dropped words of the initial weights; empty for a resumed run."""
    personalisation: PersonalisationSummary | None = None
    by_length: ByLength = field(default_factory=dict)
    """Metrics of the final model on the population's grid, as ``Summary.by_length``."""
    _best_kept: int = 0
    """The round whose model is in the file of the best one."""
    _kept_at: float = field(default_factory=time.monotonic)
    """Time of the last checkpoint."""

    def check(self, folder: RunFolder) -> None:
        """Refuse a folder from whose checkpoint ``resume`` could not continue."""
        folder.check_checkpoint(self.state, self._data_sha256())

    def resume(self, folder: RunFolder) -> None:
        """Continue from the folder's checkpoint."""
        self.state = folder.load_checkpoint(self.state, self._data_sha256())
        self.records = folder.records()
        layout = build_model(self.experiment, self.description.vocabulary_size).layout
        self.best = recalled(
            self.records, self.state, lambda: vector_of_named(folder.best_model(), layout)
        )
        if self.best and self.best.round < self.state.round_number:
            self._best_kept = self.best.round
        self._look_again(folder)

    def _look_again(self, folder: RunFolder) -> None:
        """Correct the last row if its reason to end the run no longer applies."""
        if not self.records:
            return
        last, course = self.records[-1], Course.of(self.records, self.experiment.server)
        rounds = rounds_to_run(self.experiment, self.private)
        ended = ending(self.experiment, self.description, course, last, rounds)
        if ended != last.ended:
            self.records[-1] = replace(last, ended=ended)
            folder.amend(self.records[-1])
            self._save_checkpoint()

    def run(self, grid: Grid, hosts: Callable[[], Hosting], seed: Seed) -> None:
        """Evaluate the untrained model, unless that was done, and run the remaining rounds.

        A checkpoint is kept even if they are interrupted.

        Args:
            grid: Flower's connection to the nodes.
            hosts: Returns the connected nodes.
            seed: Seed of everything that decides who takes part.
        """
        if self.records and self.records[-1].ended:
            return
        try:
            if not self.records:
                self._evaluate_untrained(grid, hosts())
            rounds = run_rounds(
                grid,
                hosts,
                self.experiment,
                self.description,
                self.trace,
                self.state,
                self.private,
                seed=seed,
                course=Course.of(self.records, self.experiment.server),
                states=str(self.states.folder) if self.states else "",
                public=self.public,
            )
            for state, record in rounds:
                self.records.append(record)
                before, self.state = self.state.state_rounds, state
                self.best = better(self.best, state, record)
                self._keep(record)
                if self.states:
                    self.states.replace(
                        before, state.state_rounds, lost=bool(record.lost or record.repeats)
                    )
                if self._told_to_stop(record):
                    self._stop(grid, hosts())
                    return
        except BaseException:
            self._save_checkpoint()
            raise

    def _evaluate_untrained(self, grid: Grid, hosting: Hosting) -> None:
        """Add the row of round 0."""
        record = untrained_round(grid, hosting, self.experiment, self.description, self.state)
        self.records.append(record)
        self._keep(record)
        for observer in self.observers:
            if isinstance(observer, RunObserver):
                observer.untrained(record)

    def personalise(self, grid: Grid, hosting: Hosting) -> None:
        """Fine-tune the final model on the held-out clients if the experiment says so."""
        if self.experiment.personalisation.epochs is not None:
            clients = evaluated_clients(self.experiment, self.description)
            self.personalisation = personalise_clients(
                grid,
                hosting,
                self.experiment,
                self.state.parameters,
                clients,
                self.description.heldout_examples,
            )

    def evaluate_grid(self, grid: Grid, hosting: Hosting) -> None:
        """Evaluate the final model on the lengths of the population's grid, if it has one."""
        if self.description.grid:
            self.by_length = evaluate_lengths_on_nodes(
                grid, hosting, self.experiment, self.description, self.state.parameters
            )

    def _told_to_stop(self, record: RoundRecord) -> bool:
        """Call each observer with a round, and return whether one of them ends the run."""
        answers = [observer(self.experiment, record) for observer in self.observers]
        return not record.ended and any(answer is True for answer in answers)

    def _stop(self, grid: Grid, hosting: Hosting) -> None:
        """End the run with its last round, which is evaluated if it has not been."""
        record = self.records[-1]
        if not record.heldout:
            record = evaluate_round(
                record, grid, hosting, self.experiment, self.description, self.state
            )
        self.records[-1] = replace(record, ended=OBSERVER)
        self.best = better(self.best, self.state, record)
        if self.folder:
            self.folder.amend(self.records[-1])
        self._save_checkpoint()

    def _keep(self, record: RoundRecord) -> None:
        """Write a finished round: its checkpoint, if one is due, and then its row.

        The checkpoint includes the row. So once a row is visible, a resumed run does not repeat a
        round that was kept. Otherwise a round whose noise cannot be drawn again would be released
        twice. Round 0 needs no checkpoint to be repeated: its state follows from the experiment.
        """
        if self.folder is None:
            return
        waited = time.monotonic() - self._kept_at
        late = waited >= CHECKPOINT_SECONDS or (record.round and record.heldout)
        if late or not self._repeatable(record):
            self._save_checkpoint()
        self.folder.append(record)

    def _repeatable(self, record: RoundRecord) -> bool:
        """Whether a resumed run that repeats this round gets the same bits."""
        return not (self.experiment.privacy.secure_noise or record.lost or self.states)

    def finish(self) -> Summary:
        """Write the model and the summary; return the summary."""
        model = model_file(self.experiment, self.description, self.state)
        summary = summarise_run(
            self.experiment,
            self.description,
            self.records,
            model,
            self.private,
            self.state.participations,
            self.best,
        )
        if summary.privacy and self.private and SCORES in self.state.privacy:
            found = self._audit(self.private, summary.privacy.epsilon)
            summary = replace(summary, privacy=replace(summary.privacy, audit=found))
        facts = dict(self.provenance)
        started = facts.pop(WARM_START, None)
        clients, size = clients_and_bytes(self.experiment, self.state)
        summary = replace(
            summary,
            provenance=facts,
            warm_start=started,
            algorithm=self.experiment.algorithm.name,
            clients_with_state=clients,
            kept_bytes=size,
            personalisation=self.personalisation,
            by_length=self.by_length,
        )
        if self.folder:
            summary = replace(summary, vocabulary_sha256=self.folder.vocabulary_sha256())
        if self.private:
            summary = replace(summary, not_private=not_private(summary))
        if self.folder:
            self._finish_best(self.folder)
            self.folder.finish(summary, model)
        return summary

    def _audit(self, private: Privacy, epsilon: float | None) -> AuditSummary:
        """Compare the claimed epsilon with the canaries' scores."""
        from server.audit import audited_run  # noqa: PLC0415 - imports accounting

        found = audited_run(private, self.state, epsilon)
        if self.folder:
            self.folder.save_canaries(found.scores, found.distances, found.included)
        return found.summary

    def _save_checkpoint(self) -> None:
        number = self.state.round_number
        # There is nothing to keep before round 0 is evaluated, or if the loop was interrupted
        # between its two lines, when the record is already that of the next round.
        if self.folder and self.records and self.records[-1].round == number:
            if self.best and self.best.round not in {number, self._best_kept}:
                self._save_best(self.folder, self.best)
            if self.states and number:
                self.states.sync(self.state.state_rounds, number)
            self.folder.save_checkpoint(self.state, self.records[-1], self._data_sha256())
            self._kept_at = time.monotonic()
            for observer in self.observers:
                if isinstance(observer, RunObserver):
                    observer.checkpoint(number)

    def _save_best(self, folder: RunFolder, best: Best) -> None:
        """Save a model that the next checkpoint will not contain."""
        state = replace(self.state, parameters=best.parameters)
        content = model_file(self.experiment, self.description, state)
        folder.save_best(content)
        self._best_kept = best.round

    def _finish_best(self, folder: RunFolder) -> None:
        """Save the best model, unless it is the last one."""
        if self.best and self.best.round < self.state.round_number:
            if self.best.round != self._best_kept:
                self._save_best(folder, self.best)
        else:
            folder.remove_best()

    def _data_sha256(self) -> str:
        files = [self.description.corpus_sha256]
        if self.trace:
            files.append(self.trace.sha256())
        if self.public:
            files.append(self.public.corpus_sha256)
        return " ".join(files)


def vector_of_named(named: Parameters, layout: Layout) -> NDArray[np.float32]:
    """Return the trained ones of named parameters as one vector, ``[parameters]``."""
    return np.concatenate([named[name].numpy().ravel() for name in layout.shapes])
