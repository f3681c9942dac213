"""The choice between fedsi's own matrix products and PyTorch's: ``client.products``.

Bits depend on it, so a run decides once, when it starts, and every node follows or is refused.
"""

from fedsi.errors import UserError
from fedsi.experiment import ClientSettings
from fedsi.experiment.client import UNDECIDED
from fedsi.kernels.cpu import tiles
from fedsi.messages import AVX_512

OWN, TORCH = "own", "torch"


def usual_products() -> str:
    """Return the products of this processor without a measurement.

    Only AVX-512 has the vectors that the tiles were made for. With vectors of 256 bits PyTorch's
    library was faster in every product of a step (``docs/performance.md``).
    """
    return OWN if tiles.HAS_WIDE_VECTORS else TORCH


def products_of(settings: ClientSettings) -> str:
    """Return the products that local training uses here: ``own`` or ``torch``.

    ``fastest`` is decided where a run starts; until then it means the same as ``auto``.
    """
    if settings.precision == "bfloat16":
        return OWN
    return usual_products() if settings.products in UNDECIDED else settings.products


def missing_instructions(settings: ClientSettings) -> str:
    """Return what this processor lacks to follow the settings, for a sentence, or nothing."""
    if settings.products == OWN and not tiles.HAS_WIDE_VECTORS:
        return AVX_512
    return ""


def check_processor(settings: ClientSettings) -> None:
    """Refuse products for which this processor lacks something.

    Raises:
        UserError: It does.
    """
    if missing := missing_instructions(settings):
        raise UserError(
            f"client.products={settings.products} needs a processor with {missing}, which this one "
            "lacks; compute on one that has it, or begin a run with client.products=torch"
        )
