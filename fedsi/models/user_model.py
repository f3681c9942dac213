"""Models of the user's own: a module, and its parameters as one flat vector.

An experiment names a factory by its import path, ``my_package.my_module:factory``. Called with
the size of the vocabulary, the factory returns a module that takes token ids, int64
``[batch, time]``, and returns logits, ``[batch, time, vocabulary]``. Every process imports the
factory itself: only its name travels.

Clients share nothing but parameters and are trained in any order on any worker, so the logits must
be a function of parameters and earlier tokens alone. What is not one is refused before the first
round.
"""

import importlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fedsi.errors import UserError
from fedsi.models.parameters import Layout, Parameters
from fedsi.seeds import Purpose, generator
from fedsi.threads import torch_threads

Factory = Callable[[int], object]

TRIAL_BATCH = 2
TRIAL_NOISE = 0.1
"""Standard deviation of what is added to the parameters of a trial: layers that start at zero would
hide what is behind them."""
CAUSAL_TOLERANCE = 1e-3
"""Largest change of a logit by a later token, over the largest logit. Rounding makes some."""
_NOT_THE_USERS = (__file__, str(Path(torch.__file__).parent), "<frozen ", importlib.__file__)


@dataclass(frozen=True)
class UserModel:
    """The functions of a user's module; its parameters are always passed in.

    Args:
        path: Import path of the factory.
        vocabulary_size: Number of token ids, special tokens included.
        module: The module; its own parameters are not used.
        layout: Names and shapes of its parameters; one that several layers share is there once.
    """

    path: str
    vocabulary_size: int
    module: nn.Module
    layout: Layout

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the logits: ``[batch, time, vocabulary]`` for token ids ``[batch, time]``."""
        logits: Tensor = torch.func.functional_call(self.module, parameters, (inputs,))
        return logits

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:  # noqa: ARG002
        """Return the features, which are the logits."""
        return features

    def initial_parameters(self, seed: int) -> Tensor:
        """Build the module anew under a seed and return its parameters, float32 ``[parameters]``.

        Raises:
            UserError: The factory draws random numbers that torch's seed does not decide.
        """
        number = int(generator(seed, Purpose.INITIALISATION).integers(2**63))
        factory = load_factory(self.path)
        first, second = (
            _flat(_build(self.path, factory, self.vocabulary_size, number)) for _ in range(2)
        )
        if not torch.equal(first, second):
            raise UserError(
                f"{self.path} gives other initial parameters when called again with the same seed "
                "of torch; draw them with torch's functions alone, without a generator of your own"
            )
        return first


def load_user_model(path: str, vocabulary_size: int, sequence_length: int) -> UserModel:
    """Import a factory, build its module and try it out.

    Args:
        path: ``my_package.my_module:factory``.
        vocabulary_size: Number of token ids, special tokens included.
        sequence_length: Longest sequence that the module will see.

    Raises:
        UserError: There is no such factory, or its module cannot be trained.
    """
    factory = load_factory(path)
    module = _build(path, factory, vocabulary_size, 0)
    _check_parameters(path, module)
    _check_buffers(path, module, factory, vocabulary_size)
    layout = Layout({name: tuple(p.shape) for name, p in module.named_parameters()})
    model = UserModel(path, vocabulary_size, module, layout)
    with torch_threads(1):
        _try_out(model, sequence_length)
    return model


def load_factory(path: str) -> Factory:
    """Import a factory.

    Raises:
        UserError: The module is not found, fails, or has no such function.
    """
    place, _, name = path.partition(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise _import_error(path, error) from error
        raise UserError(
            f"there is no module {error.name}, which model.architecture = {path!r} names; start "
            "from the folder that it lies in, or add that folder to PYTHONPATH"
        ) from None
    except Exception as error:
        raise _import_error(path, error) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UserError(
            f"the module {_where(module)} has no function {name}, which model.architecture = "
            f"{path!r} names; define {name}(vocabulary_size) there"
        )
    _check_factory(path, factory)
    return factory  # type: ignore[no-any-return]


def _check_factory(path: str, factory: Any) -> None:
    """Refuse to call what was not made to be called: what a module has merely imported."""
    if isinstance(factory, type):
        if not issubclass(factory, nn.Module):
            raise UserError(f"{path} is a class, but not one of torch.nn.Module; name such a class")
        return
    function = factory
    while isinstance(function, partial):
        function = function.func
    home = str(getattr(function, "__module__", ""))
    if home.partition(".")[0] != path.partition(":")[0].partition(".")[0]:
        raise UserError(
            f"the function that model.architecture = {path!r} names is defined in {home or '?'}; "
            "name the module that defines it"
        )


def _import_error(path: str, error: Exception) -> UserError:
    return UserError(f"model.architecture = {path!r} cannot be imported: {_reason(error)}")


def _build(path: str, factory: Factory, vocabulary_size: int, seed: int) -> nn.Module:
    """Call a factory under a seed; torch's generator is left as it was."""
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory(vocabulary_size)
        except Exception as error:
            raise UserError(f"{path}({vocabulary_size}) failed: {_reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{path}({vocabulary_size}) returned {_kind(module)}; return a torch.nn.Module"
        )
    return module.train()


