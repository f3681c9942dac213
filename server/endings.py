"""Reasons for the end of a run: its last round, or a condition met before."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedsi.data.population import Description
from fedsi.experiment import Experiment, ServerSettings
from fedsi.tasks.table import task_of
from server.round_record import RoundRecord

ROUNDS, EPSILON_BUDGET = "server.rounds", "privacy.epsilon_budget"
DIVERGENCE, OBSERVER = "divergence", "observer"

Status = Literal["finished", "diverged", "budget spent", "stopped"]
STATUS: dict[str, Status] = {
    ROUNDS: "finished",
    EPSILON_BUDGET: "budget spent",
    DIVERGENCE: "diverged",
}
"""The status of a run by the reason for its end; any other reason gives ``STOPPED``."""
STOPPED: Status = "stopped"


@dataclass(frozen=True)
class Course:
    """The totals of a run's rounds so far that its end depends on."""

    tokens: int = 0
    bytes: int = 0
    """Bytes to and from the clients."""
    seconds: float = 0.0
    """Seconds of training and evaluation."""
    lowest: float = math.inf
    """Lowest held-out loss of the evaluations that were due, in nats per target token."""
    waited: int = 0
    """Evaluations since the lowest loss."""

    def after(self, record: RoundRecord, settings: ServerSettings) -> "Course":
        """Return the course with one more round; round 0 trains nothing and changes nothing.

        An evaluation that is not due, after the last round of a run that was later continued, does
        not count. So the run ends where one that was never stopped would end.
        """
        if record.round == 0:
            return self
        due = record.heldout if record.round % settings.evaluate_every == 0 else None
        lower = due is not None and due["loss"] < self.lowest
        return Course(
            self.tokens + record.tokens,
            self.bytes + record.upload_bytes + record.download_bytes,
            self.seconds + record.train_seconds + record.evaluation_seconds,
            due["loss"] if due and lower else self.lowest,
            0 if lower else self.waited + (due is not None),
        )

    @classmethod
    def of(cls, records: Iterable[RoundRecord], settings: ServerSettings) -> "Course":
        """Return the course of some rounds."""
        course = cls()
        for record in records:
            course = course.after(record, settings)
        return course


def ending(
    experiment: Experiment,
    description: Description,
    course: Course,
    record: RoundRecord,
    rounds: int,
) -> str:
    """Return what ends a run with a round: the name of a key or of an event, or an empty text.

    Round 0, the evaluation of the untrained model, ends no run.

    Args:
        experiment: The configuration.
        description: The population's description.
        course: The course of all rounds so far.
        record: The record of the last round.
        rounds: Number of rounds that the budget of epsilon allows.
    """
    if record.round == 0:
        return ""
    reasons = {
        DIVERGENCE: has_diverged(record, experiment, description),
        ROUNDS: record.round >= experiment.server.rounds,
        EPSILON_BUDGET: record.round >= rounds,
    }
    ended = next((name for name, holds in reasons.items() if holds), "")
    return ended or ended_by_course(experiment.server, course, record)


def ended_by_course(settings: ServerSettings, course: Course, record: RoundRecord) -> str:
    """Return the key that ends a run with a round because of its course, or an empty text."""
    loss = record.heldout["loss"] if record.heldout else math.inf
    reasons = {
        "server.target_loss": loss <= (settings.target_loss or -math.inf),
        "server.patience": course.waited >= (settings.patience or math.inf),
        "server.budget_tokens": course.tokens >= (settings.budget_tokens or math.inf),
        "server.budget_bytes": course.bytes >= (settings.budget_bytes or math.inf),
        "server.budget_seconds": course.seconds >= (settings.budget_seconds or math.inf),
    }
    return next((name for name, holds in reasons.items() if holds), "")


def has_diverged(record: RoundRecord, experiment: Experiment, description: Description) -> bool:
    """Whether all updates of a round were rejected, or its held-out loss is above the limit.

    A large loss of the cohort alone does not count: one client's steps may diverge while the
    average is still good. A round without any token to learn from does not count either, unless
    updates were rejected.
    """
    limit = task_of(experiment).highest_loss(description.vocabulary_size)
    if record.heldout is not None and not record.heldout["loss"] <= limit:
        return True
    learned_or_rejected = record.tokens + record.rejected > 0
    return learned_or_rejected and not math.isfinite(record.train_loss)
