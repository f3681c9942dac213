"""Shared fixtures: a small experiment, a shared cache, and real corpora if they are present."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings

from fedsi import Experiment
from fedsi.threads import torch_threads
from simulations.presets import load_preset
from tests.forced_products import CHOSEN, force_as_asked
from tests.nursery import POPEN, Nursery

settings.register_profile("fedsi", deadline=None, derandomize=True)
settings.load_profile("fedsi")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which the suite trains with the other matrix products."""
    words = "matrix products of the whole suite, in place of those usual on this processor"
    parser.addoption("--products", choices=["own", "torch"], help=words)


def pytest_configure(config: pytest.Config) -> None:
    """Force the products that were asked for, here and in the processes that are forked later."""
    if products := config.getoption("--products"):
        os.environ[CHOSEN] = products
    force_as_asked()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for populations, shared by all tests and pytest workers."""
    folder = tmp_path_factory.getbasetemp()
    # Each worker has its own folder inside that of the whole test run. Stores support two workers
    # that build the same population at the same time.
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def smoke() -> Experiment:
    """Return the smoke preset, cut to four rounds."""
    return load_preset("smoke").updated({"server.rounds": 4, "server.evaluate_every": 2})


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as clients do: pytest's workers share the cores."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def nursery() -> Iterator[None]:
    """Fork the processes of fedsi instead of starting them, which saves their imports.

    Only Linux can make a forked process the child of another one; elsewhere all are started.
    """
    if sys.platform != "linux":
        yield
        return
    nursery = Nursery()
    with nursery.in_use():
        yield
    nursery.close()


@pytest.fixture
def fresh_processes() -> Iterator[None]:
    """Start every process as usual, for tests of imports, of starting, and of the command line."""
    with patch.object(subprocess, "Popen", POPEN):
        yield


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Start a Ray cluster of this machine, or skip the test if Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*free.getsockname())
    # Not pytest's folder, because the paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="fedsi-head-") as folder:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        options = {"node-ip-address": "127.0.0.1", "port": address.partition(":")[2], "num-cpus": 2,
                   "include-dashboard": "false", "temp-dir": folder}  # fmt: skip
        head = subprocess.Popen(
            [*command, "--disable-usage-stats", *[f"--{k}={v}" for k, v in options.items()]],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert head.stdout
        assert any("Ray runtime started" in line for line in head.stdout)
        yield address
        head.terminate()
        head.communicate(timeout=60)


def shared_file(name: str) -> Path:
    """Return a corpus file from beside the project, or skip the test."""
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside this checkout")
    return path
