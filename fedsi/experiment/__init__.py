"""The configuration of an experiment: one immutable object, validated when it is built."""

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.experiment.client import ClientSettings
from fedsi.experiment.data import DataSettings
from fedsi.experiment.devices import DeviceSettings
from fedsi.experiment.experiment import Experiment
from fedsi.experiment.field_types import Scalar
from fedsi.experiment.model import ModelSettings
from fedsi.experiment.overrides import parse_overrides
from fedsi.experiment.privacy import FEWEST_CANARIES, PrivacySettings
from fedsi.experiment.server import ServerSettings
from fedsi.experiment.task import TaskSettings

__all__ = [
    "FEWEST_CANARIES",
    "AlgorithmSettings",
    "ClientSettings",
    "DataSettings",
    "DeviceSettings",
    "Experiment",
    "ModelSettings",
    "PrivacySettings",
    "Scalar",
    "ServerSettings",
    "TaskSettings",
    "parse_overrides",
]
