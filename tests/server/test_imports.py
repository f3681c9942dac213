import subprocess
import sys

import pytest


@pytest.mark.usefixtures("fresh_processes")
def test_the_server_loads_no_kernels() -> None:
    script = "import sys, server.app; print([m for m in sys.modules if m.split('.')[0] == 'numba'])"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
