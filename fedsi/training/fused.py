"""One step of local SGD without autograd: packed batch, gradients by hand, updates in place.

Where no gradient has to be known before it is applied, that is without clipping, every matrix
product writes straight into the parameters. The natural twin, ``LanguageModel`` under autograd, is
what the tests hold this to.
"""

import torch
from torch import Tensor

from fedsi.data.protocol import Tokens
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.models.language_model import SMALLEST_SQUARE, LanguageModel
from fedsi.models.parameters import Parameters
from fedsi.training.fused_cells import run_backward, run_forward
from fedsi.training.fused_output import Update, train_output
from fedsi.training.packing import PackedBatch, pack
from fedsi.training.products import Products
from fedsi.training.step_scale import is_clipped, step_scale
from fedsi.training.workspace import Workspace


def has_gradient_by_hand(settings: ModelSettings) -> bool:
    """Whether ``FusedSgd`` can train a recurrent model."""
    return settings.architecture in {"cifg", "si_cifg"} and not settings.recurrent_projection


class FusedSgd:
    """Takes SGD steps on parameters in place, in memory that is used again for each step.

    Args:
        model: The model.
        settings: Local SGD.
        parameters: What is trained, ``[parameters]``.
    """

    def __init__(self, model: LanguageModel, settings: ClientSettings, parameters: Tensor) -> None:
        self._model = model
        self._settings = settings
        self._products = Products(settings)
        self._space = Workspace(parameters.dtype)
        self._flat = parameters
        self._named = model.layout.views(parameters)
        self._gradient = torch.zeros_like(parameters) if is_clipped(settings) else None

    def step(self, batch: Tokens) -> tuple[float, int]:
        """Take one step, ``theta <- (1 - eta lambda) theta - eta clip(g)``.

        Args:
            batch: ``[batch, time + 1]``.

        Returns:
            The sum of the targets' losses before the step, in nats, and their number.
        """
        packed = pack(batch)
        positions = len(packed.targets)
        rate, decay = self._settings.learning_rate, self._settings.weight_decay
        if self._gradient is None:
            update = Update(self._products, 1.0 - rate * decay, -rate / positions)
            return self._run(packed, self._named, update), positions
        self._gradient.zero_()
        into = self._model.layout.views(self._gradient)
        loss = self._run(packed, into, Update(self._products, 1.0, 1.0 / positions))
        scale = step_scale(self._settings, self._gradient, self._flat)
        if decay:
            self._flat.mul_(1.0 - rate * decay)
        self._flat.add_(self._gradient, alpha=-rate * scale)
        return loss, positions

    def _run(self, packed: PackedBatch, into: Parameters, update: Update) -> float:
        """Run forwards and backwards, updating ``into``; return the sum of the losses."""
        named, space, settings = self._named, self._space, self._model.settings
        products = self._products
        recurrent = named["cell.recurrent"]
        vectors, scale = self._look_up(packed)
        gates = space.take("gates", len(vectors), recurrent.shape[1])
        gates.copy_(named["cell.bias"])
        products.update(gates, vectors, named["cell.kernel"], keep=1.0)
        trace = run_forward(settings.architecture, packed, gates, recurrent, products, space)
        loss, grad = self._head(packed, trace.hidden, into, update)
        grad_gates = run_backward(
            settings.architecture, packed, trace, grad, recurrent, products, space
        )
        grad_vectors = space.take("grad_vectors", *vectors.shape)
        products.inner(grad_vectors, grad_gates, named["cell.kernel"])
        update.product(into["cell.kernel"], vectors.t(), grad_gates)
        update.total(into["cell.bias"], grad_gates)
        before = trace.hidden.index_select(0, packed.before)
        update.product(into["cell.recurrent"], before.t(), grad_gates[packed.sizes[0] :])
        if scale is not None:
            inner = (grad_vectors * vectors).mean(-1, keepdim=True)
            grad_vectors.addcmul_(vectors, inner, value=-1).mul_(scale)
        if update.keep != 1.0 and not settings.tied_output:
            into["embedding"].mul_(update.keep)
        into["embedding"].index_add_(0, packed.inputs, grad_vectors, alpha=update.rate)
        return loss

    def _look_up(self, packed: PackedBatch) -> tuple[Tensor, Tensor | None]:
        """Return the words' vectors, and what they were scaled by."""
        embedding = self._named["embedding"]
        vectors = self._space.take("vectors", len(packed.inputs), embedding.shape[1])
        torch.index_select(embedding, 0, packed.inputs, out=vectors)
        if self._model.settings.embedding_normalisation == "none":
            return vectors, None
        scale = vectors.square().mean(-1, keepdim=True).clamp_min_(SMALLEST_SQUARE).rsqrt_()
        return vectors.mul_(scale), scale

    def _head(
        self, packed: PackedBatch, hidden: Tensor, into: Parameters, update: Update
    ) -> tuple[float, Tensor]:
        """Return the sum of the losses and its gradient with respect to the hidden states."""
        named, space, settings = self._named, self._space, self._model.settings
        states = hidden
        if settings.projection:
            weight = named["projection.weight"]
            states = space.take("states", len(hidden), weight.shape[1])
            states.copy_(named["projection.bias"])
            self._products.update(states, hidden, weight, keep=1.0)
        key = "embedding" if settings.tied_output else "output.weight"
        loss, grad = train_output(
            states,
            named[key].t() if settings.tied_output else named[key],
            named["output.bias"],
            packed.targets,
            (into[key].t() if settings.tied_output else into[key], into["output.bias"]),
            update,
            space,
        )
        if not settings.projection:
            return loss, grad
        grad_hidden = space.take("grad_hidden", *hidden.shape)
        self._products.inner(grad_hidden, grad, named["projection.weight"])
        update.product(into["projection.weight"], hidden.t(), grad)
        update.total(into["projection.bias"], grad)
        return loss, grad_hidden
