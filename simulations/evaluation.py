"""Evaluation of a finished run's model on the held-out clients of its corpus."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedsi.data.baselines import Baselines, baselines
from fedsi.data.cache import cache_folder
from fedsi.data.corpus import Progress, silent
from fedsi.data.generated import GeneratedPopulation
from fedsi.data.population import Population
from fedsi.data.vocabulary import label_texts
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.inference.label_baselines import label_baselines
from fedsi.inference.length_evaluation import evaluate_sequences, fill_sequences
from fedsi.learning.block import BlockTrainer
from fedsi.messages import evaluated
from fedsi.models.positions.learned import check_length
from fedsi.models.user_model import blame
from fedsi.tasks.table import task_of, task_on
from fedsi.tasks.task import FIRST_COLUMNS, Counts, Task
from fedsi.threads import torch_threads
from server.personalisation import summarise
from server.rounds import evaluated_clients
from server.runs.summary import PersonalisationSummary
from simulations.finished_run import FinishedRun
from simulations.footprint import check_lengths
from simulations.moved_corpus import open_corpus_of, with_corpus_at

_AT_ONCE = 20
"""Number of clients evaluated between two progress reports."""


@dataclass(frozen=True)
class Score:
    """Quality of the predictions for some targets."""

    tokens: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class LengthScore:
    """A model's scores on sentences packed into sequences of one length."""

    length: int
    sequences: int
    whole: Score
    """Score over all targets, which are the same at every length."""
    beyond: Score
    """Score over targets at positions beyond the training length; there may be none."""


def open_heldout(
    run: FinishedRun, cache: Path, progress: Progress, moved: Path | None = None
) -> Population:
    """Open the population that a run was trained on.

    Args:
        run: The finished run.
        cache: Folder for prepared corpora.
        progress: Called with the progress.
        moved: Where its corpus is now; None for where it was.

    Raises:
        UserError: Its corpus is missing or has changed, or now gives other token ids.
    """
    experiment = with_corpus_at(run.path, run.experiment, moved)
    population = open_corpus_of(run.path, experiment, run.summary.corpus_sha256, cache, progress)
    if population.vocabulary().file_text() != run.trained.vocabulary.file_text():
        raise UserError(
            f"the corpus {population.description.corpus} has another vocabulary than {run.path} "
            "was trained with; put back the word list or tokenizer of the run, or train again"
        )
    return population


def evaluate_sentences(
    run: FinishedRun,
    population: Population,
    progress: Progress,
    clients: Sequence[int] | None = None,
) -> Score:
    """Evaluate sentence by sentence, with the same bits as the run in its last round.

    Clients that cannot be evaluated are left out and logged.

    Args:
        run: The finished run.
        population: Its population.
        progress: Called with the progress.
        clients: Indices of held-out clients; None for those that the run evaluates.

    Raises:
        UserError: No client can be evaluated.
    """
    if clients is None:
        clients = evaluated_clients(run.experiment, population.description).tolist()
    rows = count_clients(run, population, clients, progress)
    kept = rows[evaluated(rows)]
    if len(rows) and not len(kept):
        raise UserError(
            f"none of the {len(rows)} held-out clients of {run.path} could be evaluated; the log "
            "above says why"
        )
    return _score(task_of(run.experiment), kept)


def count_clients(
    run: FinishedRun, population: Population, clients: Sequence[int], progress: Progress
) -> Counts:
    """Count a run's model on clients, sentence by sentence.

    Returns:
        ``[clients, columns of the task]``; all NaN, and logged, for one that cannot be evaluated.
    """
    return count_model(run.experiment, run.flat, population, clients, progress)


def count_model(
    experiment: Experiment,
    flat: torch.Tensor,
    population: Population,
    clients: Sequence[int],
    progress: Progress,
) -> Counts:
    """Count parameters ``[parameters]`` on clients, as ``count_clients`` does."""
    trainer = BlockTrainer(experiment, population)
    rows = np.zeros((0, len(trainer.task.columns)))
    with torch_threads(1):
        for first in range(0, len(clients), _AT_ONCE):
            block = clients[first : first + _AT_ONCE]
            rows = np.concatenate([rows, trainer.evaluate(flat, block)])
            progress("evaluating sentences", len(rows), len(clients))
    return rows


