"""The corpus of a study's runs, where it is now: it may have been moved since they began."""

from pathlib import Path

from fedsi.data.corpus import Progress
from fedsi.errors import UserError
from fedsi.files import write_atomically
from server.runs.folder import EXPERIMENT, RunFolder
from server.runs.lock import held
from simulations.moved_corpus import move_corpus, with_corpus_at
from simulations.studies.results import RUNS
from simulations.studies.study import STUDY, Study


def move_corpus_of_study(folder: Path, moved: Path, cache: Path, progress: Progress) -> Study:
    """Let a study and its runs name the present place of their corpus.

    Args:
        folder: The study's folder.
        moved: Where the corpus is now.
        cache: Folder for prepared corpora.
        progress: Called with the progress.

    Returns:
        The study as its file has it now.

    Raises:
        UserError: It is another corpus, the runs have none, or each has one of its own.
    """
    with held(folder):
        study = Study.from_file(folder / STUDY)
        own = next((axis for axis in study.axes if "data.corpus" in axis.keys), None)
        if own is not None:
            raise UserError(
                f"--corpus {moved} is one place, and the runs of {folder} have several corpora "
                f"(the axis {own.called} sets data.corpus); put those back"
            )
        experiment = with_corpus_at(folder, study.experiment, moved)
        runs = [RunFolder(path.parent) for path in sorted((folder / RUNS).glob(f"*/{EXPERIMENT}"))]
        # First those that know their corpus, so that another one is refused before any has moved.
        for run in sorted(runs, key=lambda run: run.corpus_sha256() is None):
            move_corpus(run, moved, cache, progress)
        study = study.updated(experiment=experiment)
        write_atomically(folder / STUDY, study.to_toml().encode())
    return study
