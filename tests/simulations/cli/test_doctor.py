"""``fedsi doctor`` with a sound installation, and with faults planted in it."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from simulations import doctor, simulation
from simulations.cli.main import main
from simulations.doctor import Diagnosis

SOUND = ("python", "numpy", "cores", "memory", "cache", "disk", "compiler", "engine in_process")


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def found(capsys: pytest.CaptureFixture[str], code: int, *options: str) -> dict[str, Any]:
    assert main(["doctor", "--json", *options]) == code
    values = json.loads(capsys.readouterr().out)
    assert values["works"] == (code == 0)
    return {finding["name"]: finding for finding in values["findings"]}


def planted(package: str) -> Any:
    """Return ``metadata.version`` as if a package were missing."""
    version = metadata.version

    def without(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    return without


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the engine's round, which takes seconds."""
    monkeypatch.setattr(doctor, "_in_process", lambda: Diagnosis("engine in_process", "ok", "ran"))


def test_a_sound_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "not" / "yet"
    findings = found(capsys, 0, "--cache", str(cache))
    assert {findings[name]["state"] for name in SOUND} == {"ok"}
    assert "ran a round" in findings["engine in_process"]["seen"]
    assert not cache.exists()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(simulation, "simulate", lambda *_, **__: 1 / 0)
    findings = found(capsys, 1)
    assert findings["engine in_process"]["seen"] == "ZeroDivisionError: division by zero"


@pytest.mark.usefixtures("quick")
def test_missing_packages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", planted("msgpack"))
    extra = found(capsys, 0)["extra fedjax"]
    assert (extra["state"], extra["seen"]) == ("optional", "msgpack is not installed")
    assert extra["mend"] == "pip install 'fedsi[fedjax]'"
    monkeypatch.setattr(metadata, "version", planted("scipy"))
    findings = found(capsys, 1)
    assert findings["scipy"]["state"] == "broken"
    assert findings["scipy"]["mend"].startswith("pip install 'scipy>=")
    assert "engine in_process" not in findings  # it would end in a traceback
    monkeypatch.setattr(metadata, "version", lambda _: "0.0.1")
    assert "0.0.1 is installed, and >=" in found(capsys, 1)["numpy"]["seen"]
    monkeypatch.setattr(doctor, "_requirements", list)
    assert found(capsys, 1)["fedsi"]["mend"] == "pip install fedsi"


@pytest.mark.usefixtures("quick")
def test_faults_of_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    cache = found(capsys, 1, "--cache", str(tmp_path / "file" / "cache"))["cache"]
    assert "Not a directory" in cache["seen"]
    assert cache["mend"] == "name another folder with --cache"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: _Usage(10, 10, 0))
        assert found(capsys, 1)["disk"]["seen"].startswith("0.0 GB free")
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "machine_memory", lambda: 10**8)
        assert found(capsys, 1)["memory"]["seen"] == "0.1 GB"
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "compiled_code_folder", lambda _: None)
        assert found(capsys, 0)["compiler"]["state"] == "optional"
    with monkeypatch.context() as patch:
        patch.setattr("fedsi.sums.clipping.add_clipped", lambda *_: (4.0, False))
        assert found(capsys, 1)["compiler"]["seen"] == "computed 4.0 instead of 5"
        assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "BROKEN" in printed
    assert "compiler: pip install --force-reinstall numba llvmlite" in printed
