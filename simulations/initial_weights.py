"""The weights with which a run of an experiment would begin, without a run."""

from torch import Tensor, from_numpy

from fedsi.data.population import Population
from fedsi.experiment import Experiment
from server.rounds import initial_server_state
from server.warm_start import warm_state, with_hash


def initial_weights(experiment: Experiment, population: Population) -> Tensor:
    """Return the parameters before the first round, float32 ``[parameters]``.

    Raises:
        UserError: ``model.init_from`` cannot be used.
    """
    state = initial_server_state(experiment, population.description)
    if experiment.model.init_from is not None:
        vocabulary = population.vocabulary()
        text = (vocabulary.file_name, vocabulary.file_text())
        state, _ = warm_state(with_hash(experiment), state, text)
    return from_numpy(state.parameters)
