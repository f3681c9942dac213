"""The forward and backward pass of CIFG and SI-CIFG over a packed batch."""

from torch import Tensor

from fedsi.kernels.cpu.embedding import look_up, train_embedding
from fedsi.kernels.cpu.output import UpdateRule, train_model_output
from fedsi.kernels.cpu.packing import PackedBatch, pack_batch
from fedsi.kernels.cpu.recurrent_layer import run_backward, run_forward
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters
from fedsi.models.recurrent import Recurrent
from fedsi.tasks.task import Batch


class RecurrentPass:
    """Runs one forward and backward pass and applies the gradients to ``into``.

    Args:
        model: The model.
        named: Its parameters.
    """

    def __init__(self, model: Recurrent, named: Parameters) -> None:
        self._settings = model.settings
        self._named = named
        self._space = Workspace(named["embedding"].dtype)

    @staticmethod
    def multiplications(model: Recurrent, batch: Batch) -> int:
        """Return the number of multiplications in a forward pass.

        It is ``P E 3H + (P - S) H 3H + P H E (the projection) + P F V`` for P positions, S
        sentences, embedding size E, hidden size H, V words and F features of the output layer (E
        with a projection, else H). The initial state of a sentence is zero, so nothing is
        multiplied with it.
        """
        packed = pack_batch(batch)
        positions, first = len(packed.asked.targets), int(packed.sizes[0])
        embedding, hidden = model.settings.embedding_size, model.settings.hidden_size
        features = embedding if model.settings.projection else hidden
        products = 3 * hidden * (positions * embedding + (positions - first) * hidden)
        products += positions * features * model.vocabulary_size
        if model.settings.projection:
            products += positions * hidden * embedding
        return products

    def run(self, batch: Batch, into: Parameters, update: UpdateRule) -> float:
        """Run forwards and backwards, apply gradients to ``into``, return the summed losses."""
        named, space, settings = self._named, self._space, self._settings
        packed = pack_batch(batch)
        recurrent = named["cell.recurrent"]
        projection = named["projection.weight"] if settings.recurrent_projection else None
        looked_up = look_up(settings, named, packed.inputs, space)
        vectors = looked_up[0]
        gates = space.take("gates", len(vectors), recurrent.shape[1])
        gates.copy_(named["cell.bias"])
        products = update.products
        products.update(gates, vectors, named["cell.kernel"], keep=1.0)
        kernels = recurrent, projection, products, space
        trace = run_forward(settings.architecture, packed, gates, *kernels)
        loss, grad = self._head(packed, trace.state, into, update)
        grad_gates = run_backward(settings.architecture, packed, trace, grad, *kernels)
        grad_vectors = space.take("grad_vectors", *vectors.shape)
        products.inner(grad_vectors, grad_gates, named["cell.kernel"])
        update.product(into["cell.kernel"], vectors.t(), grad_gates)
        update.total(into["cell.bias"], grad_gates)
        if projection is not None:
            update.product(into["projection.weight"], trace.hidden.t(), grad)
        before = trace.state.index_select(0, packed.before)
        update.product(into["cell.recurrent"], before.t(), grad_gates[packed.sizes[0] :])
        train_embedding(settings, into, packed.inputs, looked_up, grad_vectors, update)
        return loss

    def _head(
        self, packed: PackedBatch, state: Tensor, into: Parameters, update: UpdateRule
    ) -> tuple[float, Tensor]:
        """Return the sum of the losses and its gradient with respect to the state."""
        named, space, settings = self._named, self._space, self._settings
        projects = settings.projection and not settings.recurrent_projection
        states = state
        if projects:
            weight = named["projection.weight"]
            states = space.take("states", len(state), weight.shape[1])
            states.copy_(named["projection.bias"])
            update.products.update(states, state, weight, keep=1.0)
        loss, grad = train_model_output(settings, named, states, packed.asked, into, update, space)
        if not projects:
            return loss, grad
        grad_state = space.take("grad_state", *state.shape)
        update.products.inner(grad_state, grad, named["projection.weight"])
        update.product(into["projection.weight"], state.t(), grad)
        update.total(into["projection.bias"], grad)
        return loss, grad_state
