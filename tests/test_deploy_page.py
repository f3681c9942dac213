"""The page on deployed nodes: its script runs, and its services use options that exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from simulations.benchmarks.loopback import free_port
from tests.test_docs import ROOT, fenced

PAGE, FOLDER = "docs/deploy.md", ROOT / "docs/deploy"
SCRIPTS = Path(sys.executable).parent
COMMANDS = ("flower-superlink", "flower-supernode", "fedsi node")
UNITS = sorted(FOLDER.glob("*.service"))


@cache
def options_of(command: str) -> set[str]:
    """Return the options that a command's help lists."""
    words = shlex.split(command)
    help_text = subprocess.run(
        [str(SCRIPTS / words[0]), *words[1:], "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0"},
    ).stdout
    return set(re.findall(r"--[\w-]+", help_text))


def commands_in(text: str) -> list[tuple[str, set[str]]]:
    """Return the commands of a file and the options that each is given."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = [
        (name, set(re.findall(r"(?<=\s)--[\w-]+", after)))
        for name in COMMANDS
        for after in re.findall(rf"{name}((?: +[^\n]*)(?:\n      [^\n:]*)*)", joined)
    ]
    return [(name, options) for name, options in found if options]


def unknown_options(text: str) -> list[str]:
    return [
        f"{name} {option}"
        for name, options in commands_in(text)
        for option in sorted(options - options_of(name))
    ]


@pytest.mark.slow
def test_services_use_options_that_exist() -> None:
    for file in [*UNITS, FOLDER / "compose.yaml", ROOT / PAGE]:
        text = file.read_text()
        assert commands_in(text), file
        assert not unknown_options(text), file
    planted = (FOLDER / "compose.yaml").read_text().replace("--isolation", "--insulation")
    assert set(unknown_options(planted)) == {
        "flower-superlink --insulation",
        "flower-supernode --insulation",
    }


def test_every_service_of_the_compose_file_is_one_of_the_page() -> None:
    yaml = pytest.importorskip("yaml")
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"superlink", "supernode0", "supernode1", "node0", "node1"}
    for name, service in services.items():
        assert service["command"].startswith(COMMANDS), name
        assert service["restart"] == "always"
        for other in service.get("depends_on", ()):
            assert other in services
        words = shlex.split(service["command"])
        if "--node-config" in words:
            configured = words[words.index("--node-config") + 1]
            assert configured == f"population='/shards/shard-{name[-1]}'"


def test_the_image_is_built_from_files_that_exist() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    instructions = re.findall(r"^([A-Z]+) ", text, re.MULTILINE)
    assert instructions == ["FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "CMD"]
    for path in re.findall(r"/src/([\w.]+)", text):
        assert (ROOT / path).exists()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/opt/fedsi/bin/", f"{SCRIPTS}/")
        (tmp_path / unit.name.replace("@", "@0")).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    complaints = [line for line in result.stderr.splitlines() if str(tmp_path) in line]
    assert not complaints, result.stderr


@pytest.mark.slow
def test_the_page_is_a_script(tmp_path: Path) -> None:
    script = "\n".join(fenced(PAGE, "bash"))
    (tmp_path / "script.sh").write_text(script)
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PORT": str(free_port()),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    result = subprocess.run(
        ["bash", str(tmp_path / "script.sh")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    logs = "\n".join(f"{p.name}:\n{p.read_text()}" for p in (tmp_path / "logs").iterdir())
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{logs}"
    assert "finished: 2 of 2 rounds" in result.stdout + result.stderr
    assert (tmp_path / "deployed/report.html").exists()
