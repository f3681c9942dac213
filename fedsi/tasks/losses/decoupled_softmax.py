"""Decoupled softmax: right labels compete with wrong ones only.

With the scores ``s`` of a query and its right labels ``P``::

    loss = 1/|P| sum_{p in P} -log( e^{s_p} / (e^{s_p} + sum_{n not in P} e^{s_n}) )

Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (arXiv 2310.10636).
With one right label it is softmax.
"""

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.tasks.losses.loss import NEVER, among, right_mask, right_scores


def decoupled_softmax_loss(scores: Tensor, right: Tensor, known: Tensor | None, _k: int) -> Tensor:
    """Return the loss of each query, ``[queries]``."""
    own, weights = right_scores(scores, right)
    wrong = torch.where(right_mask(scores, right), NEVER, among(scores, known))
    return (weights * functional.softplus(wrong.logsumexp(-1, keepdim=True) - own)).sum(-1)


LOSS = decoupled_softmax_loss
