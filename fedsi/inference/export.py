"""Export of a trained model to a file for other programs: tokens [batch, time] -> logits.

Batch and time may have any size. The steps of a recurrent model become a loop in the file, so the
file does not depend on the sequence length.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from fedsi.errors import UserError
from fedsi.extras import optional
from fedsi.inference.reading import TrainedModel

_EXAMPLE = (2, 3)
"""Batch and time used for tracing; they differ, and neither is 1."""
_MOST_ONNX_BYTES = 1 << 31
"""Largest size of a single ONNX file."""


def to_torch_export(trained: TrainedModel, outputs: nn.Module | None = None) -> bytes:
    """Return the bytes of a ``.pt2`` archive, for ``torch.export.load``.

    Args:
        trained: The model.
        outputs: Replaces the output layer; see ``top_k.exported``.

    Raises:
        UserError: torch cannot export the user's own model.
    """
    buffer = io.BytesIO()
    program = _traced(trained, outputs)
    with _quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(trained: TrainedModel, outputs: nn.Module | None = None) -> bytes:
    """Return the bytes of an ONNX file; its input is ``tokens``, its output ``logits``.

    Args:
        trained: The model.
        outputs: Replaces the output layer; see ``top_k.exported``. The file's outputs are then
            ``words`` and ``scores``.

    Raises:
        UserError: A package is missing, the model is too large for one file, or torch cannot export
            the user's own model.
    """
    for package in ("onnx", "onnxscript"):
        optional(package, "export")
    size = sum(value.nbytes for value in trained.parameters.values())
    if size >= _MOST_ONNX_BYTES:
        raise UserError(
            f"the model's parameters take {size:,} bytes and an ONNX file holds less than "
            f"{_MOST_ONNX_BYTES:,}; use --format torch-export"
        )
    traced = _traced(trained, outputs)
    with _quiet():
        program = torch.onnx.export(
            traced,
            input_names=["tokens"],
            output_names=["logits"] if outputs is None else ["words", "scores"],
            dynamic_shapes=(_dimensions(trained),),
            verbose=False,
        )
    content: bytes = program.model_proto.SerializeToString()  # type: ignore[union-attr]
    return content


FORMATS: dict[str, Callable[[TrainedModel, nn.Module | None], bytes]] = {
    "onnx": to_onnx,
    "torch-export": to_torch_export,
}


def _traced(trained: TrainedModel, outputs: nn.Module | None) -> ExportedProgram:
    parameters = trained.parameters
    if outputs is not None:  # which has them itself, or others in their place
        parameters = {name: p for name, p in parameters.items() if not name.startswith("output.")}
    module = trained.model.exported(parameters, outputs)
    example = torch.zeros(_EXAMPLE, dtype=torch.int64)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(
                module.eval(), (example,), dynamic_shapes=(_dimensions(trained),)
            )
    except Exception as error:
        if trained.model.settings.is_imported:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            reason = reason.partition(" For more information")[0]  # how to debug torch
            raise UserError(
                f"{trained.model.settings.architecture} cannot be exported with any batch and "
                f"time ({reason}); export it with your own code, from the parameters in "
                "model.safetensors"
            ) from error
        raise


def _dimensions(trained: TrainedModel) -> dict[int, Any]:
    return {0: Dim("batch"), 1: Dim("time", max=trained.model.longest)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log output of the exporters."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
