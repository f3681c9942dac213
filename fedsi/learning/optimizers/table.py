"""The table of client optimizers, ``client.optimizer``.

Modules are named, not imported, so that an experiment can be validated without loading PyTorch.
"""

from dataclasses import dataclass

from fedsi.tables import Table


@dataclass(frozen=True)
class ClientOptimizer:
    """An entry of the table."""

    build: str
    """Import path of the class, an ``Optimizer`` built from settings and parameters."""
    lanes: str
    """Import path of its twin for many clients at once, a ``LaneOptimizer``."""
    keys: frozenset[str]
    """The keys ``client.*`` that it uses and not all optimizers do."""
    vectors: int
    """Number of vectors of the parameters' size that it keeps."""
    is_linear: bool
    """Whether a step is linear in the gradient, which can then be applied piece by piece."""

    def memory(self, parameters: int) -> int:
        """Return how many numbers ``Optimizer.memory`` has for so many parameters."""
        return self.vectors * parameters + 1 if self.vectors else 0


OPTIMIZERS: Table[ClientOptimizer] = Table(
    "client.optimizer",
    "fedsi.learning.optimizers.table:ClientOptimizer",
    "OPTIMIZER",
    {
        "sgd": ClientOptimizer(
            build="fedsi.learning.optimizers.sgd:Sgd",
            lanes="fedsi.learning.optimizers.lanes:SgdLanes",
            keys=frozenset({"relative_clip"}),
            vectors=0,
            is_linear=True,
        ),
        "adamw": ClientOptimizer(
            build="fedsi.learning.optimizers.adamw:AdamW",
            lanes="fedsi.learning.optimizers.lanes:AdamWLanes",
            keys=frozenset({"momentum", "second_moment_decay", "adaptivity"}),
            vectors=2,
            is_linear=False,
        ),
        "muon": ClientOptimizer(
            build="fedsi.learning.optimizers.muon:Muon",
            lanes="fedsi.learning.optimizers.lanes:MuonLanes",
            keys=frozenset({"momentum", "second_moment_decay", "adaptivity"}),
            vectors=2,
            is_linear=False,
        ),
    },
)
