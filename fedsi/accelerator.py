"""The device on which clients are trained: the processor, or a GPU by CUDA or Apple's Metal.

All that PyTorch must be told about a GPU is told here.
"""

import os

import torch

from fedsi.errors import UserError

DEVICES = ("cpu", "cuda", "mps")
HOW = {
    "cuda": "an NVIDIA GPU, its driver, and a build of PyTorch for CUDA",
    "mps": "a Mac with Apple silicon",
}
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable that cuBLAS reads when it is loaded; without it, its products may differ
from run to run."""


def fastest() -> str:
    """Return the name of the GPU that PyTorch can use, or else ``cpu``."""
    return next((name for name in ("cuda", "mps") if _is_there(name)), "cpu")


def use(name: str) -> torch.device:
    """Return a device, set to give the same bits every time.

    PyTorch adds the gradients of embeddings with atomic operations on a GPU, in any order, unless
    it is told not to.

    Args:
        name: One of ``DEVICES``.

    Raises:
        UserError: The device is not there.
    """
    check(name)
    if name != "cpu":
        os.environ.setdefault(WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def check(name: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UserError: It is not.
    """
    if not _is_there(name):
        raise UserError(
            f"client.device={name} needs {HOW[name]}, which PyTorch {torch.__version__} does not "
            "find here; leave client.device out to train on the processor"
        )


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, which exact sums need."""
    return device.type != "mps"


def lanes(device: torch.device, asked: int) -> int:
    """Return how many clients are trained at once: as many as are asked for on a GPU, else one.

    On a processor the bits of a batched product depend on where in memory each result begins (MKL
    on AMD), and so on the client's lane. A single lane always begins at the same place.

    Args:
        device: The device.
        asked: ``client.lanes``.
    """
    return 1 if device.type == "cpu" else asked


def _is_there(name: str) -> bool:
    match name:
        case "cuda":
            return torch.cuda.is_available()
        case "mps":
            return torch.backends.mps.is_available()
        case _:
            return True
