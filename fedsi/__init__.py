"""Federated learning of small on-device language models: data, models, local training."""

from fedsi.errors import UserError
from fedsi.experiment import Experiment

__all__ = ["Experiment", "UserError"]
__version__ = "0.1.0"
