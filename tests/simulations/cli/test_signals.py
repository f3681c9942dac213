"""Signals that come while a library runs that would change what they raise."""

import subprocess
import sys

CONVERTING = """
import os, signal, time
from pydantic import BaseModel, field_serializer
from simulations.cli.signals import interrupt

class Model(BaseModel):
    number: int

    @field_serializer("number")
    def convert(self, value: int) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return value

signal.signal(signal.SIGTERM, interrupt)
try:
    print(Model(number=3).model_dump(), flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_waits_for_pydantic_which_would_wrap_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONVERTING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split("\n")[:2], done.stderr) == (["{'number': 3}", "interrupted"], "")
