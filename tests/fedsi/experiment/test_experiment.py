import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsi import Experiment, UserError
from fedsi.experiment import parse_overrides
from fedsi.experiment.effects import USED_WITH
from simulations.presets import load_preset

counts = st.integers(1, 10**6)
rates = st.floats(1e-9, 1e6)
changes = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "data.corpus": st.text(
            st.characters(codec="utf-8", categories=["L", "P", "S"]), min_size=1
        ),
        "data.vocabulary_size": counts,
        "data.max_examples_per_client": st.none() | counts,
        "data.heldout_fraction": st.floats(0.01, 0.99),
        "client.learning_rate": rates,
        "client.max_steps": st.none() | counts,
        "client.gradient_clip": st.none() | rates,
        "server.optimizer": st.sampled_from(["sgdm", "adam", "yogi", "mine:optimizer"]),
        "server.momentum": st.floats(0, 0.999),
        "devices.availability": st.sampled_from(["always", "diurnal"]),
        "devices.round_seconds": rates,
        "devices.over_selection": st.floats(1, 9),
        "devices.dropout": st.floats(0, 0.999),
        "devices.timeout": st.none() | rates,
    },
)
samplings = st.sampled_from(
    [
        {"server.sampling": "poisson", "server.cohort_cap": 7, "devices.over_selection": 1},
        {"server.sampling": "shuffled", "server.min_separation": 3, "devices.over_selection": 1},
        {"devices.availability": "trace", "devices.trace": "some/trace.csv"},
        {},
    ]
)


models = st.sampled_from(
    [
        {"model.architecture": "cifg", "model.tied_output": True},
        {"model.architecture": "transformer", "model.layers": 3, "model.positions": "fire"},
        {"model.architecture": "a_b.c:D"},
        {},
    ]
)


@given(changes, samplings, models)
def test_toml_and_flat_keys_round_trip(
    values: dict[str, Any], sampling: dict[str, Any], model: dict[str, Any]
) -> None:
    experiment = Experiment().updated(values | sampling | model)
    assert Experiment.from_toml(experiment.to_toml()) == experiment
    assert Experiment().updated(experiment.flat()) == experiment


def test_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().server.rounds = 3  # type: ignore[misc]