def _check_parameters(path: str, module: nn.Module) -> None:
    parameters = dict(module.named_parameters())
    if not parameters:
        raise UserError(f"the module of {path} has no parameters; there is nothing to train")
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            problem = "has no shape yet; use layers that are told their sizes"
        elif parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            problem = (
                f"is {parameter.dtype} on {parameter.device}, and clients train torch.float32 on "
                "the CPU; build it so"
            )
        elif not parameter.requires_grad:
            problem = "is frozen, and clients train every parameter; make it a buffer"
        else:
            continue
        raise UserError(f"the parameter {name} of {path} {problem}")


def _check_buffers(path: str, module: nn.Module, factory: Factory, vocabulary_size: int) -> None:
    buffers = dict(module.named_buffers())
    if not buffers:
        return
    others = dict(_build(path, factory, vocabulary_size, 1).named_buffers())
    for name, buffer in buffers.items():
        if name not in others or not torch.equal(buffer, others[name]):
            raise UserError(
                f"the buffer {name} of {path} is drawn at random, and clients share only "
                "parameters; make it a parameter or compute it without random numbers"
            )


def _try_out(model: UserModel, sequence_length: int) -> None:
    """Refuse a module whose logits are not a function of parameters and earlier tokens alone."""
    draws = torch.Generator().manual_seed(0)
    flat = _flat(model.module)
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
        if not torch.equal(buffer, buffers[name]):
            raise UserError(
                f"{model.path} changes its buffer {name} when it is called, as batch normalisation "
                "does, and clients share only parameters; use nn.LayerNorm or nn.GroupNorm"
            )
    _check_logits(model, _forward(model, flat, ids[:1, :1]), ids[:1, :1])
    _check_history(model, flat, ids, logits)
    _check_gradient(model, flat, ids)


def _check_history(model: UserModel, flat: Tensor, ids: Tensor, logits: Tensor) -> None:
    """Refuse logits that know later tokens, or earlier calls."""
    later = ids.clone()
    later[:, -1] = (ids[:, -1] + 1) % model.vocabulary_size
    changed = _forward(model, flat, later)
    again = _forward(model, flat, ids)
    if not torch.allclose(again, logits, rtol=0, atol=0, equal_nan=True):
        raise UserError(
            f"{model.path} gives other logits when it is called again with the same tokens; it "
            "must keep no state from call to call and draw no random numbers"
        )
    difference = (changed - logits)[:, :-1].abs()
    if (difference > CAUSAL_TOLERANCE * logits.abs().max()).any():
        raise UserError(
            f"{model.path} sees the tokens that it has to predict: its logits change with later "
            "tokens; mask them in attention, and use no bidirectional layer"
        )


def _forward(model: UserModel, flat: Tensor, ids: Tensor) -> Tensor:
    with torch.no_grad(), blamed(model.path, ids.shape):
        return model.features(model.layout.views(flat), ids)


def _check_gradient(model: UserModel, flat: Tensor, ids: Tensor) -> None:
    with blamed(model.path, ids.shape):
        leaf = flat.detach().requires_grad_()
        torch.autograd.grad(model.features(model.layout.views(leaf), ids).sum(), leaf)


@contextmanager
def blamed(path: str, shape: Sequence[int]) -> Iterator[None]:
    """Say whose module failed."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{path} failed on token ids int64 {list(shape)}: {_reason(error)}"
        ) from error


def _check_logits(model: UserModel, logits: object, ids: Tensor) -> None:
    expected = [*ids.shape, model.vocabulary_size]
    found = list(logits.shape) if isinstance(logits, Tensor) else _kind(logits)
    if found != expected:
        raise UserError(
            f"{model.path} returned {found} for token ids {list(ids.shape)}; return logits "
            f"[batch, time, vocabulary], here {expected}"
        )


def _flat(module: nn.Module) -> Tensor:
    """Return a copy of a module's parameters, ``[parameters]``."""
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _where(module: ModuleType) -> str:
    return f"{module.__name__} ({module.__file__})" if module.__file__ else module.__name__


def _reason(error: Exception) -> str:
    """Return an error's type, its first line, and the user's line that it came from."""
    first = (str(error).splitlines() or [""])[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_NOT_THE_USERS)
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {first}{place}"
