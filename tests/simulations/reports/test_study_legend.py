"""The common legend of a study's figures, and the names of arms in tables and sentences."""

from simulations.presets import load_preset
from simulations.reports.study_figure import study_figure
from simulations.reports.study_table import study_table
from simulations.reports.study_words import axis_words, point_words
from simulations.reports.tradeoff_figure import tradeoff_figure
from simulations.studies.axes import Axis, Point
from simulations.studies.privacy_levels import EPSILON, Level, noise_axis
from simulations.studies.results import StudyResult
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import study_result

START = "model.init_from"


def of_four() -> StudyResult:
    """Two optimizers at two clipping norms."""
    axes = (
        Axis(key="client.optimizer", values=("sgd", "adamw")),
        Axis(key="client.gradient_clip", values=(0.1, 1.0)),
    )
    study = Study(
        experiment=load_preset("smoke"), axes=axes, compare=("client.optimizer",), seeds=3
    )
    return study_result(study, {(name, clip): [5.0] * 3 for name in axes[0].values
                                for clip in axes[1].values})  # fmt: skip


def warm() -> StudyResult:
    """Random and public weights, without noise and at epsilon 8."""
    study = Study(
        experiment=load_preset("private_tuning"),
        axes=(
            Axis(key=START, values=("none", "/home/me/results/public")),
            noise_axis(EPSILON, [float("inf"), 8.0]),
        ),
        compare=(START,),
        seeds=3,
    )
    levels = {points: Level(float(points[1].value), 0.5, 0.01) for points in study.combinations()}
    losses = {tuple(p.value for p in points): [5.0] * 3 for points in study.combinations()}
    return study_result(study, losses, setting_levels=levels)


def test_a_legend_has_each_value_once_below_the_whole_keys() -> None:
    (legend,) = study_figure(of_four()).legends
    assert [text.get_text() for text in legend.get_texts()] == ["sgd", "adamw", "0.1", "1"]
    assert legend.get_title().get_text() == "colour: client.optimizer; line: client.gradient_clip"


def test_a_table_names_an_axis_in_its_head_alone() -> None:
    header, rows = study_table(of_four())
    assert header[:2] == ["gradient clip", "client optimizer"]
    assert rows[0][:2] == ["0.1", "sgd"]


def test_a_figure_of_starts_and_noise_has_a_label_for_each_start() -> None:
    (legend,) = tradeoff_figure(warm()).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["random weights", "weights of results/public"]
    assert legend.get_title().get_text() == ""


def test_a_key_keeps_its_section_where_another_section_has_such_a_key() -> None:
    assert axis_words("model.initialisation") == "initialisation"
    assert axis_words("server.optimizer") == "server optimizer"
    assert axis_words("target_epsilon") == "epsilon"
    point = Point("privacy.clip_norm", 0.3, (("privacy.clip_norm", 0.3),), "")
    assert point_words(point) == "clip norm 0.3"
