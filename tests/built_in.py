"""Built-in models of any architecture."""

from typing import Any

from fedsi import Experiment
from fedsi.models.build import build_model
from fedsi.models.model import Model
from fedsi.models.table import architecture_keys


def build(vocabulary_size: int, **values: Any) -> Model:
    """Return a model; keys that its architecture does not use are ignored."""
    experiment = Experiment(model=used(**values), data={"sequence_length": 1})
    return build_model(experiment, vocabulary_size)


def used(**values: Any) -> dict[str, Any]:
    """Return the keys of ``model.*`` that their architecture uses."""
    name, encoder = (values.get(key, "si_cifg") for key in ("architecture", "encoder"))
    known = {"architecture", *architecture_keys(name, encoder)}
    return {key: value for key, value in values.items() if key in known}
