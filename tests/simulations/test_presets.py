"""Presets load, and those named for a size have it."""

import json
from pathlib import Path

import pytest

from fedsi.data.corpus import silent
from fedsi.data.prepare import open_population, prepare
from fedsi.models.build import build_model
from simulations import simulate
from simulations.cli.main import main
from simulations.evaluation import baselines_of
from simulations.presets import SECONDS, load_preset, preset_names, what_it_is
from tests.conftest import shared_file

SPECIAL_TOKENS = 4


def parameters_of(name: str) -> int:
    experiment = load_preset(name)
    vocabulary = experiment.data.vocabulary_size + SPECIAL_TOKENS
    return build_model(experiment, vocabulary).layout.size


@pytest.mark.parametrize("name", preset_names())
def test_presets_load(name: str) -> None:
    assert load_preset(name).seed == 0


def test_the_stack_overflow_models() -> None:
    assert parameters_of("stackoverflow_cifg") == 3_536_858
    assert parameters_of("stackoverflow_transformer") == 3_555_860


def test_the_19_million_cifg() -> None:
    tokens, size, hidden = 4000, 1024, 2048
    published = tokens * size + 3 * (2 * size + 1) * hidden + hidden * size
    assert published == pytest.approx(18.78e6, abs=5e3)
    output_bias = tokens
    assert parameters_of("cifg_19m") == published + output_bias == 18_786_208


def test_the_cifg_that_a_phone_can_train() -> None:
    tokens, size, hidden = 4000, 256, 2048
    gates, output_bias = 3 * hidden, tokens
    cell = gates * (size + size + 1) + hidden * size
    assert parameters_of("cifg_4_7m") == tokens * size + cell + output_bias == 4_704_160
    assert parameters_of("cifg_4_7m") < 10**7


def test_the_21_million_transformer() -> None:
    tokens, size, inner, layers = 4000, 512, 2048, 6
    published = tokens * size + layers * (4 * size * size + 2 * size * inner)
    assert published == pytest.approx(20.92e6, abs=5e3)
    output_bias, norms = tokens, (2 * layers + 1) * 2 * size
    assert parameters_of("transformer_21m") == published + output_bias + norms == 20_939_680


def test_each_preset_says_what_it_is() -> None:
    assert set(SECONDS) == set(preset_names())
    for name in preset_names():
        assert what_it_is(name).endswith(".")
        assert len(what_it_is(name)) < 90


@pytest.mark.slow  # three minutes of a processor
def test_the_keyboard_model_beats_a_trigram(cache: Path) -> None:
    corpus = str(shared_file("shakespeare/shakespeare.jsonl"))
    experiment = load_preset("keyboard").updated({"data.corpus": corpus})
    population = open_population(prepare(experiment.data, cache))
    trigram = baselines_of(experiment, population, cache, silent)
    assert trigram
    loss = simulate(experiment, cache=cache).summary.metric("loss")
    assert loss < trigram.loss("trigram") - 0.02


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    found = {one["preset"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(found) == set(preset_names())
    assert found["cifg_4_7m"]["parameters"] == 4_704_160
    assert main(["presets"]) == 0
    assert "4,704,160" in capsys.readouterr().out
