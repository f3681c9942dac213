"""Custom models: a user's module, with its parameters as one flat vector.

An experiment names a factory by its import path, ``my_package.my_module:name``. Called with the
size of the vocabulary, the factory returns a module that takes token ids, int64 ``[batch, time]``,
and returns logits, ``[batch, time, vocabulary]``. Every process imports the factory itself: only
its name is sent.

Clients share nothing but parameters and are trained in any order on any worker, so the logits must
depend only on parameters and earlier tokens. Other modules are refused before the first round.
Parameters that the module freezes (``requires_grad = False``) and buffers are part of its function:
every process builds them itself, under the experiment's seed.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fedsi.blame import blamed, kind_of
from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.import_path import check_home, load_own
from fedsi.model_objects import Factory, given_factory, is_given, shown
from fedsi.models.factory_arguments import check_arguments
from fedsi.models.model import Memory, Model, Outputs
from fedsi.models.parameters import Layout, Parameters
from fedsi.models.table import ARCHITECTURES
from fedsi.seeds import Purpose, generator
from fedsi.threads import torch_threads

KEY = ARCHITECTURES.key


@dataclass(frozen=True)
class UserModel:
    """The functions of a user's module. Its trained parameters are always passed in.

    Args:
        settings: Model settings; the architecture is the import path of the factory.
        vocabulary_size: Number of token ids, special tokens included.
        module: The module; only its frozen parameters are used.
        layout: Names and shapes of the trained parameters; one shared by several layers appears
            once.
    """

    settings: ModelSettings
    vocabulary_size: int
    module: nn.Module
    layout: Layout
    longest: int | None = None

    @property
    def path(self) -> str:
        """Import path of the factory, for messages."""
        return shown(self.settings.architecture)

    @property
    def frozen(self) -> Parameters:
        """The parameters that the module freezes."""
        named = self.module.named_parameters()
        return {name: p.detach() for name, p in named if not p.requires_grad}

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the logits: ``[batch, time, vocabulary]`` for token ids ``[batch, time]``."""
        logits: Tensor = torch.func.functional_call(self.module, parameters, (inputs,))
        return logits

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the logits of words that continue a memory, by reading the whole text again.

        Raises:
            UserError: The module fails.
        """
        whole = torch.cat([*(ids for (ids,) in memory), inputs], -1)
        with blamed_call(self.path, whole.shape):
            logits = self.features(parameters, whole)
        return logits[..., -inputs.shape[-1] :, :], [(whole,)]

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:  # noqa: ARG002
        """Return the features, which are the logits."""
        return features

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Build the module again and return its parameters, float32 ``[parameters]``.

        Raises:
            UserError: The factory draws random numbers that do not follow from torch's seed.
        """
        number = _torch_seed(rng)
        modules = (_build(self.settings, self.vocabulary_size, number) for _ in range(2))
        first, second = map(flat_parameters, modules)
        if not torch.equal(first, second):
            raise UserError(
                f"{self.path} gives other initial parameters when called again with the same seed "
                "of torch; draw them with torch's functions alone, without a generator of your own"
            )
        return first

    def output_inputs(self, parameters: Parameters, features: Tensor) -> None:
        """Return None: only the module itself knows how its logits come about."""
        del parameters, features

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the module with the given parameters; it is the model's own module, not a copy."""
        if outputs is not None:
            raise TypeError(f"{self.path} has no output layer that could be replaced")
        self.module.load_state_dict(parameters, strict=False)
        return self.module


def load_user_model(settings: ModelSettings, vocabulary_size: int, seed: int) -> UserModel:
    """Import a factory and build its module.

    Args:
        settings: Model settings; the architecture is ``my_package.my_module:name``.
        vocabulary_size: Number of token ids, special tokens included.
        seed: The experiment's seed, which determines buffers and frozen parameters.

    Raises:
        UserError: There is no such factory, or its module cannot be trained.
    """
    path = shown(settings.architecture)
    number = _torch_seed(generator(seed, Purpose.INITIALISATION))
    module = _build(settings, vocabulary_size, number)
    _check_parameters(path, module)
    if _constants(module):
        _check_constants(path, module, _build(settings, vocabulary_size, number))
    layout = Layout({name: tuple(p.shape) for name, p in _trained(module)})
    return UserModel(settings, vocabulary_size, module, layout)


def load_factory(path: str) -> Factory:
    """Import a factory.

    Raises:
        UserError: The module is not found, fails, or has no such function.
    """
    factory = given_factory(path) if is_given(path) else load_own(KEY, path)
    if not callable(factory):
        raise UserError(
            f"{path} is {kind_of(factory)}, and {KEY} names a function or class that is called "
            "with the size of the vocabulary; name one"
        )
    if isinstance(factory, type) and not issubclass(factory, nn.Module):
        raise UserError(
            f"{shown(path)} is a class, but not one of torch.nn.Module; name such a class"
        )
    if not isinstance(factory, type) and not is_given(path):
        check_home(KEY, path, factory)
    return factory


def _torch_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))


def _build(settings: ModelSettings, vocabulary_size: int, number: int) -> nn.Module:
    """Call a factory under a seed of torch; torch's generator is restored afterwards."""
    path, factory = shown(settings.architecture), load_factory(settings.architecture)
    check_arguments(path, factory, settings.arguments)
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        with blamed(f"{path}({vocabulary_size}) failed"):
            module = factory(vocabulary_size, **settings.arguments)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{path}({vocabulary_size}) returned {kind_of(module)}; return a torch.nn.Module"
        )
    return module.train()


def _check_parameters(path: str, module: nn.Module) -> None:
    parameters = dict(module.named_parameters())
    if not any(parameter.requires_grad for parameter in parameters.values()):
        which = "freezes all of its parameters" if parameters else "has no parameters"
        raise UserError(f"the module of {path} {which}; there is nothing to train")
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            problem = "has no shape yet; use layers with explicit sizes"
        elif parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            problem = (
                f"is {parameter.dtype} on {parameter.device}, and clients train torch.float32 on "
                "the CPU; build it so"
            )
        else:
            continue
        raise UserError(f"the parameter {name} of {path} {problem}")


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def _constants(module: nn.Module) -> Parameters:
    """Return frozen parameters and buffers by name."""
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    return {**frozen, **dict(module.named_buffers())}


def _check_constants(path: str, module: nn.Module, again: nn.Module) -> None:
    """Refuse frozen parameters and buffers that would differ between processes."""
    others = _constants(again)
    for name, value in _constants(module).items():
        if name not in others or not same_values(value, others[name]):
            kind = "parameter" if isinstance(value, nn.Parameter) else "buffer"
            raise UserError(
                f"the {kind} {name} of {path} is not trained, and has other values when the module "
                "is built again with the same seed of torch; draw it with torch's functions alone, "
                "without a generator of your own, or read it from a file"
            )


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; not-a-number equals itself."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())  # noqa: PLR0124


def blamed_call(path: str, shape: Sequence[int]) -> AbstractContextManager[None]:
    """Name the module in errors that it raises on token ids."""
    return blamed(f"{path} failed on token ids int64 {list(shape)}")


def blame(model: Model, shape: Sequence[int]) -> AbstractContextManager[None]:
    """Name the module in errors if it is a user's own."""
    imported = model.settings.is_imported
    return blamed_call(shown(model.settings.architecture), shape) if imported else nullcontext()


def flat_parameters(module: nn.Module) -> Tensor:
    """Return a copy of a module's trained parameters, ``[parameters]``."""
    return torch.cat([p.detach().flatten() for _, p in _trained(module)])
