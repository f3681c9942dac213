"""A headless Chromium, driven through a pipe: no port, no library."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium (on Debian: apt install chromium)"
)


class Tab:
    """A page in the browser.

    Args:
        write: Descriptor for commands.
        read: Descriptor of replies and events; each message ends with a zero byte.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        found = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        command = {"id": number, "method": method, "params": parameters, **session}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                piece = os.read(self._read, 1 << 16)
                assert piece, "the browser has ended"
                self._buffer += piece
            message, _, self._buffer = self._buffer.partition(b"\0")
            reply = json.loads(message)
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]

    def open(self, address: str, width: int, height: int, *, dark: bool = False) -> None:
        """Open a page in a window of some size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition holds, for at most 20 s."""
        script = f"""new Promise((done) => {{
          const end = Date.now() + 20000;
          const look = () => {{
            let holds = false;
            try {{ holds = Boolean({condition}); }} catch (error) {{ holds = false; }}
            if (holds || Date.now() > end) done(holds); else setTimeout(look, 20);
          }};
          look();
        }})"""
        assert self.value(script), f"never: {condition}"

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        codes = {"Backspace": 8}
        code = {"windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def type(self, text: str) -> None:
        """Press the keys of a text."""
        for letter in text:
            self.press(letter)

    def picture(self, path: Path) -> None:
        """Save what the window shows."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(data["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """Start a headless Chromium with an empty profile."""
    (read_command, write), (read, write_reply) = os.pipe(), os.pipe()
    options = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
        "--no-first-run", f"--user-data-dir={profile}", "about:blank",
    )  # fmt: skip
    # Chromium reads commands from descriptor 3 and writes replies to 4.
    script = f'exec "$0" "$@" 3<&{read_command} 4>&{write_reply}'
    process = subprocess.Popen(
        ["bash", "-c", script, str(CHROMIUM), *options],
        pass_fds=(read_command, write_reply),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_command)
    os.close(write_reply)
    try:
        yield Tab(write, read)
    finally:
        os.close(write)  # the browser ends with its pipe
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        os.close(read)
