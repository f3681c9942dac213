"""The keyboard's page and its suggestions, for browsers on this machine only.

Three fixed files and one question, ``POST /suggest`` with ``{"text": ...}``. Nothing is kept, and
nothing leaves the machine: the page may ask this server only, and a request that calls this machine
by another name, comes from another page or is too long is refused.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fedsi.errors import UserError
from fedsi.threads import torch_threads
from simulations.keyboard.typist import Typist
from simulations.loopback import HOST, NAMES, LoopbackHandler, LoopbackServer

LONGEST_REQUEST = 16_384
"""Bytes of a request's body."""
LONGEST_TEXT = 2_000
"""Characters of a text."""
_JSON = "application/json"
_FILES = {
    "/": ("keyboard.html", "text/html"),
    "/keyboard.css": ("keyboard.css", "text/css"),
    "/keyboard.js": ("keyboard.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class KeyboardServer(LoopbackServer):
    """Serves the page and the suggestions of some models.

    Args:
        port: The port; 0 takes a free one.
        typists: One or two models.

    Raises:
        UserError: The port cannot be used.
    """

    def __init__(self, port: int, typists: Sequence[Typist]) -> None:
        self.typists = typists
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {port} cannot be used: {error.strerror}; choose another port, or 0 for a "
                "free one"
            ) from error

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def suggestions(self, text: str) -> dict[str, Any]:
        """Return each model's suggestions, and how many of them two models share."""
        with torch_threads(1):
            answers = [typist.answer(text) for typist in self.typists]
        shown = [
            {"name": typist.name, "words": one.words, "milliseconds": one.milliseconds}
            for typist, one in zip(self.typists, answers, strict=True)
        ]
        shared = set(answers[0].words).intersection(*(one.words for one in answers[1:]))
        return {"models": shown, "shared": len(shared) if len(answers) > 1 else None}


class _Handler(LoopbackHandler):
    server: KeyboardServer

    def do_GET(self) -> None:  # noqa: N802 - so named by http.server
        if not self._is_from_here():
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path not in _FILES:
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            name, kind = _FILES[self.path]
            content = files("simulations.keyboard").joinpath(name).read_bytes()
            self._send(content, f"{kind}; charset=utf-8")

    def do_POST(self) -> None:  # noqa: N802 - so named by http.server
        length = self.headers.get("Content-Length", "")
        if not self._is_from_here() or self.headers.get("Content-Type") != _JSON:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path != "/suggest":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal() or int(length) > LONGEST_REQUEST:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif (text := _text_of(self.rfile.read(int(length)))) is None:
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            self._answer(text)

    def _answer(self, text: str) -> None:
        try:
            content = self.server.suggestions(text)
        except UserError as error:  # such as predictions that are not numbers
            content = {"error": str(error)}
        self._send(json.dumps(content).encode(), _JSON)

    def _is_from_here(self) -> bool:
        """Whether the request names this server, and no other page sent it."""
        hosts = {f"{name}:{self.server.server_port}" for name in NAMES}
        origins = {None, *(f"http://{host}" for host in hosts)}
        return self.headers.get("Host") in hosts and self.headers.get("Origin") in origins

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), **_HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _text_of(content: bytes) -> str | None:
    """Return the text that a request asks about, or None if it has none or too long a one."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    text = found.get("text") if isinstance(found, dict) else None
    return text if isinstance(text, str) and len(text) <= LONGEST_TEXT else None
