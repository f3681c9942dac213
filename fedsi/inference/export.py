"""A trained model as a file that other programs run: tokens [batch, time] -> logits.

Batch and time are free. A recurrent model's steps become a loop of the file itself, by torch's
``scan``, so that they are not written out for one length.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.export import Dim, ExportedProgram

from fedsi.data.formats.files import optional
from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel
from fedsi.models.cells import ACTIVATIONS, GATES, Activations, dense
from fedsi.models.language_model import LanguageModel, embed
from fedsi.models.parameters import Parameters
from fedsi.models.transformer import Transformer
from fedsi.models.user_model import UserModel

_EXAMPLE = (2, 3)
"""Batch and time that the function is traced with; they differ, and neither is 1."""
_MOST_ONNX_BYTES = 1 << 31
"""What a single ONNX file can hold."""


class ModelFunction(nn.Module):
    """The function that is exported: tokens, int64 ``[batch, time]``, to logits.

    Args:
        model: The model's functions.
        parameters: Their parameters.
    """

    def __init__(self, model: LanguageModel | Transformer, parameters: Parameters) -> None:
        super().__init__()
        self._model = model
        for name, value in parameters.items():
            self.register_parameter(_attribute(name), nn.Parameter(value.clone()))
        self._names = tuple(parameters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, ``[batch, time, vocabulary]``."""
        parameters: Parameters = {
            name: self.get_parameter(_attribute(name)) for name in self._names
        }
        model = self._model
        if isinstance(model, LanguageModel):
            return model.logits(parameters, _states(model, parameters, tokens))
        return model.logits(parameters, model.features(parameters, tokens))


def _attribute(name: str) -> str:
    return name.replace(".", "_")


def _states(model: LanguageModel, parameters: Parameters, tokens: Tensor) -> Tensor:
    """Return ``model.features`` by a loop that can be exported."""
    settings, recurrent = model.settings, parameters["cell.recurrent"]
    vectors = embed(settings, parameters, tokens)
    projected = dense(vectors, parameters["cell.kernel"], parameters["cell.bias"])
    projection = parameters["projection.weight"] if settings.recurrent_projection else None
    activations = ACTIVATIONS[settings.architecture]
    sizes = recurrent.shape[0], settings.hidden_size
    # Not len(tokens), which would fix the batch.
    start = tuple(vectors.new_zeros(tokens.shape[0], size) for size in sizes)

    def step(before: tuple[Tensor, ...], inputs: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        state, cell = _advance(activations, inputs, recurrent, before, projection)
        return (state, cell), state.clone()

    _, states = scan(step, start, projected.transpose(0, 1))
    result: Tensor = states.transpose(0, 1)
    return result


def _advance(
    activations: Activations,
    inputs: Tensor,
    recurrent: Tensor,
    before: tuple[Tensor, ...],
    projection: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Take one step as ``cells.advance`` does; no shape depends on the batch.

    A shape that did would be one more input of the loop's body, which the ONNX exporter of torch
    2.13 does not take.
    """
    state, cell = before
    forget, output, candidate, *more = (inputs + state @ recurrent).chunk(activations.gates, -1)
    forget, output = activations.gate(forget), activations.gate(output)
    candidate = activations.squash(candidate)
    if activations.gates == GATES:
        cell = torch.lerp(candidate, cell, forget)
    else:
        cell = forget * cell + activations.gate(more[0]) * candidate
    hidden = output * activations.squash(cell)
    return hidden if projection is None else hidden @ projection, cell


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
    model = trained.model
    if isinstance(model, UserModel):
        module = model.module
        module.load_state_dict(trained.parameters, strict=False)
    else:
        module = ModelFunction(model, trained.parameters)
    example = torch.zeros(_EXAMPLE, dtype=torch.int64)
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(
                module.eval(), (example,), dynamic_shapes=(_dimensions(trained),)
            )
    except Exception as error:
        if isinstance(model, UserModel):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            reason = reason.partition(" For more information")[0]  # how to debug torch
            raise UserError(
                f"{model.path} cannot be exported with any batch and time ({reason}); export it by "
                "your own code, from the parameters in model.safetensors"
            ) from error
        raise


def _dimensions(trained: TrainedModel) -> dict[int, Any]:
    return {0: Dim("batch"), 1: Dim("time", max=trained.longest)}


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
