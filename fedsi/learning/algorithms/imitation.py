"""What algorithms need that imitate probabilities: a public corpus, a teacher, next words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.learning.algorithms.algorithm import Algorithm

PUBLIC_KEYS = frozenset(
    {
        "distillation_batch_size",
        "distillation_every",
        "distillation_learning_rate",
        "distillation_optimizer",
        "distillation_steps",
        "public_corpus",
        "temperature",
    }
)
"""The keys ``algorithm.*`` of every algorithm with ``Algorithm.imitated``."""


def check_imitation(experiment: "Experiment", entry: "Algorithm") -> None:
    """Refuse an algorithm that imitates between rounds if it lacks something.

    Raises:
        ValueError: It has no public corpus, no teacher, or targets other than next words.
    """
    if not entry.imitated:
        return
    corpus = experiment.algorithm.public_corpus
    if corpus in {None, "synthetic"}:
        found = "no public corpus" if corpus is None else "generated words only"
        raise ValueError(
            f"algorithm.name={experiment.algorithm.name} has {found} for the server to read; name "
            "pydocs, or the path of a file, with algorithm.public_corpus"
        )
    if entry.imitated == "teacher":
        require_teacher(experiment)
    require_next_words(experiment)


def require_teacher(experiment: "Experiment") -> None:
    """Refuse an experiment without ``algorithm.teacher``.

    Raises:
        ValueError: There is none.
    """
    if experiment.algorithm.teacher is None:
        raise ValueError(
            f"algorithm.name={experiment.algorithm.name} has no teacher; name the folder of a "
            "finished run with algorithm.teacher"
        )


def require_next_words(experiment: "Experiment") -> None:
    """Refuse a task in which probabilities of next words are no targets.

    Raises:
        ValueError: It is such a task.
    """
    task = experiment.task
    if task.name != "next_word" or task.loss != "softmax":
        raise ValueError(
            f"algorithm.name={experiment.algorithm.name} imitates probabilities of next words, and "
            f"the experiment has task.name={task.name} and task.loss={task.loss}; set "
            "task.name=next_word and leave task.loss out"
        )
