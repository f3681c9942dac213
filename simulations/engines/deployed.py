"""The engine of deployed nodes: a SuperLink and SuperNodes, each with its own population.

This process is the run's ServerApp. It submits the run to the SuperLink, takes it over and sends
messages through it, so rounds, results and errors appear here as in a local run. The SuperLink
passes messages on; it sees neither texts nor the run's folder.
"""

import ipaddress
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from fedsi.errors import UnfinishedError, UserError
from server.configuration import RunConfiguration
from server.observers import Observer
from simulations.engines.bundle import app_files
from simulations.engines.serving import served
from simulations.engines.table import Engine, EngineOptions, EngineResult

if TYPE_CHECKING:
    from simulations.engines import flower_remote

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Environment in which Flower sends nothing to anybody."""
HANDOVER_SECONDS = 20.0
"""Seconds in which the SuperLink must hand over the run that was submitted to it."""


def run_deployed(
    config: RunConfiguration,
    population: Path,  # noqa: ARG001  # the nodes have populations of their own
    observers: Sequence[Observer],
    options: EngineOptions,
) -> EngineResult:
    """Run the server over the SuperNodes that are connected to a SuperLink.

    Raises:
        UserError: The SuperLink's options are missing, wrong or unsafe, or it was not started with
            this secret.
        UnfinishedError: The SuperLink cannot be reached, or it stopped answering.
    """
    os.environ.update(QUIET)  # before Flower is imported, which reads it
    from simulations.engines import flower_remote  # noqa: PLC0415

    address, secret = _address(options), _secret(options)
    endpoint = flower_remote.Endpoint(address, bool(options.insecure), _certificates(options))
    try:
        _check_secret(endpoint, secret)
        grid = flower_remote.RemoteGrid(endpoint, _submitted(endpoint, secret))
        return _serve(grid, config, observers)
    except flower_remote.REMOTE_ERRORS as error:
        raise UnfinishedError(
            f"the SuperLink at {address} does not answer ({flower_remote.reason_of(error)}); start "
            f"it, and its SuperNodes, and run again{_resuming(config)}"
        ) from None


def _serve(
    grid: "flower_remote.RemoteGrid", config: RunConfiguration, observers: Sequence[Observer]
) -> EngineResult:
    """Run the server over the grid, and report to the SuperLink how the run ended."""
    from simulations.engines import flower_remote  # noqa: PLC0415

    status, details = flower_remote.FAILED, ""
    try:
        with flower_remote.kept_alive(grid.runtime):
            result = served(grid, config, observers)
        status = flower_remote.COMPLETED
    except KeyboardInterrupt:
        status, details = flower_remote.STOPPED, "interrupted"
        raise
    except Exception as error:
        details = str(error)
        raise
    finally:
        try:
            grid.finish(status, details)
        finally:
            grid.close()
    return result


def _check_secret(endpoint: "flower_remote.Endpoint", secret: bytes) -> None:
    """Refuse a SuperLink that is not ours, before anything is submitted to it.

    One that other people started, such as the one that ``flwr run`` leaves behind, either asks for
    no secret, so it accepts any, or it refuses ours.
    """
    from simulations.engines import flower_remote  # noqa: PLC0415

    if flower_remote.accepts(endpoint, secrets.token_bytes(32)):
        raise UserError(
            f"the SuperLink at {endpoint.address} asks for no secret, so it is not yours or is not "
            "safe; start it with --isolation process --superexec-auth-secret-file FILE"
        )
    if not flower_remote.accepts(endpoint, secret):
        raise UserError(
            f"the SuperLink at {endpoint.address} was started with another secret; name the file "
            "of its --superexec-auth-secret-file with --superlink-secret, or the address of your "
            "own SuperLink with --superlink"
        )


def _submitted(endpoint: "flower_remote.Endpoint", secret: bytes) -> str:
    """Submit the run and take it over; return the token of its task."""
    from simulations.engines import flower_remote  # noqa: PLC0415

    run_id = flower_remote.start_run(endpoint, flower_remote.bundle_of(app_files()))
    deadline = time.monotonic() + HANDOVER_SECONDS
    with closing(flower_remote.runtime_client(endpoint, secret=secret)) as client:
        while time.monotonic() < deadline:
            found = flower_remote.acquire(client, flower_remote.SERVER_APP)
            if found and found[0].run_id == run_id:
                return found[1]
            time.sleep(flower_remote.POLL_SECONDS)
    raise UnfinishedError(
        f"the SuperLink at {endpoint.address} did not hand over the run {run_id} within "
        f"{HANDOVER_SECONDS:.0f} s; stop other programs that serve its runs, such as "
        "flower-superexec"
    )


def _address(options: EngineOptions) -> str:
    """Return the SuperLink's address, without TLS only on this machine.

    Raises:
        UserError: It is missing, or the connection would not be safe.
    """
    address = options.superlink
    if address is None:
        raise UserError("engine = 'deployed' needs --superlink HOST:PORT, the SuperLink to use")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--superlink = {address!r} is not allowed: expected HOST:PORT")
    if options.insecure and not on_this_machine(host):
        raise UserError(
            f"--insecure is allowed only on this machine, and {host} is not; use TLS and name the "
            "certificate with --root-certificates"
        )
    if options.insecure and options.root_certificates:
        raise UserError("--insecure and --root-certificates exclude each other; leave one out")
    return address


def on_this_machine(host: str) -> bool:
    """Whether an address is a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _secret(options: EngineOptions) -> bytes:
    if options.superlink_secret is None:
        raise UserError(
            "engine = 'deployed' needs --superlink-secret FILE, the file of the SuperLink's "
            "--superexec-auth-secret-file"
        )
    return read_secret(options.superlink_secret)


def read_secret(path: Path) -> bytes:
    """Read the file of a secret.

    Raises:
        UserError: It cannot be read, or is empty.
    """
    content = _content(path, "secret")
    if not content:
        raise UserError(f"the secret {path} is empty; write one: openssl rand -hex 32 > {path}")
    return content


def _certificates(options: EngineOptions) -> bytes | None:
    path = options.root_certificates
    return _content(path, "root certificates") if path else None


def _content(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from None


def _resuming(config: RunConfiguration) -> str:
    return f" with --resume --out {config.folder}" if config.folder else ""


ENGINE = Engine(
    run_deployed,
    options=frozenset({"superlink", "superlink_secret", "root_certificates", "insecure"}),
    remote=True,
)
