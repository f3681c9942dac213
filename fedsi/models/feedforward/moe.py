"""A mixture of experts: each token uses one or two of several feed-forward parts.

With E experts of ``model.feedforward_size`` neurons and a router R, p the softmax of x R::

    y = sum over the k experts with the largest p_e of  p_e activation(x W_inner,e) W_outer,e

In scale-invariant blocks p is ``relu(x R)`` over its row sum, so that the router is invariant to
its scale, as their attention is. The part is homogeneous in ``outer`` and, with ReLU, in ``inner``.

A balance loss keeps the router from sending all tokens to one expert. With f_e the share of the
choices of a batch that fall on expert e, and P_e the mean of p_e, both over tokens that are not
padding, each block adds ``model.balance * E * sum_e f_e P_e`` to the loss that a client trains on.
It is ``model.balance`` if all experts are used alike, and it is not part of the loss that is
reported. Each client balances its own batches.

Sources: Shazeer et al. (arXiv 1701.06538); Fedus, Zoph and Shazeer (arXiv 2101.03961), section 2.2,
for one expert and the balance loss.
"""

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.attention import SMALLEST_SUM
from fedsi.models.feedforward.part import ACTIVATIONS, FeedForwardPart, Shapes
from fedsi.models.layers import dense
from fedsi.models.parameters import Parameters


def probabilities(settings: ModelSettings, router: Tensor, x: Tensor) -> Tensor:
    """Return the experts' probabilities, ``[*, batch, time, experts]``."""
    scores = dense(x, router)
    if not settings.has_scale_invariant_cell:
        return scores.softmax(-1)
    positive = torch.relu(scores)
    return positive / positive.sum(-1, keepdim=True).clamp_min(SMALLEST_SUM)


def chosen(settings: ModelSettings, shares: Tensor) -> Tensor:
    """Return whether an expert is one of those with the largest of the probabilities."""
    least = shares.topk(settings.experts_per_token).values[..., -1:]
    found: Tensor = (shares >= least) & (shares > 0)
    return found


def one_token(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    """Return the part of ``x [1, 1, embedding]``, reading only the experts of the token."""
    shares = probabilities(settings, parameters["router"], x)
    result = torch.zeros_like(x)
    for expert in chosen(settings, shares).flatten().nonzero().flatten().tolist():
        inner = ACTIVATIONS[settings.activation](x @ parameters["inner"][expert])
        result += shares[..., expert, None] * (inner @ parameters["outer"][expert])
    return result


def _shapes(settings: ModelSettings) -> Shapes:
    size, inner, experts = settings.embedding_size, settings.feedforward_size, settings.experts
    return {
        "router": (size, experts),
        "inner": (experts, size, inner),
        "outer": (experts, inner, size),
    }


def _run(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    shares = probabilities(settings, parameters["router"], x)
    gates = (shares * chosen(settings, shares)).flatten(-3, -2)
    rows = x.flatten(-3, -2).unsqueeze(-3)
    inner = ACTIVATIONS[settings.activation](rows @ parameters["inner"])
    parts = inner @ parameters["outer"]  # [*, experts, tokens, embedding]
    total = (gates.transpose(-1, -2).unsqueeze(-1) * parts).sum(-3)
    result: Tensor = total.unflatten(-2, x.shape[-3:-1])
    return result


def _penalty(settings: ModelSettings, parameters: Parameters, x: Tensor, real: Tensor) -> Tensor:
    shares = probabilities(settings, parameters["router"], x)
    weights = real.to(shares.dtype).unsqueeze(-1)
    number = weights.sum().clamp_min(1)
    used = (chosen(settings, shares) * weights).sum((-3, -2)) / settings.experts_per_token
    mean = (shares * weights).sum((-3, -2)) / number
    total: Tensor = (used.detach() / number * mean).sum()
    return settings.balance * settings.experts * total


def _choices(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    return chosen(settings, probabilities(settings, parameters["router"], x))


PART = FeedForwardPart(shapes=_shapes, run=_run, penalty=_penalty, choices=_choices)