def test_none_is_kept_where_the_default_is_a_number() -> None:
    experiment = Experiment(data={"max_examples_per_client": None})
    assert Experiment.from_toml(experiment.to_toml()).data.max_examples_per_client is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["server.cohort_sise=3"], "no key server.cohort_sise; did you mean server.cohort_size?"),
        (["colour=1"], "no key colour; allowed are algorithm.*, client.*, "),
        (["server.rounds.x=1"], "no key server.rounds.x"),
        (
            ["model.architecture=transfomer"],
            "'transfomer' .* did you mean transformer\\? .* mamba, dual_encoder, or the",
        ),
        (["model.architecture=my_model.py"], "my_model.py' .* my_package.my_module:name"),
        (["model.architecture=folder/my_model:gru"], "my_package.my_module:name"),
        (["model.architecture=my_model:"], "my_package.my_module:name"),
        (["model.architecture=__main__:gru"], "put gru into a separate file"),
        (["server.optimizer=lamb"], "'lamb' .* expected one of sgd, .*, yogi, or the import path"),
        (["server.optimizer=math:sqrt"], "math is a module of Python itself"),
        (["server.optimizer=sgd", "server.momentum=0.5"], "server.momentum=0.5 has no effect with"),
        (["server.optimizer=adagrad", "server.second_moment_decay=0.5"], "has no effect with"),
        (["server.cohort_size=-3"], "server.cohort_size = -3 .* greater than 0"),
        (["model.hidden_size=0"], "model.hidden_size = 0 .* greater than 0"),
        (["server.rounds=2.5"], "server.rounds = 2.5 .* valid integer"),
        (["server.rounds=true"], "server.rounds = True .* valid integer"),
        (["client.learning_rate=nan"], "client.learning_rate = nan .* finite"),
        (["client.learning_rate=-1"], "client.learning_rate = -1 .* greater than 0"),
        (["data.heldout_fraction=1"], "data.heldout_fraction = 1 .* less than 1"),
        (["seed=-1"], "seed = -1 .* greater than or equal to 0"),
        (["client.max_steps=0"], "client.max_steps = 0"),
        (["server=3"], "server is a section of keys, not a key; give one"),
        (
            ["server.rounds=0", "server.cohort_sise=3", "client.learning_rate=x"],
            r"rate = 'x' is .* number \(also wrong: server\.rounds, server\.cohort_sise\)$",
        ),
        (["model.tied_output=true", "model.projection=false"], "set model.projection=true"),
        (["server.sampling=random"], "server.sampling = 'random' .* 'shuffled'"),
        (["server.cohort_cap=9"], "cohort_cap=9 has no effect with server.sampling=uniform"),
        (
            ["server.min_separation=9", "server.sampling=poisson"],
            "min_separation=9 has no effect with server.sampling=poisson",
        ),
        (
            ["devices.trace=t.csv"],
            "trace=t.csv has no effect with devices.availability=always",
        ),
        (["devices.availability=trace"], "name a CSV file with devices.trace"),
        (["devices.lowest_availability=0"], "devices.lowest_availability = 0 .* greater than 0"),
        (["devices.highest_availability=1.5"], "highest_availability = 1.5 .* equal to 1"),
        (["devices.lowest_availability=0.95"], r"\(0.95\) is more than .* \(0.9\); lower it"),
        (["devices.over_selection=0.9"], "devices.over_selection = 0.9 .* equal to 1"),
        (["devices.dropout=1"], "devices.dropout = 1 .* less than 1"),
        (["devices.trace="], "devices.trace = '' is not allowed"),
        (
            ["devices.over_selection=1.3", "server.sampling=poisson"],
            "over_selection = 1.3 needs .* server.sampling=poisson does not draw.*=1$",
        ),
        (
            ["devices.over_selection=1.3", "server.sampling=shuffled"],
            "server.sampling=shuffled does not draw",
        ),
        (
            ["client.depth_rule=2"],
            "depth_rule=2 has no effect with .*=si_cifg, which has no .*layers",
        ),
        (
            ["client.depth_rule=8", "client.weight_decay=0.5", "model.architecture=transformer"],
            "0.5 times 8, the rate that client.depth_rule=8 gives 2 layers, leaves nothing",
        ),
        (["client.relative_clip=2"], "root of client.weight_decay, which is 0"),
        (
            ["client.relative_clip=2", "client.gradient_clip=1", "client.weight_decay=0.1"],
            "leave one of them out",
        ),
        (["server.warm_up_rounds=3"], "warm_up_rounds=3 has no effect with .*=constant"),
        (["server.schedule=warm_up"], "set server.warm_up_rounds"),
        (
            ["server.schedule=warm_up", "server.warm_up_rounds=301"],
            r"\(301\) leaves too few of the server.rounds \(300\) for server.schedule=warm_up",
        ),
        (["client.warm_up_rounds=3"], "client.warm_up_rounds=3 has no effect with .*=constant"),
        (["client.schedule=warm_up"], "set client.warm_up_rounds"),
        (
            ["client.schedule=warm_up", "client.warm_up_rounds=301"],
            r"rounds \(300\) for client.sch",
        ),
        (["client.schedule=cosine", "client.weight_decay=1.0"], "= 1.0 leaves nothing of the par"),
        (["server.schedule=cosine", "server.warm_up_rounds=300"], "leaves too few"),
        (["server.schedule=cooldown", "server.warm_up_rounds=226"], "leaves too few"),
        (
            ["server.schedule=warm_up", "server.warm_up_rounds=5", "server.final_fraction=0.1"],
            "final_fraction=0.1 has no effect with server.schedule=warm_up",
        ),
        (["server.final_fraction=1.1"], "server.final_fraction = 1.1 .* equal to 1"),
        (["server.schedule=linear"], "server.schedule = 'linear' .* 'cooldown'"),
        (["server.weight_decay=70"], "= 0.015 leaves nothing of the parameters"),
    ],
)
def test_refuses(overrides: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        Experiment().updated(parse_overrides(overrides))
    assert "\n" not in str(error.value)
    for advice in re.findall(r"\bset (\w+\.\w+=\w+)", str(error.value)):
        Experiment().updated(parse_overrides([*overrides, advice]))  # it is taken


@pytest.mark.parametrize("pair", ["server.rounds", "=3", ""])
def test_an_override_is_key_and_value(pair: str) -> None:
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_overrides([pair])


def test_overrides_are_toml_where_they_can_be() -> None:
    parsed = parse_overrides(["a=1", "b=0.5", "c=true", "d=some/path.jsonl", 'e="7"', "f=x=y"])
    assert parsed == {"a": 1, "b": 0.5, "c": True, "d": "some/path.jsonl", "e": "7", "f": "x=y"}


def test_malformed_toml_names_its_source() -> None:
    with pytest.raises(UserError, match=r"my.toml is not valid TOML: .*at end of document"):
        Experiment.from_toml("server = [", source="my.toml")


@pytest.mark.parametrize(
    "changes",
    [
        {"model.architecture": "lstm"},
        {"client.example_noise_multiplier": 1.0, "server.averaging": "uniform"},
    ],
)
def test_bfloat16_is_for_gradients_by_hand(changes: dict[str, Any]) -> None:
    for architecture in ("si_cifg", "transformer"):
        given = Experiment(client={"precision": "bfloat16"}, model={"architecture": architecture})
        assert given.client.precision == "bfloat16"
    with pytest.raises(UserError, match=r"gradients by hand of cifg, si_cifg, transformer"):
        Experiment().updated({"client.precision": "bfloat16", **changes})


def test_defaults_have_the_types_of_given_values() -> None:
    """A hash of the settings must be the same for 40 and 40.0."""
    given = Experiment().updated({}).flat()
    assert repr(Experiment().flat()) == repr(given)


def test_the_depth_rule_scales_the_rate_and_leaves_with_the_depth() -> None:
    deep = Experiment(model={"architecture": "transformer", "layers": 8}, client={"depth_rule": 2})
    assert deep.local_training.learning_rate == pytest.approx(1 / 8)
    assert deep.client.learning_rate == 1
    assert deep.updated({"model.layers": 2}).local_training.learning_rate == 1
    shallow = deep.updated({"model.architecture": "cifg"})
    assert shallow.client.depth_rule is None
    with pytest.raises(UserError, match=r"depth_rule=3 has no effect"):
        deep.updated({"model.architecture": "cifg", "client.depth_rule": 3})


@pytest.mark.parametrize(
    ("preset", "change", "lost"),
    [
        (
            "addition",
            "server.schedule=constant",
            {"server.warm_up_rounds", "server.final_fraction"},
        ),
        ("addition", "server.schedule=warm_up", {"server.final_fraction"}),
        ("scratchpad", "client.schedule=constant", {"client.warm_up_rounds"}),
        ("scratchpad", "task.operation=multiplication", {"task.operands"}),
        ("scratchpad", "model.positions=learned", {"model.max_distance"}),
        ("copying", "model.architecture=cifg", {"model.initialisation"}),
        ("privacy_quickstart", "privacy.mechanism=none", {"privacy.clip_norm"}),
    ],
)
def test_keys_leave_with_the_choice_that_used_them(
    preset: str, change: str, lost: set[str]
) -> None:
    """One ``--set`` is enough to choose another, unless it needs a key of its own."""
    before = load_preset(preset).flat()
    after = load_preset(preset).updated(parse_overrides([change])).flat()
    default = Experiment().flat()
    assert {key for key in lost if before[key] != after[key] == default[key]} == lost
    one = min(lost)
    with pytest.raises(UserError, match=r"has no effect with|is not defined for"):
        load_preset(preset).updated({**parse_overrides([change]), one: before[one]})


def test_choices_outside_of_tables_are_of_keys_that_exist() -> None:
    known = Experiment().flat()
    for chooser, keys in USED_WITH.items():
        section = chooser.partition(".")[0]
        assert {chooser, *(f"{section}.{key}" for key in keys)} <= known.keys()
        for choice in {choice for choices in keys.values() for choice in choices}:
            with pytest.raises(UserError) as refused:
                Experiment().updated({chooser: choice, "seed": -1})
            assert chooser not in str(refused.value)
