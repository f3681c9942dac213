"""The server's own training between rounds: a distillation on a public corpus.

Only the server reads the corpus. It comes after the server optimizer's step, and reads that step's
result, public text, and a teacher or the clients' updates. Training code is loaded only here.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsi.data.public_corpus import open_public_corpus
from fedsi.data.vocabulary import Vocabulary
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Updates, Vector
from fedsi.learning.algorithms.table import algorithm_of

if TYPE_CHECKING:
    from fedsi.learning.public_learner import PublicLearner
    from fedsi.learning.soft_targets import SoftTargets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicDistillation:
    """The distillations of a run."""

    experiment: Experiment
    learner: "PublicLearner"
    teacher: "SoftTargets | None"
    """The teacher's probabilities; None if the cohort is imitated."""
    corpus_sha256: str

    def after(
        self, start: Vector, parameters: Vector, updates: Updates | None, round_number: int
    ) -> Vector:
        """Return the global parameters after a round's distillation, if the round has one.

        They stay as they are if nobody can be imitated, or if the steps diverge.

        Args:
            start: The parameters that the cohort started from, ``[parameters]``.
            parameters: The parameters after the server optimizer's step, ``[parameters]``.
            updates: The updates of the aggregated clients; None if only their sum is known, or if
                there is no client.
            round_number: The round.
        """
        if round_number % self.experiment.algorithm.distillation_every:
            return parameters
        targets = self.teacher
        if targets is None and updates is not None:
            targets = self._ensemble(start, updates)
        if targets is None:
            return parameters
        trained = self.learner.train(parameters, targets, round_number)
        if trained is None:
            log.warning("the distillation of round %d diverged and is dropped", round_number)
            return parameters
        return trained

    def _ensemble(self, start: Vector, updates: Updates) -> "SoftTargets":
        from fedsi.learning.soft_targets import SoftTargets, mean_logits  # noqa: PLC0415

        logits = mean_logits(self.learner.model, start, updates)
        return SoftTargets(logits, self.experiment.algorithm.temperature)


def public_distillation(
    experiment: Experiment, vocabulary: Vocabulary, cache: Path
) -> PublicDistillation:
    """Open the public corpus, and the teacher if there is one, of an algorithm that imitates.

    Args:
        experiment: The configuration.
        vocabulary: The vocabulary of the run.
        cache: Folder for corpora and populations.

    Raises:
        UserError: The corpus or the teacher cannot be used.
    """
    from fedsi.learning.public_learner import PublicLearner  # noqa: PLC0415
    from fedsi.learning.teacher import teacher_of  # noqa: PLC0415

    population = open_public_corpus(experiment, vocabulary, cache)
    facts = population.description
    log.info(
        "%s: %d public examples, %.0f %% of their words unknown",
        experiment.algorithm.public_corpus,
        facts.training_examples + facts.heldout_examples,
        100 * facts.unknown_words,
    )
    imitated = algorithm_of(experiment).imitated
    teacher = teacher_of(experiment, vocabulary) if imitated == "teacher" else None
    learner = PublicLearner(experiment, population)
    return PublicDistillation(experiment, learner, teacher, facts.corpus_sha256)
