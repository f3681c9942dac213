"""Models that hang, crash or raise on some clients' words, and a corpus of such clients."""

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fedsi.data.corpus import Corpus, Row
from fedsi.data.protocol import BOS, FIRST_WORD

FAULTS = ("hang", "crash", "interrupt", "leave", "unevaluated")
"""First words of the vocabulary; a client whose text has one does that."""
TRAINING, HELDOUT = 12, 4
"""Clients of a corpus, those with a fault not counted."""


class Faulty(nn.Module):
    def __init__(self, vocabulary_size: int, *, harmless: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, 4)
        self.output = nn.Linear(4, vocabulary_size)
        self.harmless = harmless

    def forward(self, ids: Tensor) -> Tensor:
        if bool((ids[:, 0] == BOS).all()):  # unlike the random tokens of a trial
            for rank, fault in enumerate(FAULTS):
                if bool((ids == FIRST_WORD + rank).any()):
                    self.fail("raise" if self.harmless else fault)
        logits: Tensor = self.output(self.embedding(ids))
        return logits

    def fail(self, fault: str) -> None:
        match fault:
            case "hang":
                time.sleep(1000)
            case "crash":
                ctypes.string_at(0)
            case "interrupt":
                raise KeyboardInterrupt
            case "leave":
                raise SystemExit(5)
            case "unevaluated" if torch.is_grad_enabled():
                return
        raise RuntimeError("it broke")


def faulty(vocabulary_size: int) -> nn.Module:
    return Faulty(vocabulary_size, harmless=False)


def harmless(vocabulary_size: int) -> nn.Module:
    """A model for which the same clients fail, all with an exception."""
    return Faulty(vocabulary_size, harmless=True)


def word_list(folder: Path) -> Path:
    """Write the vocabulary in the order that gives the faults their token ids."""
    path = folder / "words.txt"
    path.write_text("\n".join([*FAULTS, "fine", "well"]) + "\n")
    return path


def corpus(*faults: str, good: int = TRAINING, unevaluated: int = 0) -> Corpus:
    """Return a corpus with a training client for each fault, among other clients.

    Args:
        faults: Members of ``FAULTS``.
        good: Training clients without a fault.
        unevaluated: Number of the ``HELDOUT`` clients that cannot be evaluated.
    """

    def rows() -> Iterator[Row]:
        for client in range(good):
            yield Row(f"good{client:02}", "", "fine well " * (1 + client), "train")
        for client, fault in enumerate(faults):
            yield Row(f"{fault}{client}", "", f"well {fault} fine", "train")
        for client in range(HELDOUT):
            word = "unevaluated" if client < unevaluated else "well"
            yield Row(f"heldout{client}", "", f"well {word} fine", "test")

    name = f"{faults} {good} {unevaluated}"
    return Corpus(name, name, rows)
