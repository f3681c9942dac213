"""Models whose bits must not change when the code is refactored.

Bits depend on the processor, so hashes are kept for the kinds of processors that they were recorded
on, and the test is skipped on others. ``python -m tests.contracts.test_same_bits`` records them,
with ``torch`` behind it those of PyTorch's products.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fedsi.kernels.cpu import product_choice, tiles
from fedsi.seeds import Purpose, generator
from server.runs.provenance import processor
from simulations import simulate
from simulations.presets import load_preset
from tests.forced_products import force

RECORDED = Path(__file__).with_name("same_bits.json")

_WORDS = [a + b for a in ("ka", "lo", "mi", "nu", "re", "so") for b in ("b", "d", "f", "g", "t")]

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "smoke": ("smoke", {}),
    "quickstart": ("quickstart", {"server.rounds": 3, "server.cohort_size": 8}),
    "private": ("privacy_quickstart", {"server.rounds": 3}),
    "blt": (
        "smoke",
        {
            "server.rounds": 4,
            "server.sampling": "shuffled",
            "server.averaging": "uniform",
            "privacy.mechanism": "blt",
            "privacy.noise_multiplier": 0.5,
        },
    ),
    "fire": (
        "smoke",
        {
            "server.rounds": 4,
            "model.architecture": "si_transformer",
            "model.embedding_size": 16,
            "model.positions": "fire",
            "model.initialisation": "paper",
        },
    ),
    "imported": ("smoke", {"server.rounds": 4, "model.architecture": "tests.own_models:Gru"}),
}


def machine() -> str:
    """Return the kind of processor and of products, by which hashes are stored."""
    found = f"{processor()}, vectors of {8 * tiles.VECTOR_BYTES} bits"
    forced = product_choice.usual_products() == product_choice.TORCH
    return f"{found}, products of PyTorch" if forced else found


def sha256_of(run: str, workers: int, folder: Path) -> str:
    """Run an experiment and return the hash of its model."""
    preset, changes = RUNS[run]
    experiment = load_preset(preset)
    if experiment.data.corpus == "pydocs":  # which depends on the installed packages
        experiment = experiment.updated({"data.corpus": str(write_corpus(folder))})
    experiment = experiment.updated(changes)
    return str(simulate(experiment, workers=workers, cache=folder).summary.model_sha256)


def write_corpus(folder: Path) -> Path:
    """Write a small, fixed corpus of meaningless words."""
    path = folder / "corpus.jsonl"
    lines = []
    for user in range(80):
        rng = generator(0, Purpose.SYNTHETIC_CLIENT, 0, user)
        for _ in range(int(rng.integers(2, 40))):
            text = " ".join(_WORDS[k] for k in rng.integers(len(_WORDS), size=8))
            lines.append(json.dumps({"user": f"u{user}", "text": text}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_has_the_bits_that_were_recorded(run: str, workers: int, tmp_path: Path) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8")).get(machine())
    if recorded is None:
        pytest.skip(f"no bits are recorded for: {machine()}")
    assert sha256_of(run, workers, tmp_path) == recorded[run]


def record() -> None:
    """Record the bits of this machine."""
    known = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        known[machine()] = {run: sha256_of(run, 1, Path(folder)) for run in RUNS}
    RECORDED.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        force(sys.argv[1])
    record()