def evaluate_personalised(
    run: FinishedRun, population: Population, clients: Sequence[int], progress: Progress
) -> PersonalisationSummary:
    """Fine-tune the run's model on some held-out clients, with the bits of the run itself.

    Clients that fail are logged and counted.
    """
    trainer = BlockTrainer(run.experiment, population)
    rows = np.zeros((0, 2 * len(trainer.task.columns)))
    with torch_threads(1):
        for first in range(0, len(clients), _AT_ONCE):
            block = clients[first : first + _AT_ONCE]
            rows = np.concatenate([rows, trainer.personalise(run.flat, block)])
            progress("fine-tuning clients", len(rows), len(clients))
    return summarise(run.experiment, rows)


def baselines_of(
    experiment: Experiment, population: Population, cache: Path, progress: Progress
) -> Baselines | None:
    """Score n-gram models, or rankings of labels, on what an experiment is evaluated on.

    Args:
        experiment: The experiment.
        population: The clients.
        cache: Folder that keeps the scores.
        progress: Called with the progress of fitting the models.

    Returns:
        None if the task has no labels and does not count the unigram model's loss.
    """
    task, clients = task_of(experiment), evaluated_clients(experiment, population.description)
    if task.bound is not None:
        texts = label_texts(population.vocabulary(), experiment.data.sequence_length)
        bound = task_on(experiment, population)
        return label_baselines(bound, population, texts, clients, progress)
    if "unigram_loss" not in task.columns:
        return None
    return baselines(population, clients, cache_folder(cache), progress)


def evaluate_made_lengths(
    run: FinishedRun, population: GeneratedPopulation, lengths: Sequence[str], progress: Progress
) -> dict[str, Score]:
    """Evaluate on new examples of each length, which the task makes.

    Args:
        run: The finished run.
        population: Its population.
        lengths: Lengths, as the task reads them.
        progress: Called with the progress.

    Raises:
        UserError: The task has no such length, or its sequences need more memory than there is.
    """
    examples = run.experiment.task.grid_examples
    wider = population.on_grid(lengths, examples)
    check_lengths(run.experiment, wider)
    rows = []
    for client in wider.description.grid_clients:
        rows.append(count_clients(run, wider, [client], silent))
        progress("evaluating lengths", len(rows), len(lengths))
    task = task_of(run.experiment)
    return {length: _score(task, row) for length, row in zip(lengths, rows, strict=True)}


def evaluate_lengths(
    run: FinishedRun, population: Population, lengths: Sequence[int], progress: Progress
) -> list[LengthScore]:
    """Evaluate the same clients' sentences, packed into sequences of each length.

    Raises:
        UserError: A length is beyond the model's learned positions, or a user's own model fails.
    """
    for length in lengths:
        check_length(run.experiment.model, length)
    return [_at_length(run, population, length, progress) for length in lengths]


def _at_length(
    run: FinishedRun, population: Population, length: int, progress: Progress
) -> LengthScore:
    clients = evaluated_clients(run.experiment, population.description)
    unigram = torch.tensor(population.unigram_log_probabilities)
    data, trained, task = run.experiment.data, run.trained, task_of(run.experiment)
    counts = []
    with torch_threads(1):
        for done, client in enumerate(clients.tolist(), start=1):
            sequences = fill_sequences(task, population.examples(client), length)
            with blame(trained.model, sequences.inputs.shape):
                both = evaluate_sequences(
                    task,
                    trained.model,
                    trained.parameters,
                    sequences,
                    unigram,
                    data.sequence_length,
                )
            counts.append(both)
            progress(f"evaluating length {length}", done, len(clients))
    whole, beyond = np.array(counts).reshape(-1, 2, len(task.columns)).swapaxes(0, 1)
    sequences_in_all = int(_total(whole, "examples"))
    return LengthScore(length, sequences_in_all, _score(task, whole), _score(task, beyond))


def _score(task: Task, rows: Counts) -> Score:
    return Score(int(_total(rows, "tokens")), task.metrics(rows))


def _total(rows: Counts, name: str) -> float:
    return float(rows[:, FIRST_COLUMNS.index(name)].sum())


def score_json(score: LengthScore) -> dict[str, Any]:
    """Return a length's score in values that JSON can represent."""
    return {
        "sequence_length": score.length,
        "sequences": score.sequences,
        **metrics_json(score.whole),
        "beyond": metrics_json(score.beyond) if score.beyond.tokens else None,
    }


def made_score_json(length: str, score: Score) -> dict[str, Any]:
    """Return the score on examples of a length that the task made, for JSON."""
    return {"length": length, **metrics_json(score)}


def metrics_json(score: Score) -> dict[str, Any]:
    """Return a score in values that JSON can represent."""
    values = score.metrics.items()
    return {
        "tokens": score.tokens,
        **{name: value if math.isfinite(value) else None for name, value in values},
    }
