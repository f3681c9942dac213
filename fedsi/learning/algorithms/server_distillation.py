"""FedAvg whose server distils a teacher into the global model between rounds, on public text.

Clients do what they do in FedAvg. After every ``algorithm.distillation_every``-th round the server
takes steps on public examples towards the probabilities of the teacher, the model of a finished run
with the same vocabulary (Hinton, Vinyals and Dean, arXiv 1503.02531, for the loss). The steps read
the aggregated update, the teacher and public text, so of the clients they learn nothing that the
update does not say, and a mechanism's guarantee holds after them.
"""

from fedsi.learning.algorithms.algorithm import Algorithm
from fedsi.learning.algorithms.fed_avg import combine, finish, pull
from fedsi.learning.algorithms.imitation import PUBLIC_KEYS

ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    keys=PUBLIC_KEYS | {"teacher", "teacher_sha256"},
    imitated="teacher",
)
