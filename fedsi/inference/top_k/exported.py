"""Output layers as modules for export: states ``[batch, time, size]`` to words and their scores.

Both results are ``[batch, time, k]``, the likeliest word first. Rows that are no words never come.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel
from fedsi.inference.top_k import hire_lr, hire_q
from fedsi.inference.top_k.calibration import own_states
from fedsi.inference.top_k.layer import OPTION, Array, Choice, OutputRows, check_choice, rows_of
from fedsi.inference.top_k.quantised import LARGEST
from fedsi.inference.top_k.table import OUTPUT_LAYERS


class _Highest(nn.Module):
    """The words with the highest scores.

    Args:
        scores: Returns scores ``[batch, time, words]`` of states, -inf for rows that are no words.
        rows: The rows.
        count: Words to return.
    """

    def __init__(self, scores: nn.Module, rows: OutputRows, count: int) -> None:
        super().__init__()
        self._scores = scores
        self._count = min(count, len(rows) - rows.first)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return words, int64, and their scores."""
        best = self._scores(states).topk(self._count)
        return best.indices, best.values


class _Rescored(nn.Module):
    """Candidates by cheap scores, and of these the words with the highest exact scores.

    Args:
        scores: The cheap scores, as in ``_Highest``.
        rows: The rows.
        count: Words to return.
        candidates: Rows whose exact scores are computed.
    """

    def __init__(self, scores: nn.Module, rows: OutputRows, count: int, candidates: int) -> None:
        super().__init__()
        self._candidates = _Highest(scores, rows, candidates)
        self._count = min(count, len(rows) - rows.first)
        self.register_buffer("rows_weight", torch.from_numpy(rows.weight))
        self.register_buffer("rows_bias", torch.from_numpy(rows.bias))

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return words, int64, and their exact scores."""
        found, _ = self._candidates(states)
        rows = self.get_buffer("rows_weight")[found]
        exact = (rows * states.unsqueeze(-2)).sum(-1) + self.get_buffer("rows_bias")[found]
        best = exact.topk(self._count)
        return found.gather(-1, best.indices), best.values


class _LowRank(nn.Module):
    """Scores by rows of low rank."""

    def __init__(self, layer: hire_lr.HireLr) -> None:
        super().__init__()
        for name, matrix in zip(("left", "bias", "right", "shift"), layer.matrices(), strict=True):
            self.register_buffer(name, torch.from_numpy(matrix))

    def forward(self, states: Tensor) -> Tensor:
        """Return ``[batch, time, words]``."""
        left, bias, right, shift = map(self.get_buffer, ("left", "bias", "right", "shift"))
        return (states @ right.T + shift) @ left.T + bias


class _Int8(nn.Module):
    """Scores by 8-bit rows, multiplied by an operator that only ONNX has.

    It rounds the states to 8 bits, where fedsi's own kernel has 16.
    """

    def __init__(self, rows: OutputRows) -> None:
        super().__init__()
        scales = np.abs(rows.weight).max(axis=1) / LARGEST
        scales = np.where(scales > 0, scales, 1).astype(np.float32)
        numbers = np.rint(rows.weight / scales[:, None]).astype(np.int8)
        self.register_buffer("int8_rows", torch.from_numpy(np.ascontiguousarray(numbers.T)))
        self.register_buffer("int8_scales", torch.from_numpy(scales))
        self.register_buffer("int8_bias", torch.from_numpy(words_only(rows.bias, rows.first)))

    def forward(self, states: Tensor) -> Tensor:
        """Return ``[batch, time, words]``."""
        rounded, scale, zero = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear",
            (states,),
            dtypes=(torch.uint8, torch.float32, torch.uint8),
            shapes=(states.shape, (), ()),
            version=11,
        )
        numbers = self.get_buffer("int8_rows")
        products = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (rounded, numbers, zero),
            dtype=torch.int32,
            shape=(*states.shape[:2], numbers.shape[1]),
            version=10,
        )
        scores = products.float() * scale * self.get_buffer("int8_scales")
        return scores + self.get_buffer("int8_bias")


def words_only(bias: Array, first: int) -> Array:
    """Return biases with -inf for rows that are no words."""
    return np.where(np.arange(len(bias)) < first, -np.inf, bias).astype(np.float32)


def _low_rank(rows: OutputRows, choice: Choice, trained: TrainedModel) -> nn.Module:
    layer = hire_lr.KIND.build(rows, choice, own_states(trained))
    if not isinstance(layer, hire_lr.HireLr):
        raise TypeError("the layer of low rank is of another class")
    return _Rescored(_LowRank(layer), rows, choice.count, layer.number)


def _quantised(rows: OutputRows, choice: Choice, trained: TrainedModel) -> nn.Module:
    del trained
    candidates = choice.candidates or max(hire_q.USUAL, choice.count)
    return _Rescored(_Int8(rows), rows, choice.count, candidates)


def _int8(rows: OutputRows, choice: Choice, trained: TrainedModel) -> nn.Module:
    del trained
    return _Highest(_Int8(rows), rows, choice.count)


_Make = Callable[[OutputRows, Choice, TrainedModel], nn.Module]
MODULES: dict[str, _Make] = {"int8": _int8, "hire_q": _quantised, "hire_lr": _low_rank}
IN_TORCH = ("hire_lr",)
"""Entries of ``MODULES`` that need no operator of ONNX."""


def exported_layer(
    trained: TrainedModel, name: str, choice: Choice, file_format: str
) -> nn.Module | None:
    """Return the module of an output layer, or None for the exact one, which gives all logits.

    Raises:
        UserError: There is no such layer, it cannot be exported in this format, or the choice does
            not fit.
    """
    kind = OUTPUT_LAYERS[name]
    if name == "exact":
        check_choice(kind, name, choice)
        return None
    if name not in MODULES:
        raise UserError(
            f"{OPTION} {name} cannot be exported: where its bound is not enough it needs all rows; "
            f"use one of {', '.join(MODULES)}"
        )
    if file_format != "onnx" and name not in IN_TORCH:
        raise UserError(
            f"{OPTION} {name} needs products of 8-bit integers that only ONNX has; use "
            f"--format onnx, or {OPTION} {IN_TORCH[0]}"
        )
    rows = rows_of(trained)
    check_choice(kind, name, choice, rows)
    return MODULES[name](rows, choice, trained)
