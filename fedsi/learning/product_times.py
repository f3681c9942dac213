"""Times of fedsi's own matrix products and PyTorch's, within the training steps that need them.

A step on an invented batch runs with either kind in turn, and every product is timed where it
happens, with the strides and the cache that it has there.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import FIRST_WORD
from fedsi.experiment import ClientSettings, Experiment
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.kernels.cpu.product_choice import OWN, TORCH
from fedsi.models.build import build_model
from fedsi.models.table import pass_by_hand
from fedsi.tables import load
from fedsi.tasks.table import reads_a_corpus
from fedsi.tasks.task import Batch
from fedsi.threads import torch_threads

FEWEST_TURNS, MOST_TURNS = 4, 30
"""Steps of each kind; the first one also compiles, and the fastest counts."""
SECONDS = 0.3
"""Time after which no further turn begins."""
GENERATED_WORDS = 32
"""Vocabulary of a task that makes its own examples, about."""

Shape = tuple[str, int, int, int]
"""``update`` or ``inner``, and the rows, depth and columns of the product."""


@dataclass(frozen=True)
class ProductTime:
    """Times of the products of one shape in a step."""

    shape: Shape
    own: float
    """CPU seconds of fedsi's own products."""
    torch: float
    """CPU seconds of PyTorch's."""


class _Timed(Products):
    """Products that note how long they take in the current step, by shape."""

    def __init__(self, products: str) -> None:
        super().__init__(ClientSettings.model_validate({"products": products}))
        self.seconds: dict[Shape, float] = {}

    def update(
        self, out: Tensor, left: Tensor, right: Tensor, keep: float = 0.0, rate: float = 1.0
    ) -> None:
        began = time.thread_time()
        super().update(out, left, right, keep, rate)
        self._note(("update", *left.shape, right.shape[1]), began)

    def inner(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        began = time.thread_time()
        super().inner(out, left, right)
        self._note(("inner", *left.shape, len(right)), began)

    def _note(self, shape: Shape, began: float) -> None:
        self.seconds[shape] = self.seconds.get(shape, 0.0) + time.thread_time() - began


def measure_products(experiment: Experiment) -> list[ProductTime]:
    """Measure the products of a step of an experiment's model, on one thread as nodes compute.

    The batch has ``client.batch_size`` texts of half of ``data.sequence_length``.

    Args:
        experiment: An experiment whose model is trained by gradients by hand.

    Returns:
        The times of all products of a shape in a step, in the order in which they first occur.
    """
    kinds = {name: _Timed(name) for name in (OWN, TORCH)}
    fastest: dict[str, dict[Shape, float]] = {name: {} for name in kinds}
    with torch_threads(1):
        step = _step(experiment)
        ends = time.monotonic() + SECONDS
        for turn in range(MOST_TURNS):
            if turn >= FEWEST_TURNS and time.monotonic() > ends:
                break
            for name, products in kinds.items():
                products.seconds = {}
                step(products)
                fastest[name] = _least(fastest[name], products.seconds)
    return [ProductTime(shape, own, fastest[TORCH][shape]) for shape, own in fastest[OWN].items()]


def _step(experiment: Experiment) -> Callable[[Products], None]:
    """Return a function that takes a step with given products."""
    corpus = reads_a_corpus(experiment.task.name)
    words = experiment.data.vocabulary_size if corpus else GENERATED_WORDS
    model = build_model(experiment, words)
    # Not the initial parameters, whose orthogonal matrices take longer than all turns.
    drawn = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0))
    named = model.layout.views(drawn / 16)
    by_hand = load(str(pass_by_hand(model)))(model, named)
    length = max(1, experiment.data.sequence_length // 2)
    texts = np.full((experiment.client.batch_size, length), FIRST_WORD, np.int32)
    batch = Batch(texts, texts)

    def step(products: Products) -> None:
        by_hand.run(batch, named, UpdateRule(products, 1.0, -1e-3 / batch.count))

    return step


def _least(known: Mapping[Shape, float], new: Mapping[Shape, float]) -> dict[Shape, float]:
    return {shape: min(known.get(shape, seconds), seconds) for shape, seconds in new.items()}
