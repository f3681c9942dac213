"""Checks of an installation: what works, what is missing for which extra, and what is broken."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from fedsi.compiler import compiled_code_folder
from fedsi.data.cache import cache_folder
from fedsi.errors import UserError
from fedsi.host_memory import machine_memory
from fedsi.threads import available_cores

State = Literal["ok", "optional", "broken"]
"""Works; missing, but only needed for an extra; needed and does not work."""
GIGABYTE = 1e9
LEAST_DISK, LEAST_MEMORY = 1 * GIGABYTE, 1 * GIGABYTE
"""Free bytes below which a run of the presets may fail."""
_COLLECTIONS = ("all", "dev")
"""Extras that only name other extras, or are for developing fedsi."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check."""

    name: str
    state: State
    seen: str
    """What was found, in words."""
    mend: str = ""
    """What to do about it; empty if nothing has to be done."""


NOT_INSTALLED = Diagnosis(
    "fedsi", "broken", "not installed as a package in this Python", "pip install fedsi"
)


def examine(cache: Path) -> list[Diagnosis]:
    """Check this installation and machine.

    Args:
        cache: The cache folder for corpora and populations.
    """
    if not _requirements():
        return [_python(), NOT_INSTALLED]
    packages = list(_packages())
    machine = [_python(), *packages, _cores(), _memory(), *_folder(cache), _compiler()]
    whole = all(finding.state != "broken" for finding in packages)
    engines = [_in_process(), _deployed()] if whole else []
    return [*machine, *engines, *_extras()]


def _python() -> Diagnosis:
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Diagnosis("python", "ok", seen)


def _packages() -> Iterator[Diagnosis]:
    """Check the packages that fedsi always needs."""
    for need in _requirements():
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            reason = _unmet(need)
            yield (
                Diagnosis(need.name, "broken", reason, f"pip install '{need.name}{need.specifier}'")
                if reason
                else Diagnosis(need.name, "ok", metadata.version(need.name))
            )


def _extras() -> Iterator[Diagnosis]:
    """Check the packages of each extra."""
    for extra in metadata.metadata("fedsi").get_all("Provides-Extra") or []:
        if extra in _COLLECTIONS:
            continue
        needs = [
            need
            for need in _requirements()
            if need.marker
            and need.marker.evaluate({"extra": extra})
            and not need.marker.evaluate({"extra": ""})
        ]
        missing = sorted(reason for need in needs if (reason := _unmet(need)))
        names = ", ".join(need.name for need in needs)
        yield (
            Diagnosis(
                f"extra {extra}", "optional", "; ".join(missing), f"pip install 'fedsi[{extra}]'"
            )
            if missing
            else Diagnosis(f"extra {extra}", "ok", f"{names} installed")
        )


def _requirements() -> list[Requirement]:
    """Return the packages that fedsi needs; empty if it is not installed as a package."""
    try:
        return [Requirement(text) for text in metadata.requires("fedsi") or []]
    except metadata.PackageNotFoundError:
        return []


def _unmet(need: Requirement) -> str:
    """Return in words why a requirement is not met, or an empty text."""
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is not installed"
    if not need.specifier.contains(version, prereleases=True):
        return f"{need.name} {version} is installed, and {need.specifier} is needed"
    inner = [Requirement(text) for text in metadata.requires(need.name) or []]
    wanted = [
        part
        for extra in need.extras
        for part in inner
        if part.marker
        and part.marker.evaluate({"extra": extra})
        and not part.marker.evaluate({"extra": ""})
    ]
    return next((reason for part in wanted if (reason := _unmet(part))), "")


def _cores() -> Diagnosis:
    limits = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    seen = f"{available_cores()} usable of {os.cpu_count()}"
    return Diagnosis("cores", "ok", ", ".join([seen, *limits]))


def _memory() -> Diagnosis:
    found = machine_memory()
    seen = f"{found / GIGABYTE:.1f} GB"
    if found < LEAST_MEMORY:
        return Diagnosis("memory", "broken", seen, "give this machine or container at least 1 GB")
    return Diagnosis("memory", "ok", seen)


def _folder(cache: Path) -> Iterator[Diagnosis]:
    """Check that the cache folder can be written, and its disk."""
    advice = "name another folder with --cache"
    try:
        folder = cache_folder(cache)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except UserError as error:
        yield Diagnosis("cache", "broken", str(error), advice)
        return
    except OSError as error:
        yield Diagnosis("cache", "broken", f"cannot write {folder}: {error.strerror}", advice)
        return
    yield Diagnosis("cache", "ok", f"{folder} can be written")
    free = shutil.disk_usage(there).free
    seen = f"{free / GIGABYTE:.1f} GB free for {folder}"
    if free < LEAST_DISK:
        yield Diagnosis("disk", "broken", seen, f"free 1 GB, or {advice}")
    else:
        yield Diagnosis("disk", "ok", seen)


def _compiler() -> Diagnosis:
    """Run a compiled function, and look for the cache of compiled code."""
    try:
        # Here, so that a package that cannot be imported is a finding and not a traceback.
        import numpy as np  # noqa: PLC0415

        from fedsi.sums.clipping import add_clipped  # noqa: PLC0415

        start, trained = np.zeros(2, np.float32), np.array([3, 4], np.float32)
        norm, _ = add_clipped(
            start, trained, np.array([[0, 2]]), np.array([2]), 1.0, np.zeros(2, np.int64)
        )
    except Exception as error:  # whatever the compiler raises
        return Diagnosis("compiler", "broken", f"{type(error).__name__}: {error}", _REINSTALL)
    if norm != 5.0:
        return Diagnosis("compiler", "broken", f"computed {norm} instead of 5", _REINSTALL)
    folder = compiled_code_folder(add_clipped)
    if folder is None:
        return Diagnosis(
            "compiler",
            "optional",
            "works, but cannot save compiled code, so that each process compiles again",
            "make the folder that fedsi is installed in writable, or set HOME",
        )
    return Diagnosis("compiler", "ok", f"works; compiled code is saved in {folder}")


_REINSTALL = "pip install --force-reinstall numba llvmlite"


def _in_process() -> Diagnosis:
    """Run one round on this machine."""
    from simulations.presets import load_preset  # noqa: PLC0415
    from simulations.simulation import simulate  # noqa: PLC0415

    one_round = load_preset("smoke").updated({"server.rounds": 1})

    def run() -> str:
        with tempfile.TemporaryDirectory(prefix="fedsi-doctor-") as folder:
            loss = simulate(one_round, cache=Path(folder)).summary.heldout_loss
        return f"ran a round; held-out loss {loss:.3f} nats"

    return _engine("in_process", run)


def _engine(name: str, run: Callable[[], str]) -> Diagnosis:
    try:
        return Diagnosis(f"engine {name}", "ok", run())
    except Exception as error:  # whatever is broken
        reason = f"{type(error).__name__}: {error}"
        return Diagnosis(f"engine {name}", "broken", reason, "pip install --force-reinstall fedsi")


def _deployed() -> Diagnosis:
    """Look for Flower's commands, with which nodes on other machines are started."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    commands = ("flower-superlink", "flower-supernode", "flwr")
    missing = [name for name in commands if shutil.which(name, path=path) is None]
    if missing:
        reason = f"{', '.join(missing)} not found on PATH"
        return Diagnosis("deployed nodes", "optional", reason, "pip install --force-reinstall flwr")
    return Diagnosis("deployed nodes", "ok", f"{', '.join(commands)} found")
