"""A pass of CIFG and SI-CIFG, forwards and backwards, over a packed batch."""

from torch import Tensor

from fedsi.data.protocol import Tokens
from fedsi.models.language_model import LanguageModel
from fedsi.models.parameters import Parameters
from fedsi.training.fused_cells import run_backward, run_forward
from fedsi.training.fused_embedding import look_up, train_embedding
from fedsi.training.fused_output import Update, train_model_output
from fedsi.training.packing import PackedBatch, pack
from fedsi.training.workspace import Workspace


class RecurrentPass:
    """Runs a recurrent model and updates what it is told.

    Args:
        model: The model.
        named: Its parameters.
    """

    def __init__(self, model: LanguageModel, named: Parameters) -> None:
        self._settings = model.settings
        self._named = named
        self._space = Workspace(named["embedding"].dtype)

    def run(self, batch: Tokens, into: Parameters, update: Update) -> float:
        """Run forwards and backwards, updating ``into``; return the sum of the losses."""
        named, space, settings = self._named, self._space, self._settings
        packed = pack(batch)
        recurrent = named["cell.recurrent"]
        looked_up = look_up(settings, named, packed.inputs, space)
        vectors = looked_up[0]
        gates = space.take("gates", len(vectors), recurrent.shape[1])
        gates.copy_(named["cell.bias"])
        products = update.products
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
        train_embedding(settings, into, packed.inputs, looked_up, grad_vectors, update)
        return loss

    def _head(
        self, packed: PackedBatch, hidden: Tensor, into: Parameters, update: Update
    ) -> tuple[float, Tensor]:
        """Return the sum of the losses and its gradient with respect to the hidden states."""
        named, space, settings = self._named, self._space, self._settings
        states = hidden
        if settings.projection:
            weight = named["projection.weight"]
            states = space.take("states", len(hidden), weight.shape[1])
            states.copy_(named["projection.bias"])
            update.products.update(states, hidden, weight, keep=1.0)
        loss, grad = train_model_output(
            settings, named, states, packed.targets, into, update, space
        )
        if not settings.projection:
            return loss, grad
        grad_hidden = space.take("grad_hidden", *hidden.shape)
        update.products.inner(grad_hidden, grad, named["projection.weight"])
        update.product(into["projection.weight"], hidden.t(), grad)
        update.total(into["projection.bias"], grad)
        return loss, grad_hidden
