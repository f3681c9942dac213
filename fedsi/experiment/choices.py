"""Keys that choose a table entry, and the keys of their section that the entry uses."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.experiment.data import DataSettings
from fedsi.experiment.effects import USED_WITH
from fedsi.experiment.model import ModelSettings
from fedsi.experiment.privacy import MASKING, OWN_KEYS, PrivacySettings
from fedsi.experiment.task import TaskSettings
from fedsi.learning.algorithms.table import ALGORITHMS, algorithm_keys
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.learning.server_optimizers.table import SERVER_OPTIMIZERS, unused_keys
from fedsi.models.feedforward.table import FEEDFORWARDS, keys_of_parts
from fedsi.models.table import ARCHITECTURES, OF_ALL, architecture, architecture_keys
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.tables import Table
from fedsi.tasks.table import DATA_KEYS, TASKS, task_keys

_Section = Mapping[str, Any]


def _of_architecture(name: str, model: _Section) -> set[str]:
    used = architecture_keys(name, str(model.get("encoder")))
    unused = ModelSettings.model_fields.keys() - {"architecture", *OF_ALL, *used}
    if "layers" not in used:
        unused.add("client.depth_rule")
    if architecture(name).by_hand is None:
        unused.add("client.products")
    if model.get("initialisation") not in architecture(name).initialisations:
        unused.add("initialisation")
    return unused


def _of_encoder(_name: str, model: _Section) -> set[str]:
    return _of_architecture(str(model["architecture"]), model)


def _of_feedforward(name: str, _model: _Section) -> set[str]:
    return set(keys_of_parts() - FEEDFORWARDS[name].keys)


def _of_algorithm(name: str, _algorithm: _Section) -> set[str]:
    return AlgorithmSettings.model_fields.keys() - {"name", *algorithm_keys(name)}


def _of_client_optimizer(name: str, _client: _Section) -> set[str]:
    return {key for each in OPTIMIZERS for key in OPTIMIZERS[each].keys} - OPTIMIZERS[name].keys


def _of_server_optimizer(name: str, _server: _Section) -> Collection[str]:
    return unused_keys(name)


def _of_task(name: str, _task: _Section) -> set[str]:
    if TASKS.is_own(name):
        return set()
    unused = {
        f"task.{key}" for key in TaskSettings.model_fields.keys() - {"name", *task_keys(name)}
    }
    if TASKS[name].generation:
        unused |= {f"data.{key}" for key in DataSettings.model_fields.keys() - DATA_KEYS}
    return unused


def _of_mechanism(name: str, _privacy: _Section) -> set[str]:
    if name == "none":
        return PrivacySettings.model_fields.keys() - {"mechanism", *MASKING}
    return set(OWN_KEYS) - MECHANISMS[name].keys if name in MECHANISMS else set()


_UNUSED: dict[str, tuple[Callable[[str, _Section], Collection[str]], Table[Any] | None]] = {
    "task.name": (_of_task, TASKS),
    "model.architecture": (_of_architecture, ARCHITECTURES),
    "model.feedforward": (_of_feedforward, FEEDFORWARDS),
    "model.encoder": (_of_encoder, ARCHITECTURES),
    "algorithm.name": (_of_algorithm, ALGORITHMS),
    "client.optimizer": (_of_client_optimizer, OPTIMIZERS),
    "server.optimizer": (_of_server_optimizer, SERVER_OPTIMIZERS),
    "privacy.mechanism": (_of_mechanism, None),
}
"""By key that chooses from a table: the function that returns the keys unused by an entry, given
the other keys of its section; those of other sections with their section. It is called with the
table's names only, or with any name where there is no table."""


def keys_losing_effect(values: Mapping[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Return the keys that lose their effect through changes to other keys.

    Args:
        values: The sections of an experiment after the changes; they may be invalid.
        changes: The changes by dotted key.
    """
    lost = []
    for chooser in changes:
        section, _, key = chooser.partition(".")
        if isinstance(values[section], dict) and chooser in {*_UNUSED, *USED_WITH}:
            found = _unused_by(chooser, str(values[section][key]), values[section])
            lost += [other if "." in other else f"{section}.{other}" for other in found]
    return [key for key in lost if not any(_is_within(change, key) for change in changes)]


def _unused_by(chooser: str, name: str, section: _Section) -> list[str]:
    keys = USED_WITH.get(chooser, {}).items()
    unused = [key for key, choices in keys if name not in choices]
    if chooser in _UNUSED:
        of_entry, table = _UNUSED[chooser]
        if table is None or name in table or table.is_own(name):
            unused += sorted(of_entry(name, section))
    return unused


def _is_within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")
