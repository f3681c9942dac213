"""Flower's private names for a SuperLink and a SuperNode, all in this file.

Flower 1.41 starts a process for each ServerApp and for each message to a ClientApp. Such a process
gets its work through the Runtime API, which has no public client. With it fedsi's own processes,
which start once, do this work. Importing this file takes a second, so only they do. A test checks
the version.
"""

import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import httpx
from flwr.app import Context, Error, Message
from flwr.cli.build import build_fab_from_files
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry.retry_invoker import RetryInvoker, exponential
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from clients.position import position
from fedsi.messages import REPLY_MISSING, at_client
from simulations.engines.alarm import OutOfTimeError, time_limit

POLL_SECONDS = 0.1
"""Interval between two questions for new work or new replies."""
RETRY_SECONDS = 60.0
"""Time for which a request is repeated while the other side does not answer."""
MARGIN_SECONDS = 15.0
"""Time that a node has to report by itself that its time is up; it asks for work every 3 s."""
SLOW_SECONDS = 60.0
"""Time without a reply after which a warning names the node."""
SERVER_APP, CLIENT_APP = str(TaskType.SERVER_APP), str(TaskType.CLIENT_APP)
COMPLETED, FAILED, STOPPED = SubStatus.COMPLETED, SubStatus.FAILED, SubStatus.STOPPED
REMOTE_ERRORS = (httpx.HTTPError, RunNotRunningException)
"""Exceptions by which Flower's clients report that the other side is gone or refuses."""

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_AGAIN = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.GATEWAY_TIMEOUT)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """The address of a SuperLink or a SuperNode."""

    address: str
    """Host and port."""
    insecure: bool = False
    """Whether to connect without TLS."""
    root_certificates: bytes | None = None
    """PEM; None for the system's."""


def runtime_client(
    endpoint: Endpoint, *, secret: bytes | None = None, token: str | None = None
) -> RuntimeHttpClient:
    """Return a client of the Runtime API.

    Args:
        endpoint: The address.
        secret: The shared secret with which tasks are acquired.
        token: The token of an acquired task.
    """
    interceptors: list[
        RuntimeVersionHttpInterceptor | SuperExecAuthHttpInterceptor | RuntimeTokenHttpInterceptor
    ] = [RuntimeVersionHttpInterceptor("fedsi")]
    if secret is not None:
        interceptors.append(
            SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
        )
    if token is not None:
        interceptors.append(RuntimeTokenHttpInterceptor(token))
    return RuntimeHttpClient.from_server_address(
        endpoint.address,
        endpoint.insecure,
        endpoint.root_certificates,
        interceptors=interceptors,
        retry_invoker=_patient() if token is not None else None,
    )


def bundle_of(files: Mapping[str, bytes]) -> bytes:
    """Return a Flower app bundle of some files, by path."""
    with warnings.catch_warnings():
        # Flower uses a name that one of its own dependencies is about to rename.
        warnings.simplefilter("ignore", DeprecationWarning)
        return build_fab_from_files(dict(files))[0]


def start_run(endpoint: Endpoint, bundle: bytes) -> int:
    """Submit a bundle to a SuperLink and return the run's id."""
    fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
    control = ControlHttpClient.from_server_address(
        endpoint.address,
        endpoint.insecure,
        endpoint.root_certificates,
        interceptors=[RuntimeVersionHttpInterceptor("fedsi")],
    )
    with closing(control) as client:
        return int(client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id)


def accepts(endpoint: Endpoint, secret: bytes) -> bool:
    """Whether a SuperLink or SuperNode accepts a secret."""
    with closing(runtime_client(endpoint, secret=secret)) as client:
        try:
            acquire(client, None)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in _REFUSED:
                return False
            raise
    return True


def reason_of(error: BaseException) -> str:
    """Return the reason of one of ``REMOTE_ERRORS``, short enough for a sentence."""
    if isinstance(error, RunNotRunningException):
        return "the run was ended there"
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP status {error.response.status_code}"
    return str(error).strip() or type(error).__name__


def acquire(client: RuntimeHttpClient, kind: str | None) -> tuple[Task, str] | None:
    """Return the oldest task of a kind with its token, if one waits.

    Args:
        client: A client with the secret.
        kind: ``SERVER_APP`` or ``CLIENT_APP``; None acquires nothing and only shows the secret.
    """
    found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind] if kind else []))
    return (found.task, found.token) if found.token else None


