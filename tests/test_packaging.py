"""Contents of the installed package, and the apps that Flower finds."""

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.common.config import flatten_dict
from flwr.serverapp import ServerApp

from fedsi import Experiment
from server.configuration import (
    EXPERIMENT,
    FOLDER,
    OVERWRITE,
    RESUME,
    SEED,
    TRUST,
    RunConfiguration,
)

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def test_flower_finds_both_apps() -> None:
    components = PROJECT["tool"]["flwr"]["app"]["components"]
    found = {}
    for key, reference in components.items():
        module, _, name = reference.partition(":")
        found[key] = getattr(importlib.import_module(module), name)
    assert isinstance(found["serverapp"], ServerApp)
    assert isinstance(found["clientapp"], ClientApp)


def test_flowers_configuration_lists_no_key_of_an_experiment() -> None:
    config = flatten_dict(PROJECT["tool"]["flwr"]["app"]["config"])
    assert RunConfiguration.from_flower(config) == RunConfiguration(Experiment())
    # Flower refuses to override a key that is not listed there.
    assert list(config) == [EXPERIMENT, SEED, FOLDER, OVERWRITE, RESUME, TRUST]


def test_the_wheel_holds_the_four_packages_only(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in files if ".dist-info" not in name}
    assert top == {"fedsi", "clients", "server", "simulations"}
    for needed in ("presets/quickstart.toml", "reports/page.html.jinja"):
        assert f"simulations/{needed}" in files
    for package in sorted(top):
        modules = {str(p.relative_to(source)) for p in (source / package).rglob("*.py")}
        assert modules <= set(files)
