"""Users' modules as functions of parameters, their initialisation from the seed, and errors."""

from pathlib import Path

import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.model import all_parameters, count_parameters
from fedsi.models.recurrent import Recurrent
from fedsi.models.user_model import UserModel
from tests import own_models

VOCABULARY = 11
IDS = torch.arange(6).view(2, 3)


def experiment_of(architecture: str) -> Experiment:
    return Experiment(model={"architecture": architecture}, data={"sequence_length": 5})


def own(name: str) -> UserModel:
    model = build_model(experiment_of(f"tests.own_models:{name}"), VOCABULARY)
    assert isinstance(model, UserModel)
    return model


def test_built_in_architectures_are_built_as_before() -> None:
    experiment = experiment_of("cifg")
    assert build_model(experiment, VOCABULARY) == Recurrent(experiment.model, VOCABULARY)


@pytest.mark.parametrize("name", ["Gru", "Tied"])
def test_the_functions_are_those_of_the_module(name: str) -> None:
    model = own(name)
    flat = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0))
    module = getattr(own_models, name)(VOCABULARY)
    assert model.layout.size == sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        for parameter, view in zip(
            module.parameters(), model.layout.views(flat).values(), strict=True
        ):
            parameter.copy_(view)
        ids = torch.randint(VOCABULARY, (3, 4))
        parameters = model.layout.views(flat)
        logits = model.logits(parameters, model.features(parameters, ids))
        torch.testing.assert_close(logits, module(ids), rtol=1e-5, atol=1e-5)


def test_initial_parameters_are_the_modules_own_and_follow_the_seed() -> None:
    before = torch.get_rng_state()
    draws = [initial_parameters(own("Gru"), seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    views = own("Gru").layout.views(draws[0])
    assert float(views["embedding.weight"].std()) == pytest.approx(1.0, abs=0.3)  # N(0, 1)
    assert float(views["output.bias"].abs().max()) <= 8**-0.5  # uniform in +- 1 / sqrt(fan in)


def test_a_module_that_draws_from_elsewhere_has_no_initial_parameters() -> None:
    with pytest.raises(UserError, match="other initial parameters when called again with the same"):
        initial_parameters(own("other_randomness"), 0)


def test_a_buffer_of_no_number_is_the_same_when_built_again() -> None:
    assert own("unset_buffer").layout.size > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "missing",
            r"own_models.py\) has no missing, which model\.arch.* names; define it the",
        ),
        ("not_a_function", "is an int, and model.architecture names a function or class"),
        ("raises", r"raises\(11\) failed: RuntimeError: no luck \(.*own_models.py, line \d+\)$"),
        ("leaves", r"leaves\(11\) failed: SystemExit: 0 \(.*own_models.py, line \d+\)$"),
        ("no_arguments", r"no_arguments\(11\) failed: TypeError: .* 1 was given$"),
        ("nothing", "returned None; return a torch.nn.Module"),
        ("dict", "has no dict"),
        ("without_parameters", "has no parameters; there is nothing to train"),
        ("all_frozen", "freezes all of its parameters; there is nothing to train"),
        (
            "other_constants",
            "parameter embedding.weight of .* is not trained, and has other va",
        ),
        (
            "double",
            "embedding.weight of .* is torch.float64 on cpu, and clients train torch.float3",
        ),
        ("lazy", "the parameter between.weight of .* has no shape yet"),
        ("other_buffer", "the buffer noise of .* is not trained, and has other values when the mo"),
        ("dropout", "draws random numbers when it is called, as dropout does.* set its dropout"),
        ("batch_norm", "changes its buffer between.running_mean when it is called, as batch norm"),
        ("last_position", r"returned \[2, 11\] for token ids \[2, 5\]; .*, here \[2, 5, 11\]$"),
        ("a_tuple", "returned a tuple for token ids"),
        ("stateful", "gives other logits when it is called again with the same tokens"),
        ("future", "sees the tokens that it has to predict"),
        ("bidirectional", "sees the tokens that it has to predict"),
        ("too_few_words", r"too_few_words failed on token ids|returned \[2, 5, 10\]"),
        ("failing", r"failed on token ids int64 \[2, 5\]: KeyError: 'nonsense' \(.*line \d+\)$"),
        ("without_gradient", "returned a ndarray"),
    ],
)
def test_refuses_in_one_sentence(name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        own(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("def gru(:", "cannot be imported: SyntaxError: .*line 1"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(.*py, line 1\)$"),
        ("raise SystemExit(0)", r"cannot be imported: SystemExit: 0 \(.*py, line 1\)$"),
        ("import surely_missing", "cannot be imported: ModuleNotFoundError: .*surely_missing"),
        ("", "has no gru"),
    ],
)
def test_refuses_modules_that_cannot_be_imported(
    content: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_{abs(hash(content))}"
    (tmp_path / f"{module}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=expected) as error:
        build_model(experiment_of(f"{module}:gru"), VOCABULARY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["surely_missing", "tests.surely_missing", "surely.missing"])
def test_a_missing_module_says_where_to_start(module: str) -> None:
    expected = f"there is no module surely|there is no module {module}.*PYTHONPATH"
    with pytest.raises(UserError, match=expected):
        build_model(experiment_of(f"{module}:gru"), VOCABULARY)


def test_what_a_module_freezes_is_a_part_of_the_model_drawn_from_the_seed() -> None:
    first, again = own("Adapter"), own("Adapter")
    other = build_model(experiment_of("tests.own_models:Adapter").updated({"seed": 1}), VOCABULARY)
    assert set(first.layout.shapes) == {"down.weight", "up.weight"}
    assert set(first.frozen) == {"base.weight"}
    assert count_parameters(first) == VOCABULARY * 8 + 2 * 2 * 8
    assert first.frozen["base.weight"].equal(again.frozen["base.weight"])
    assert not first.frozen["base.weight"].equal(other.frozen["base.weight"])
    flat = torch.zeros(first.layout.size)
    named = all_parameters(first, flat)
    logits = first.features(first.layout.views(flat), IDS)
    module = own_models.Adapter(VOCABULARY)
    module.get_buffer("mix").copy_(first.module.get_buffer("mix"))
    module.load_state_dict(named, strict=False)
    torch.testing.assert_close(logits, module(IDS), rtol=1e-5, atol=1e-5)
    assert first.features(again.layout.views(flat), IDS).equal(logits)