@contextmanager
def kept_alive(client: RuntimeHttpClient) -> Iterator[None]:
    """Tell the other side at intervals that the task is being worked on."""

    def beat() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except (*REMOTE_ERRORS, RuntimeError):
            return False
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield
    finally:
        sender.stop()


class RemoteGrid(HttpGrid):
    """Flower's Grid of an acquired ServerApp task; yields replies as they arrive.

    Args:
        endpoint: The SuperLink.
        token: The task's token.
    """

    def __init__(self, endpoint: Endpoint, token: str) -> None:
        super().__init__(
            endpoint.address, endpoint.insecure, endpoint.root_certificates, token=token
        )
        self._retry_invoker = _patient()
        found = self.runtime.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = found.task_id
        TaskIdentity.run_id = found.run.run_id
        TaskIdentity.node_id = context_from_proto(found.context).node_id
        self.set_run(run_from_proto(found.run))

    @property
    def runtime(self) -> RuntimeHttpClient:
        """The client of the Runtime API."""
        return self._runtime_client

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send messages and yield the replies as they arrive, until the time is up."""
        sent = list(messages)
        pushed = zip(self.push_messages(sent), sent, strict=True)
        waiting = {key: message for key, message in pushed if key}
        began = time.monotonic()
        patience, deadline = (
            began + SLOW_SECONDS,
            began + (float("inf") if timeout is None else timeout + MARGIN_SECONDS),
        )
        while waiting and time.monotonic() < deadline:
            for reply in self.pull_messages(waiting):
                waiting.pop(reply.metadata.reply_to_message_id, None)
                yield reply
            if waiting and time.monotonic() > patience:
                patience = float("inf")
                _warn_of_silence(waiting.values())
            if waiting:
                time.sleep(POLL_SECONDS)

    def finish(self, status: str, details: str = "") -> None:
        """Report how the run ended."""
        self.runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))


def _warn_of_silence(waiting: Iterable[Message]) -> None:
    """Name the nodes that take long, and what they were asked to do."""
    for message in waiting:
        log.warning(
            "node %d has not answered %s for %.0f s; is its fedsi node running?",
            message.metadata.dst_node_id,
            message.metadata.message_type,
            SLOW_SECONDS,
        )


def answer_task(
    endpoint: Endpoint,
    token: str,
    app: ClientApp,
    version: str,
    limit: Callable[[Message], float],
) -> str:
    """Let a ClientApp answer the message of an acquired task.

    Args:
        endpoint: The SuperNode.
        token: The task's token.
        app: The ClientApp of this process; the code in the run's bundle is not used.
        version: Its version, which must be the bundle's.
        limit: Returns the time limit for the reply to a message in seconds.

    Returns:
        The message's kind, and the reason for an error if there was one.
    """
    client = runtime_client(endpoint, token=token)
    try:
        with kept_alive(client):
            message, context, run, _ = pull_task_input(client)
            reply, reason = _reply(app, message, context, run, version, limit(message))
            push_message(client, reply, context)
            status = FAILED if reason else COMPLETED
            push_task_output(client=client, context=context, sub_status=status, details=reason)
            return f"{message.metadata.message_type} {reason}".strip()
    finally:
        client.close()


def _reply(
    app: ClientApp, message: Message, context: Context, run: Run, version: str, limit: float
) -> tuple[Message, str]:
    """Return the reply to a message, and the reason if it is an error."""

    def late() -> str:
        return at_client(f"it gave no answer within {limit:.4g} s", position.client)

    position.leave()
    try:
        if run.fab_version != version:
            raise ValueError(f"this node has fedsi {version} and the server {run.fab_version}")
        with time_limit(limit, lambda: f"the node failed: {late()}; start it again"):
            return app(message, context), ""
    except OutOfTimeError:
        return Message(Error(REPLY_MISSING, late()), reply_to=message), late()
    except Exception as error:
        log.exception("%s failed", message.metadata.message_type)
        reason = f"{type(error).__name__}: {error}"
        failed = Error(int(ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reason)
        return Message(failed, reply_to=message), reason


def _patient() -> RetryInvoker:
    """Return what repeats a request while the other side cannot be reached, within limits."""
    return RetryInvoker(
        wait_gen_factory=lambda: exponential(max_delay=2),
        recoverable_exceptions=(httpx.TransportError, httpx.HTTPStatusError),
        max_tries=None,
        max_time=RETRY_SECONDS,
        should_giveup=_is_final,
    )


def _is_final(error: Exception) -> bool:
    """Whether a failed request would fail again: it was refused, or the certificate is wrong."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code not in _AGAIN
    return "certificate" in str(error).lower()
