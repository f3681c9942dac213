"""The table of server optimizers. Each is a module that ends with its ``OPTIMIZER``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment.server import ServerSettings
    from fedsi.learning.server_optimizers.optimizer import ServerOptimizer

KEYS = frozenset({"momentum", "second_moment_decay", "adaptivity"})
"""The keys ``server.*`` that some optimizers use and others do not."""

SERVER_OPTIMIZERS: "Table[ServerOptimizer]" = Table(
    "server.optimizer",
    "fedsi.learning.server_optimizers.optimizer:ServerOptimizer",
    "OPTIMIZER",
    {
        "sgd": "fedsi.learning.server_optimizers.sgd",
        "sgdm": "fedsi.learning.server_optimizers.sgdm",
        "adam": "fedsi.learning.server_optimizers.adam",
        "adagrad": "fedsi.learning.server_optimizers.adagrad",
        "yogi": "fedsi.learning.server_optimizers.yogi",
    },
    own="a ServerOptimizer of yours",
)


def unused_keys(name: str) -> frozenset[str]:
    """Return the keys that an optimizer does not use; none for a custom one, not imported here."""
    return frozenset() if SERVER_OPTIMIZERS.is_own(name) else KEYS - SERVER_OPTIMIZERS[name].keys


def optimizer_of(settings: "ServerSettings") -> "ServerOptimizer":
    """Return the optimizer in the settings.

    Raises:
        UserError: The custom optimizer cannot be used.
    """
    if SERVER_OPTIMIZERS.is_own(settings.optimizer):
        from fedsi.learning.server_optimizers.user_optimizer import checked_optimizer  # noqa: PLC0415 - only for these

        return checked_optimizer(SERVER_OPTIMIZERS[settings.optimizer], settings)
    return SERVER_OPTIMIZERS[settings.optimizer]
