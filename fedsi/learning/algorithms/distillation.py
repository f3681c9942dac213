"""Distillation of a larger model into the experiment's on a public corpus (arXiv 1503.02531).

The server trains one learner, as ``central`` does: in a round it takes the examples of the cohort's
clients, here authors of a public corpus. Its targets are not the next words but the probabilities
that a teacher gives to all words, the model of a finished run. After the rounds of a federation,
``model.init_from`` names its run, whose model is then the learner's start; without it the learner
starts from random weights.

The teacher is in ``fedsi.learning.teacher``, and its loss in ``fedsi.learning.soft_targets``. For a
teacher between the rounds of a federation see ``server_distillation``, and for the ensemble of the
clients' models ``fed_df``.
"""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.algorithm import Algorithm
from fedsi.learning.algorithms.central import check as check_learner
from fedsi.learning.algorithms.fed_avg import combine, finish, pull
from fedsi.learning.algorithms.imitation import require_next_words, require_teacher

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def check(experiment: "Experiment") -> None:
    """Refuse what ``central`` refuses, no teacher, and targets that a teacher does not have."""
    check_learner(experiment)
    require_teacher(experiment)
    require_next_words(experiment)


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    keys=frozenset({"teacher", "teacher_sha256", "temperature"}),
    pools=True,
    check=check,
)
