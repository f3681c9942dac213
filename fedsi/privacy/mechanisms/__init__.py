"""How noise is made: one module per mechanism, one line each in ``table``."""

from fedsi.privacy.mechanisms.mechanism import Fresh, Mechanism, State
from fedsi.privacy.mechanisms.table import build

__all__ = ["Fresh", "Mechanism", "State", "build"]
