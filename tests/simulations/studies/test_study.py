"""Studies as data: TOML and back, combinations, and errors."""

import math
from pathlib import Path

import pytest

from fedsi import UserError
from server.runs.settled import settled_as
from simulations.studies.ready import ready_names, ready_study
from simulations.studies.study import Study

SWEEP = """
preset = "smoke"
tune = ["server.learning_rate", "privacy.clip_norm"]
seeds = 2

[experiment.privacy]
mechanism = "gaussian"
noise_multiplier = 1.0

[experiment.server]
sampling = "poisson"
averaging = "uniform"

[[axes]]
key = "server.learning_rate"
values = [0.01, 0.1]

[[axes]]
key = "privacy.clip_norm"
values = [0.3, 1]
"""


@pytest.mark.parametrize("name", ready_names())
def test_ready_studies_are_valid_and_go_through_toml(name: str) -> None:
    study = ready_study(name)
    assert Study.from_toml(study.to_toml()) == study
    assert len({trial.name for trial in study.trials()}) == len(study.trials())


def test_a_preset_is_changed_by_a_table() -> None:
    study = Study.from_toml(SWEEP)
    assert Study.from_toml(study.to_toml()) == study
    trials = study.trials()
    assert [trial.name for trial in trials[:2]] == [
        "learning_rate0.01-clip_norm0.3-seed0", "learning_rate0.01-clip_norm1-seed0",
    ]  # fmt: skip
    assert len(trials) == 8
    last = trials[-1].experiment
    assert (last.server.learning_rate, last.privacy.clip_norm, last.seed) == (0.1, 1, 1)
    assert last.data.population == 200  # the preset's


def test_keys_of_the_same_name_are_told_apart_in_the_names_of_runs() -> None:
    study = Study(
        axes=[
            {"key": "client.learning_rate", "values": [0.1]},
            {"key": "server.learning_rate", "values": [0.5]},
            {"key": "server.cohort_size", "values": [3]},
        ]
    )
    (trial,) = study.trials()
    assert trial.name == "client.learning_rate0.1-server.learning_rate0.5-cohort_size3-seed0"


def test_an_experiment_may_be_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text("[server]\nrounds = 7\n")
    (tmp_path / "s.toml").write_text('experiment = "e.toml"\n')
    study = Study.from_file(tmp_path / "s.toml")
    assert [trial.experiment.server.rounds for trial in study.trials()] == [7]
    assert [trial.name for trial in study.trials()] == ["seed0"]


def test_an_axis_may_set_several_keys() -> None:
    levels = ready_study("tradeoff").updated(seeds=1).trials()
    first = levels[0]
    second = next(trial for trial in levels if trial.points[1].value == 8)
    assert first.points[1].value == math.inf
    assert first.name == "cifg-epsiloninf-server-lr0.003-seed0"
    assert first.experiment.privacy.noise_multiplier == 0
    assert second.experiment.privacy.noise_multiplier is None
    assert second.experiment.privacy.target_epsilon == 8


def random(draws: int, **more: object) -> Study:
    axes = [
        {"key": "model.architecture", "values": ["cifg", "si_cifg"]},
        {"key": "client.learning_rate", "low": 0.1, "high": 10},
        {"key": "client.batch_size", "low": 4, "high": 32, "scale": "linear"},
    ]
    tune = ["client.learning_rate", "client.batch_size"]
    values = {"design": "random", "draws": draws, "tune": tune, "compare": ["model.architecture"]}
    return Study(axes=axes, **{**values, **more})


