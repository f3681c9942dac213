"""Trial of a user's module before the first round: it must work as clients will use it."""

import torch
from torch import Tensor

from fedsi.blame import kind_of
from fedsi.errors import UserError
from fedsi.models.user_model import UserModel, blamed_call, flat_parameters, same_values
from fedsi.threads import torch_threads

TRIAL_BATCH = 2
TRIAL_NOISE = 0.1
"""Standard deviation of noise added to the parameters in a trial; without it, layers that start at
zero would hide the layers behind them."""
CAUSAL_TOLERANCE = 1e-3
"""Largest change of a logit by a later token, relative to the largest logit; allows for
rounding."""


def try_model(model: UserModel, sequence_length: int) -> None:
    """Refuse a module whose logits depend on more than the parameters and earlier tokens.

    Args:
        model: The user's model.
        sequence_length: Length of the longest sequence that it will see.

    Raises:
        UserError: The module breaks a rule; says which, and what to use instead.
    """
    with torch_threads(1):
        _try_out(model, sequence_length)


def _try_out(model: UserModel, sequence_length: int) -> None:
    draws = torch.Generator().manual_seed(0)
    flat = flat_parameters(model.module)
    flat += TRIAL_NOISE * torch.randn(flat.shape, generator=draws)
    shape = (TRIAL_BATCH, sequence_length)
    ids = torch.randint(model.vocabulary_size, shape, generator=draws)
    buffers = {name: buffer.clone() for name, buffer in model.module.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        logits = _forward(model, flat, ids)
        drew = not torch.equal(state, torch.get_rng_state())
    _check_logits(model, logits, ids)
    if drew:
        raise UserError(
            f"{model.path} draws random numbers when it is called, as dropout does, and clients "
            "must give the same bits wherever they train; set its dropout to 0"
        )
    for name, buffer in model.module.named_buffers():
        if not same_values(buffer, buffers[name]):
            raise UserError(
                f"{model.path} changes its buffer {name} when it is called, as batch normalisation "
                "does, and clients share only parameters; use nn.LayerNorm or nn.GroupNorm"
            )
    _check_logits(model, _forward(model, flat, ids[:1, :1]), ids[:1, :1])
    _check_history(model, flat, ids, logits)
    _check_gradient(model, flat, ids)


def _check_history(model: UserModel, flat: Tensor, ids: Tensor, logits: Tensor) -> None:
    """Refuse logits that depend on later tokens or earlier calls."""
    later = ids.clone()
    later[:, -1] = (ids[:, -1] + 1) % model.vocabulary_size
    changed = _forward(model, flat, later)
    again = _forward(model, flat, ids)
    if not torch.allclose(again, logits, rtol=0, atol=0, equal_nan=True):
        raise UserError(
            f"{model.path} gives other logits when it is called again with the same tokens; it "
            "must keep no state between calls and draw no random numbers"
        )
    difference = (changed - logits)[:, :-1].abs()
    if (difference > CAUSAL_TOLERANCE * logits.abs().max()).any():
        raise UserError(
            f"{model.path} sees the tokens that it has to predict: its logits change with later "
            "tokens; mask them in attention, and use no bidirectional layer"
        )


def _forward(model: UserModel, flat: Tensor, ids: Tensor) -> Tensor:
    with torch.no_grad(), blamed_call(model.path, ids.shape):
        return model.features(model.layout.views(flat), ids)


def _check_gradient(model: UserModel, flat: Tensor, ids: Tensor) -> None:
    with blamed_call(model.path, ids.shape):
        leaf = flat.detach().requires_grad_()
        torch.autograd.grad(model.features(model.layout.views(leaf), ids).sum(), leaf)


def _check_logits(model: UserModel, logits: object, ids: Tensor) -> None:
    expected = [*ids.shape, model.vocabulary_size]
    found = list(logits.shape) if isinstance(logits, Tensor) else kind_of(logits)
    if found != expected:
        raise UserError(
            f"{model.path} returned {found} for token ids {list(ids.shape)}; return logits "
            f"[batch, time, vocabulary], here {expected}"
        )
