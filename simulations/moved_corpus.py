"""The corpus of a run, where it is now: it may have been moved, but it must be the same one."""

from pathlib import Path

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.paths import is_path
from fedsi.tasks.table import generation_of
from server.runs.folder import RunFolder


def open_corpus_of(
    path: Path,
    experiment: Experiment,
    corpus_sha256: str,
    cache: Path,
    progress: Progress,
) -> Population:
    """Open the population that a run was trained on.

    Args:
        path: The run's folder.
        experiment: Its experiment, with the present place of its corpus.
        corpus_sha256: The corpus's hash.
        cache: Folder for prepared corpora.
        progress: Called with the progress.

    Raises:
        UserError: The corpus is another one.
    """
    population = open_population(prepare_for(experiment, cache, progress))
    if population.description.corpus_sha256 != corpus_sha256:
        raise UserError(
            f"the corpus {population.description.corpus} is not the one that {path} was trained on "
            "(its SHA-256 differs); put that corpus back, name its place with --corpus, or train "
            "again"
        )
    return population


def with_corpus_at(path: Path, experiment: Experiment, moved: Path | None) -> Experiment:
    """Return a run's experiment with the present place of its corpus.

    Args:
        path: The run's folder.
        experiment: Its experiment.
        moved: Where its corpus is now; None for where it was.

    Raises:
        UserError: The corpus is not where it was, or the run has none.
    """
    corpus, made = experiment.data.corpus, generation_of(experiment.task.name) is not None
    if moved is None:
        if not made and is_path("data.corpus", corpus) and not Path(corpus).exists():
            raise UserError(
                f"{path} was trained on {corpus}, which is not there; put it back, or name its "
                "present place with --corpus"
            )
        return experiment
    if made:
        raise UserError(
            f"--corpus {moved} has no effect: the task of {path} makes its own examples; leave it "
            "out"
        )
    return experiment.updated({"data.corpus": str(moved.absolute())})


def move_corpus(folder: RunFolder, moved: Path, cache: Path, progress: Progress) -> None:
    """Let a run, which is to be continued, name the present place of its corpus.

    Args:
        folder: The run's folder.
        moved: Where its corpus is now.
        cache: Folder for prepared corpora.
        progress: Called with the progress.

    Raises:
        UserError: The corpus is another one, or the run has none.
    """
    with folder.held():
        experiment = with_corpus_at(folder.path, folder.experiment(), moved)
        if known := folder.corpus_sha256():
            open_corpus_of(folder.path, experiment, known, cache, progress)
        folder.save_experiment(experiment)
