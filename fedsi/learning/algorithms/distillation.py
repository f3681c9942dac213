"""Distillation of a larger model into the experiment's on a public corpus (arXiv 1503.02531).

The server trains one learner, as ``central`` does: in a round it takes the examples of the cohort's
clients, here authors of a public corpus. Its targets are not the next words but the probabilities
that a teacher gives to all words, the model of a finished run. After the rounds of a federation,
``model.init_from`` names its run, whose model is then the learner's start; without it the learner
starts from random weights.

The teacher and its loss are in ``fedsi.learning.teacher``. An ensemble of clients' models is no
teacher here: it would need every update at the server, where mechanisms only show sums.
"""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.algorithm import Algorithm
from fedsi.learning.algorithms.central import check as check_learner
from fedsi.learning.algorithms.fed_avg import combine, finish, pull

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def check(experiment: "Experiment") -> None:
    """Refuse what ``central`` refuses, no teacher, and targets that a teacher does not have."""
    check_learner(experiment)
    if experiment.algorithm.teacher is None:
        raise ValueError(
            "algorithm.name=distillation has no teacher; name the folder of a finished run with "
            "algorithm.teacher"
        )
    if experiment.task.name != "next_word" or experiment.task.loss != "softmax":
        raise ValueError(
            "algorithm.name=distillation imitates a teacher's probabilities of next words, and the "
            f"experiment has task.name={experiment.task.name} and task.loss="
            f"{experiment.task.loss}; set task.name=next_word and leave task.loss out"
        )


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    keys=frozenset({"teacher", "teacher_sha256", "temperature"}),
    pools=True,
    check=check,
)
