"""A Ray cluster for a run: one of its own on this machine, or a running one by its address."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from fedsi.errors import UnfinishedError, UserError
from fedsi.extras import optional
from simulations.engines.processes import inherited_environment
from simulations.engines.ray_node import cause

_OWN = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment of Ray's processes: no usage statistics are sent, no warning of devices."""
ANSWER_SECONDS = 10.0
"""Time limit for a cluster's address to answer."""
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@contextmanager
def ray_cluster(address: str | None, processes: int) -> Iterator[Path]:
    """Connect this process to a Ray cluster within this context.

    Without an address a cluster of this machine is started and ended, and its sockets and logs are
    in a temporary folder: the path of a Unix socket has at most 107 bytes, and that of a run's
    folder may be longer. Nothing of it remains.

    Args:
        address: ``HOST:PORT`` of a running cluster, or ``auto`` for the one that this machine
            belongs to; None starts one.
        processes: Number of processes that the nodes will need together.

    Yields:
        The temporary folder of this connection.

    Raises:
        UserError: Ray is not installed, or is in use by this process, or there is no such cluster.
        UnfinishedError: Ray could not be started.
    """
    if address not in {None, "auto"}:
        _check_answers(str(address))
    ray = optional("ray", "ray")
    if ray.is_initialized():
        raise UserError(
            "this process is already connected to a Ray cluster; end that with ray.shutdown(), and "
            "name the cluster by its address instead"
        )
    environment = {"PYTHONPATH": _import_path(), **_THREADS}
    state = tempfile.mkdtemp(prefix="fedsi-ray-")
    where = {"address": address} if address else {
        "address": "local", "num_cpus": processes, "include_dashboard": False, "_temp_dir": state,
    }  # fmt: skip
    try:
        with _environment(_OWN):
            with _kept_handler(), _without_warnings(), chdir(state):
                _connect(ray, where, environment)
            yield Path(state)
    finally:
        with _without_warnings():
            ray.shutdown()
        shutil.rmtree(state, ignore_errors=True)


def _check_answers(address: str) -> None:
    """Refuse an address at which nothing answers; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise UserError(f"the address of a Ray cluster is HOST:PORT or auto, not {address}")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}; start one with ray start --head, and "
            "give the HOST:PORT that it prints"
        ) from None


def machines() -> int:
    """Return the number of the cluster's machines that have processors for tasks."""
    ray = optional("ray", "ray")
    return sum(1 for machine in ray.nodes() if machine["Resources"].get("CPU", 0) >= 1)


def _connect(ray: Any, where: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    try:
        ray.init(
            **where,
            logging_level="error",
            log_to_driver=True,
            runtime_env={"env_vars": dict(environment)},
        )
    except (OSError, RuntimeError, ValueError) as error:
        if where["address"] == "local":
            raise UnfinishedError(f"Ray could not be started: {cause(error)}") from None
        raise UserError(
            f"cannot connect to a Ray cluster at {where['address']}: {cause(error)}; start one "
            "with ray start --head, and give the HOST:PORT that it prints, on one of its machines"
        ) from None
    except SystemExit as stop:  # Ray's own handler of SIGTERM
        raise KeyboardInterrupt from stop


@contextmanager
def _kept_handler() -> Iterator[None]:
    """After this context the handler of SIGTERM is the one before it: Ray installs its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore that Ray drops the objects of processes before these have ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def _import_path() -> str:
    """Return this process's import path, fedsi's packages first and the working folder last.

    Ray puts the folder in which it is started first on the import path of its processes, where a
    user's ``server.py`` would hide fedsi's packages; so it is started in another one.
    """
    here = Path(__file__).parents[2]
    return os.pathsep.join([str(here), inherited_environment()["PYTHONPATH"], str(Path.cwd())])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within this context processes are started with some more environment variables."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
