"""Runs with different releases share no noise, and equal runs have the same noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsi import Experiment
from server.differential_privacy import privacy_of
from server.round_record import RoundRecord
from simulations import simulate
from tests.end_to_end.test_privacy import ADAPTIVE, POISSON, SHUFFLED

LOW, HIGH = 0.3, 0.6
NOISY = {"gaussian": POISSON, "blt": SHUFFLED, "adaptive": ADAPTIVE}


def trained(experiment: Experiment, cache: Path) -> tuple[NDArray[np.float32], list[RoundRecord]]:
    """Return the model of a run, flat, and its rounds."""
    records: list[RoundRecord] = []
    result = simulate(experiment, cache=cache, on_round=lambda _, one: records.append(one))
    return np.concatenate([p.numpy().ravel() for p in result.parameters.values()]), records


@pytest.mark.parametrize("name", NOISY)
def test_levels_of_noise_do_not_give_away_the_model_without(
    name: str, smoke: Experiment, cache: Path
) -> None:
    """With shared draws the model without noise would lie on the line through two noisy ones."""
    plain = {"server.rounds": 1, "server.optimizer": "sgd", "server.learning_rate": 1.0}
    one_round = smoke.updated({**NOISY[name], **plain})
    runs = {z: one_round.updated({"privacy.noise_multiplier": z}) for z in (0.0, LOW, HIGH)}
    models, records = zip(*(trained(run, cache) for run in runs.values()), strict=True)
    free, low, high = models
    priced = [privacy_of(runs[z], 180) for z in (LOW, HIGH)]
    a, b = (one.noise_multiplier for one in priced if one)
    off = (b * low - a * high) / (b - a) - free
    # Both draws have the deviation a * b / (b - a), in clip norms on the mean of ten.
    expected = 2**0.5 * a * b / (b - a) * 0.5 / 10
    assert abs(off.std() / expected - 1) < 0.1
    # Cohorts, the order of data and initial draws are paired in all three.
    assert len({(one.tokens, one.train_loss) for (one,) in records}) == 1


def test_levels_of_noise_on_devices_do_not_either(smoke: Experiment, cache: Path) -> None:
    one_step = smoke.updated(
        {
            "server.rounds": 1,
            "server.cohort_size": 1,
            "server.averaging": "uniform",
            "server.optimizer": "sgd",
            "server.learning_rate": 1.0,
            "client.learning_rate": 1.0,
            "client.max_steps": 1,
        }
    )
    free, low, high = (
        trained(one_step.updated({"client.example_noise_multiplier": z}), cache)[0]
        for z in (0.0, 1.0, 2.0)
    )
    deviation = one_step.client.example_clip_norm / one_step.client.batch_size
    off = 2 * low - high - free
    assert abs(off.std() / (8**0.5 * deviation) - 1) < 0.1


def test_counts_of_adaptive_clipping_share_no_noise(smoke: Experiment, cache: Path) -> None:
    norms = []
    for z in (LOW, HIGH):
        _, records = trained(smoke.updated({**ADAPTIVE, "privacy.noise_multiplier": z}), cache)
        norms.append(records[1].clip_norm)
    assert norms[0] != norms[1]


def corpus(path: Path, changed: int | None = None) -> None:
    """Write 40 clients, of which one may have another text."""
    with path.open("w") as file:
        for client in range(40):
            text = "other words" if client == changed else f"word{client % 7} and more words"
            for _ in range(5):
                file.write(json.dumps({"user": f"c{client:02}", "text": text}) + "\n")


def word_list(folder: Path) -> Path:
    """Write the words of these corpora."""
    path = folder / "words.txt"
    path.write_text("and\nmore\nwords\nother\n" + "".join(f"word{k}\n" for k in range(7)))
    return path


def test_corpora_that_differ_in_one_client_share_no_noise(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    words = word_list(tmp_path)
    settings: dict[str, Any] = {
        **POISSON,
        "data.corpus": str(tmp_path / "corpus.jsonl"),
        "data.vocabulary": str(words),
        "data.heldout_by": "clients",
        "server.rounds": 1,
        "server.cohort_size": 4,
        "server.optimizer": "sgd",
    }
    noises, sums = [], []
    for changed in (None, *range(3)):
        corpus(tmp_path / "corpus.jsonl", changed)
        noisy, free = (
            trained(smoke.updated({**settings, "privacy.noise_multiplier": z}), cache)[0]
            for z in (1.0, 0.0)
        )
        noises.append(noisy - free)
        sums.append(free)
    # Some of the changed clients are not in the cohort, so the sums alone would not differ.
    assert any(np.array_equal(sums[0], other) for other in sums[1:])
    correlations = np.corrcoef(noises) - np.eye(len(noises))
    assert np.abs(correlations).max() < 6 / len(noises[0]) ** 0.5


def test_names_and_evaluations_are_not_released(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    models, words = [], word_list(tmp_path)
    for name, every in (("a.jsonl", 1), ("b.jsonl", 4)):
        corpus(tmp_path / name)
        changes = {"data.corpus": str(tmp_path / name), "server.evaluate_every": every}
        small = {"data.heldout_by": "clients", "server.cohort_size": 4}
        small |= {"data.vocabulary": str(words)}
        models.append(trained(smoke.updated({**POISSON, **small, **changes}), cache)[0])
    assert models[0].tobytes() == models[1].tobytes()
