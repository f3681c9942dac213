"""Softmax cross-entropy with several right labels.

With the scores ``s`` of a query and its right labels ``P``::

    loss = 1/|P| sum_{p in P} -log( e^{s_p} / sum_n e^{s_n} )

which is cross-entropy for one right label. It is the baseline of "Dual-Encoders for Extreme
Multi-Label Classification" (arXiv 2310.10636): right labels compete with each other, and the
optimum gives each of them the probability 1/|P|.
"""

from torch import Tensor

from fedsi.tasks.losses.loss import among, right_scores


def softmax_loss(scores: Tensor, right: Tensor, known: Tensor | None, _k: int) -> Tensor:
    """Return the loss of each query, ``[queries]``."""
    own, weights = right_scores(scores, right)
    total = among(scores, known).logsumexp(-1, keepdim=True)
    return (weights * (total - own)).sum(-1)


LOSS = softmax_loss
