"""Models as a user might write them, right and wrong, named by tests by their import path."""

import os
import random
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 8


class Gru(nn.Module):
    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, SIZE)
        self.gru = nn.GRU(SIZE, SIZE, batch_first=True)
        self.output = nn.Linear(SIZE, vocabulary_size)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(ids))
        logits: Tensor = self.output(states)
        return logits


class Tied(Gru):
    """An LSTM whose output layer is its embedding, with a scalar parameter and a constant."""

    temperature: Tensor

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__(vocabulary_size)
        self.gru = nn.LSTM(SIZE, SIZE, batch_first=True)  # type: ignore[assignment]
        self.output.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("temperature", torch.tensor(0.5))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.scale / self.temperature


class Between(Gru):
    """A GRU with something between its states and its output layer."""

    def __init__(self, vocabulary_size: int, between: nn.Module) -> None:
        super().__init__(vocabulary_size)
        self.between = between

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(ids))
        logits: Tensor = self.output(self.between(states.mT).mT)
        return logits


class Wrong(Gru):
    """A GRU with changed logits."""

    def __init__(self, vocabulary_size: int, how: str) -> None:
        super().__init__(vocabulary_size)
        self.how = how
        self.calls = 0

    def forward(self, ids: Tensor) -> Tensor:
        logits = super().forward(ids)
        self.calls += 1
        match self.how:
            case "last position":
                return logits[:, -1]
            case "tuple":
                return logits, None  # type: ignore[return-value]
            case "calls":
                return logits * self.calls
            case "detached":
                return logits.numpy()  # type: ignore[return-value]
            case "future":
                return logits + functional.pad(logits[:, 1:], (0, 0, 0, 1))
            case _:
                raise KeyError(self.how)


def dropout(vocabulary_size: int) -> nn.Module:
    return Between(vocabulary_size, nn.Dropout(0.1))


def batch_norm(vocabulary_size: int) -> nn.Module:
    return Between(vocabulary_size, nn.BatchNorm1d(SIZE))


def last_position(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "last position")


def a_tuple(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "tuple")


def stateful(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "calls")


def future(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "future")


def without_gradient(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "detached")


def failing(vocabulary_size: int) -> nn.Module:
    return Wrong(vocabulary_size, "nonsense")


def bidirectional(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    model.gru = nn.GRU(SIZE, SIZE // 2, batch_first=True, bidirectional=True)
    return model


def too_few_words(vocabulary_size: int) -> nn.Module:
    return Gru(vocabulary_size - 1)


def without_parameters(vocabulary_size: int) -> nn.Module:
    return nn.Identity()


class Loud(nn.Module):
    """A model that prints when it is made and when it is called."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        print("made for", vocabulary_size)  # noqa: T201
        self.embedding = nn.Embedding(vocabulary_size, SIZE)
        self.output = nn.Linear(SIZE, vocabulary_size)

    def forward(self, ids: Tensor) -> Tensor:
        print("called on", ids.shape)  # noqa: T201
        os.write(1, b"without Python\n")
        logits: Tensor = self.output(self.embedding(ids))
        return logits


def frozen(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    model.embedding.requires_grad_(False)
    return model


def all_frozen(vocabulary_size: int) -> nn.Module:
    return Gru(vocabulary_size).requires_grad_(False)


def other_constants(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    nn.init.constant_(model.embedding.weight, random.SystemRandom().random())
    model.embedding.requires_grad_(False)
    return model


def other_buffer(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    model.register_buffer("noise", torch.tensor(random.SystemRandom().random()))
    return model


def unset_buffer(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    model.register_buffer("unset", torch.tensor([float("nan"), 1.0]))
    return model


class Adapter(nn.Module):
    """A random base that is not trained, half as parameters, half as a buffer, and a low rank."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.base = nn.Embedding(vocabulary_size, SIZE).requires_grad_(False)
        self.register_buffer("mix", torch.randn(SIZE, SIZE))
        self.down, self.up = nn.Linear(SIZE, 2, bias=False), nn.Linear(2, SIZE, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.base(ids) @ self.mix
        logits: Tensor = (vectors + self.up(self.down(vectors))) @ self.base.weight.T
        return logits


TRAINS_UP: ContextVar[bool] = ContextVar("trains_up", default=True)
BASE: ContextVar[float] = ContextVar("base", default=1.0)
"""What differs from machine to machine in ``of_the_machine``."""


def of_the_machine(vocabulary_size: int) -> nn.Module:
    model = Adapter(vocabulary_size)
    model.up.requires_grad_(TRAINS_UP.get())
    nn.init.constant_(model.base.weight, BASE.get())
    return model


def double(vocabulary_size: int) -> nn.Module:
    return Gru(vocabulary_size).double()


def lazy(vocabulary_size: int) -> nn.Module:
    return Between(vocabulary_size, nn.LazyConv1d(SIZE, 1))


def other_randomness(vocabulary_size: int) -> nn.Module:
    model = Gru(vocabulary_size)
    nn.init.constant_(model.output.bias, random.SystemRandom().random())
    return model


def raises(vocabulary_size: int) -> nn.Module:
    raise RuntimeError("no luck\nat all")


def leaves(vocabulary_size: int) -> nn.Module:
    raise SystemExit(0)


def no_arguments() -> nn.Module:
    return nn.Identity()


def nothing(vocabulary_size: int) -> None:
    return None


not_a_function = 3
