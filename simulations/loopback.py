"""Small HTTP servers for this machine only."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""What a request may call this machine, so that no page of another site can read it."""
_SECONDS = 5.0
"""Longest time that one request may take; others wait meanwhile."""


class LoopbackServer(HTTPServer):
    """One thread answers one request after the other."""

    request_queue_size = 8

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a reader that hung up."""


class LoopbackHandler(BaseHTTPRequestHandler):
    """Hangs up on slow requests and logs none."""

    server_version, sys_version = "fedsi", ""

    def handle(self) -> None:
        """Answer a request, or hang up after some seconds."""
        limit = threading.Timer(_SECONDS, self._hang_up)
        limit.daemon = True
        limit.start()
        try:
            super().handle()
        finally:
            limit.cancel()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - also the base's
        """Say nothing of requests."""