def test_draws_are_the_same_for_all_arms_and_a_beginning_of_more() -> None:
    few, many = random(3).combinations(), random(6).combinations()
    assert [points[1:] for points in few[:3]] == [points[1:] for points in few[3:]]
    assert many[:3] == few[:3]
    values = [point.value for points in many for point in points[1:]]
    assert all(0.1 <= float(value) <= 32 for value in values)
    assert all(isinstance(points[2].value, int) for points in many)
    assert random(3).combinations() == few


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ('[[axes]]\nkey = "client.lr"\nvalues = [1]', "did you mean client.learning_rate?"),
        ('[[axes]]\nkey = "seed"\nvalues = [1]', "set seeds to their number"),
        ('[[axes]]\nkey = "client.epochs"\nvalues = []', "client.epochs has no values"),
        ('[[axes]]\nkey = "client.epochs"\nvalues = [1, 1]', "the value 1 twice"),
        ('[[axes]]\nkey = "client.epochs"\nvalue = [1]', "no key axes.0.value; did you mean"),
        ('[[axes]]\nname = "a"\nvalues = [1]', "needs a name and changes together"),
        ('[[axes]]\nname = "a"\nvalues = [1]\nchanges = [{}, {}]', "1 values and 2 changes"),
        ('[[axes]]\nvalues = [1]', "either a key"),
        (
            '[[axes]]\nkey = "client.epochs"\nvalues = [1]\n[[axes]]\nname = "a"\nvalues = [1]\n'
            'changes = [{"client.epochs" = 2}]',
            "client.epochs and a both set client.epochs",
        ),
        (
            '[[axes]]\nname = "x"\nlabel = ""\nvalues = ["a", "a-b"]\n'
            'changes = [{"client.epochs" = 1}, {"client.epochs" = 2}]\n'
            '[[axes]]\nname = "y"\nlabel = ""\nvalues = ["b-c", "c"]\n'
            'changes = [{"client.batch_size" = 1}, {"client.batch_size" = 2}]',
            "the trials of x = a, y = b-c and x = a-b, y = c would share the folder a-b-c-seed0",
        ),
        ('tune = ["x"]', "tune names x, and the axes are none"),
        ('[[axes]]\nkey = "client.epochs"\nlow = 1\nhigh = 2', "a range, which needs design"),
        ("seed = 3", "did you mean seeds?"),
        ("seeds = 0", "seeds = 0 is not allowed"),
        ('design = "random"', "needs draws"),
        ('draws = 2', "draws has no effect with design = grid"),
        ("factor = 2", "factor has no effect with design = grid"),
        ('preset = "smok"', "did you mean smoke?"),
        ("experiment = 3", "neither a table of keys nor a path"),
        ('experiment = "none.toml"', "cannot read the experiment none.toml"),
        ("axes = 3", "axes = 3 is not allowed"),
        ("seeds = ", "is not valid TOML"),
        ('name = "a/b"', "name = 'a/b' is not allowed"),
    ],
)  # fmt: skip
def test_bad_input(toml: str, expected: str) -> None:
    with pytest.raises(UserError) as raised:
        Study.from_toml(toml)
    assert expected in str(raised.value)
    assert str(raised.value).startswith("the study")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"axes": [{"key": "client.epochs", "values": [0]}]}, "client.epochs = 0 is not allowed"),
        (
            {"axes": [{"key": "privacy.clip_norm", "values": [1.0, 2.0]}]},
            "privacy.clip_norm",
        ),
        (
            {
                "axes": [
                    {"key": "model.architecture", "values": ["transformer", "cifg"]},
                    {"key": "model.positions", "values": ["rotary"]},
                ]
            },
            "model.positions=rotary has no effect with model.architecture=cifg",
        ),
    ],
)
def test_axes_that_contradict_each_other_name_the_trial(
    changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(UserError) as raised:
        Study(**changes).trials()
    assert expected in str(raised.value)
    assert str(raised.value).startswith("the trial ")


def test_halving_sets_the_rounds_itself() -> None:
    halving = {"design": "halving", "tune": ["server.rounds"]}
    axes = [{"key": "server.rounds", "values": [10, 20]}]
    with pytest.raises(UserError, match=r"halving sets server\.rounds itself"):
        Study(axes=axes, **halving)
    axes = [{"key": "client.epochs", "values": [1, 2]}]
    with pytest.raises(UserError, match="first_rounds = 1000 is not fewer"):
        Study(axes=axes, design="halving", tune=["client.epochs"], first_rounds=1000)


def test_arguments_of_a_custom_model_can_be_varied() -> None:
    axis = {"key": "model.arguments.hidden", "values": [32, 64]}
    study = Study(experiment={"model": {"architecture": "my_model:Gru"}}, axes=[axis])
    assert [dict(t.experiment.model.arguments)["hidden"] for t in study.trials()] == [32, 64]
    assert study.trials()[0].name == "hidden32-seed0"


def test_halving_ends_with_finalists_on_seeds_of_their_own() -> None:
    study = Study(
        axes=[{"key": "client.learning_rate", "values": [0.1, 0.3, 1.0, 3.0, 10.0]}],
        tune=["client.learning_rate"], design="halving", first_rounds=5, factor=2, seeds=2,
        experiment={"server": {"rounds": 15}, "seed": 7}, finalists=2, final_seeds=3,
    )  # fmt: skip
    told = [(stage.rounds, list(stage.seeds), stage.settings) for stage in study.stages()]
    assert told == [(5, [7, 8], 5), (10, [7, 8], 3), (None, [9, 10, 11], 2)]
    assert Study.from_toml(study.to_toml()) == study
    usual = study.updated(finalists=None, final_seeds=None).stages()[-1]
    assert (list(usual.seeds), usual.settings) == ([7, 8], 2)
    with pytest.raises(UserError, match="finalists has no effect with design = grid"):
        Study(finalists=2)


def test_brackets_without_end_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("x = " + "[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.toml nests brackets too deeply"):
        Study.from_file(path)


def test_a_run_that_noted_its_teachers_hash_is_the_studys() -> None:
    """The files of a run have the hash; a study names the teacher alone."""
    trial = ready_study("distillation").trials()[0]
    begun = trial.experiment.updated({"algorithm.teacher_sha256": "0" * 64})
    assert not trial.experiment.continues(begun)
    assert settled_as(trial.experiment, begun) == begun
    other = begun.updated({"algorithm.teacher_sha256": "1" * 64})
    assert settled_as(other, begun) == other, "the hash that an experiment names is kept"
