"""A trained model as a file that other programs run: tokens [batch, time] -> logits.

Batch and time are free. A recurrent model's steps become a loop of the file itself, so that they
are not written out for one length.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from fedsi.data.formats.files import optional
from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel

_EXAMPLE = (2, 3)
"""Batch and time that the function is traced with; they differ, and neither is 1."""
_MOST_ONNX_BYTES = 1 << 31
"""What a single ONNX file can hold."""


def to_torch_export(trained: TrainedModel) -> bytes:
    """Return the bytes of a ``.pt2`` archive, for ``torch.export.load``.

    Raises:
        UserError: A model of the user's own that torch cannot export.
    """
    buffer = io.BytesIO()
    program = _traced(trained)
    with _quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(trained: TrainedModel) -> bytes:
    """Return the bytes of an ONNX file; its input is ``tokens``, its output ``logits``.

    Raises:
        UserError: A package is missing, the model is too large for one file, or it is a model of
            the user's own that torch cannot export.
    """
    for package in ("onnx", "onnxscript"):
        optional(package, "export")
    size = sum(value.nbytes for value in trained.parameters.values())
    if size >= _MOST_ONNX_BYTES:
        raise UserError(
            f"the model's parameters take {size:,} bytes and an ONNX file holds less than "
            f"{_MOST_ONNX_BYTES:,}; use --format torch-export"
        )
    traced = _traced(trained)
    with _quiet():
        program = torch.onnx.export(
            traced,
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_shapes=(_dimensions(trained),),
            verbose=False,
        )
    content: bytes = program.model_proto.SerializeToString()  # type: ignore[union-attr]
    return content


FORMATS: dict[str, Callable[[TrainedModel], bytes]] = {
    "onnx": to_onnx,
    "torch-export": to_torch_export,
}


def _traced(trained: TrainedModel) -> ExportedProgram:
    module = trained.model.exported(trained.parameters)
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
                f"time ({reason}); export it by your own code, from the parameters in "
                "model.safetensors"
            ) from error
        raise


def _dimensions(trained: TrainedModel) -> dict[int, Any]:
    return {0: Dim("batch"), 1: Dim("time", max=trained.model.longest)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporters say about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
