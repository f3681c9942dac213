"""Reports of fabricated studies: verdicts, tables, figures and JSON, also of incomplete ones."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from fedsi import Experiment
from simulations.reports.findings import findings, headlines
from simulations.reports.heat_map import mapped_axes
from simulations.reports.lengths import length_verdicts, lengths_figure
from simulations.reports.study import study_page, study_report
from simulations.reports.study_figure import study_figure
from simulations.reports.study_table import study_json, study_table
from simulations.reports.study_words import number
from simulations.reports.tradeoff_figure import epsilon_places, tradeoff_figure
from simulations.studies.privacy_levels import EPSILON, NOISE, Level, level_of, noise_axis
from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.run import levels_of
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import ngrams, result, study_result
from tests.summaries import PRIVACY

ARMS = {"key": "model.architecture", "values": ["cifg", "si_cifg"], "label": ""}
RATES = {"key": "client.learning_rate", "values": [0.3, 1.0, 3.0], "label": "lr"}


def comparison(seeds: int, *, gap: float = 0.1, noise: float = 0.0) -> StudyResult:
    """Return a comparison in which SI-CIFG is better by ``gap``, and CIFG diverges at 3."""
    study = Study(
        name="comparison", axes=[ARMS, RATES], compare=["model.architecture"],
        tune=["client.learning_rate"], seeds=seeds,
    )  # fmt: skip
    losses: dict[tuple[object, ...], list[float | None]] = {}
    for name, better in (("cifg", 0.0), ("si_cifg", gap)):
        for rate, loss in ((0.3, 5.3), (1.0, 5.1), (3.0, 5.2)):
            diverges = (name, rate) == ("cifg", 3.0)
            odd = noise if name == "cifg" else 0.0
            by_seed = [loss + 0.2 * s - better + odd * (s % 2) for s in range(seeds)]
            losses[name, rate] = [None if diverges else one for one in by_seed]
    return study_result(study, losses)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ((5.1, 5.3, 5.4), ["A smaller client lr than any that was tried may be better for"]),
        ((5.4, 5.3, 5.1), ["A larger client lr than any that was tried may be better for"]),
        ((5.4, 5.1, 5.3), []),
    ],
)
def test_a_best_value_at_the_edge_of_what_was_tried_is_told(
    losses: Sequence[float], told: list[str]
) -> None:
    study = Study(axes=[RATES], tune=["client.learning_rate"])
    by_rate = {(rate,): [loss] for rate, loss in zip((0.3, 1.0, 3.0), losses, strict=True)}
    found = [one for one in findings(study_result(study, by_rate)) if "than any that" in one]
    assert [one[: len(start)] for one, start in zip(found, told, strict=True)] == told


def test_an_edge_is_that_of_what_ran() -> None:
    study = Study(axes=[{**RATES, "values": [0.1, 0.3, 1.0, 3.0]}], tune=["client.learning_rate"])
    found = findings(study_result(study, {(0.3,): [5.1], (1.0,): [5.2], (3.0,): [5.3]}))
    assert any(one.startswith("A smaller client lr than any that was tried") for one in found)


def test_runs_that_ended_early_are_told() -> None:
    study = Study(axes=[ARMS], compare=["model.architecture"])
    whole = study_result(study, {("cifg",): [5.0], ("si_cifg",): [5.1]})
    assert not any("before their last round" in one for one in findings(whole))
    first, second = whole.results
    summary = replace(second.summary, rounds=3, ended_by="server.budget_seconds")
    cut = replace(whole, results=[first, replace(second, summary=summary)])
    told = next(one for one in findings(cut) if "before their last round" in one)
    assert told.endswith(": SI-CIFG 3 of 300 in seed 0 (server.budget_seconds).")


def test_arms_of_one_architecture_can_differ_in_size() -> None:
    axis = {"key": "model.hidden_size", "values": [64, 512], "label": "hidden"}
    study = Study(axes=[axis], compare=["model.hidden_size"])
    found = study_result(study, {(64,): [5.0], (512,): [5.1]})
    results = [
        replace(one, summary=replace(one.summary, parameters=size))
        for one, size in zip(found.results, (100_000, 4_000_000), strict=True)
    ]
    sized = replace(found, results=results)
    page = study_page(study_report(sized, {}), sized, "2026-01-01")
    assert any("64 has 100,000 and 512 has 4,000,000 parameters" in one for one in page.verdict)


def test_all_corpora_of_a_study_are_named() -> None:
    axis = {"key": "data.corpus", "values": ["pydocs", "synthetic"], "label": ""}
    whole = study_result(
        Study(axes=[axis], compare=["data.corpus"]), {("pydocs",): [5.0], ("synthetic",): [5.1]}
    )
    results = [
        replace(one, summary=replace(one.summary, corpus=name, corpus_sha256=f"{name:x<64}"))
        for one, name in zip(whole.results, ("pydocs", "synthetic"), strict=True)
    ]
    report = study_report(replace(whole, results=results), {})
    assert report.title.endswith(" on pydocs and synthetic")
    told = next(one for one in report.findings if "Results are over" in one)
    assert "Corpus pydocs (SHA-256 pydocsxx" in told
    assert "Corpus synthetic (SHA-256 synthetic" in told
    assert "on targets of the experiment itself n-gram models have" in told


def test_rows_of_a_study_of_one_setting_have_names() -> None:
    study = Study(axes=[{**RATES, "values": [0.3]}], tune=["client.learning_rate"])
    report = study_report(study_result(study, {(0.3,): [5.0]}), {})
    names = [row[0] for row in report.rows]
    assert (names, report.named) == (["the experiment", "unigram", "bigram", "trigram"], 1)


def _from_the_start(one: TrialResult, untrained: float, evaluations: int) -> TrialResult:
    start = replace(one.records[0], round=0, heldout={"loss": untrained})
    return replace(one, records=[start, *one.records[-evaluations:]])


def test_curves_enter_from_above_where_untrained_models_are_far_worse() -> None:
    """Close to the trained models, or with one evaluation of these, the start stays in range."""
    study = Study(axes=[ARMS], compare=["model.architecture"])
    for untrained, evaluations, shown in ((9.0, 2, False), (6.6, 2, True), (9.0, 1, True)):
        found = study_result(study, {("cifg",): [4.9], ("si_cifg",): [4.8]})
        started = [_from_the_start(one, untrained, evaluations) for one in found.results]
        found = replace(found, results=started)
        low, high = study_figure(found).axes[0].get_ylim()
        assert (untrained < high) == shown
        assert low < 4.8
        assert high > (4.9 if evaluations == 1 else 6.5)


def test_a_caption_speaks_of_a_second_panel_only_if_there_is_one() -> None:
    alone = Study(axes=[ARMS], compare=["model.architecture"])
    report = study_report(study_result(alone, {("cifg",): [5.0], ("si_cifg",): [4.9]}), {})
    assert "varied" not in report.caption
    assert "varied" in study_report(comparison(3), {}).caption


def test_a_panel_over_a_level_holds_the_other_levels_at_their_first() -> None:
    levels = [{"key": "client.epochs", "values": [1, 2]},
              {"key": "server.rounds", "values": [100, 1000]}]  # fmt: skip
    study = Study(axes=[*levels, RATES], tune=["client.learning_rate"], seeds=3)
    losses = {(1, 100): 5.6, (1, 1000): 5.0, (2, 100): 5.4, (2, 1000): 4.9}
    found = study_result(
        study,
        {(*at, rate): [loss + worse] * 3
         for at, loss in losses.items() for rate, worse in ((1.0, 0.0), (3.0, 0.1))},
    )  # fmt: skip
    panels = study_figure(found).axes[1:]
    assert [axes.get_title() for axes in panels] == [
        "Final loss by client epochs\nat rounds 100",
        "Final loss by rounds\nat client epochs 1",
    ]
    for axes, expected in zip(panels, ([5.6, 5.4], [5.6, 5.0]), strict=True):
        (means,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert list(np.asarray(means.get_ydata())) == pytest.approx(expected)


def test_too_few_seeds_for_many_comparisons_are_one_sentence() -> None:
    names = ("cifg", "si_cifg", "lstm", "gru", "transformer")
    for count in (4, 5):
        axis = {"key": "model.architecture", "values": list(names[:count])}
        study = Study(axes=[axis], compare=["model.architecture"])
        result = study_result(study, {(name,): [5.0] for name in names[:count]})
        told = [one for one in headlines(result) if one.startswith("No claim about")]
        if count == 4:
            assert len(told) == 3
        else:
            (one,) = told
            assert one == (
                "No claim about any of the 4 differences: 1 seed, and at least 3 are needed."
            )
            report = study_report(result, {})
            assert len([one for one in report.findings if one.startswith("No claim")]) == 4
            assert [one for one in report.shown if one.startswith("No claim")] == told
            assert report.shown[-1] == report.findings[-1]


def test_the_verdict_comes_first_and_from_the_interval() -> None:
    assert findings(comparison(3))[0].startswith(
        "SI-CIFG has a lower loss than CIFG: -0.100 [-0.100, -0.100] nats, most likely word +0.000"
    )
    assert (
        "95 % intervals, t over 3 seeds; paired bootstrap over clients: -0.100 [-0.100"
        in (findings(comparison(3))[0])
    )
    unclear = findings(comparison(4, noise=-0.4))[0]
    assert unclear.startswith("No difference shown between SI-CIFG and CIFG: +0.100 [-0.")
    few = findings(comparison(2))[0]
    assert few.startswith(
        "No claim about SI-CIFG and CIFG: 2 seeds, and at least 3 are needed. SI-CIFG minus CIFG: "
        "-0.100 nats, most likely word +0.000"
    )
    useless = findings(comparison(3, gap=-2.0))
    assert useless[0].startswith("No ranking of SI-CIFG and CIFG")
    assert "Not better than the unigram model, so not useful: SI-CIFG." in useless
    text = " ".join(useless)
    assert "worse than the unigram model: client lr 0.3 (3 of 3 seeds, by up to 1.700 nats)" in text


def test_an_arms_own_name_is_left_as_it_is() -> None:
    named = {
        "name": "arm", "label": "", "values": ["gpt, small", "plain"],
        "changes": [{"model.hidden_size": 8}, {"model.hidden_size": 9}],
    }  # fmt: skip
    study = Study(axes=[named], compare=["arm"], seeds=3)
    losses = {("gpt, small",): [6.5, 6.6, 6.4], ("plain",): [6.3, 6.2, 6.4]}
    told = findings(study_result(study, losses))
    assert told[0].startswith("No ranking of plain and gpt, small: ")
    assert any(one.startswith("gpt, small: held-out loss 6.500") for one in told)
    assert any(one.endswith("so not useful: gpt, small; and plain.") for one in told)


def test_the_top_of_a_page_is_short_and_everything_else_follows() -> None:
    report = study_report(tradeoff(3), {})
    assert report.verdicts[0] == (
        "At epsilon ∞: SI-CIFG has a higher loss than CIFG: +0.200 [+0.200, +0.200] nats (95 % "
        "intervals, t over 3 seeds)."
    )
    assert "Not better than the unigram model, so not useful: CIFG at epsilon 1." in report.verdicts
    assert not [one for one in report.verdicts if "bootstrap" in one or "most likely" in one]
    assert "paired bootstrap over clients" in report.findings[0]
    best = "Best on validation clients: clip norm 0.3, server lr 0.01, whose held-out loss "
    assert study_report(sweep(), {}).verdicts[0].startswith(f"{best}is 4.900")
    longest = "At 40 FIRE has a lower loss than no positions: "
    assert study_report(lengths(), {}).verdicts[0].startswith(longest)


def test_findings_say_what_was_found_and_on_whom() -> None:
    text = " ".join(findings(comparison(3)))
    for sentence in (
        "Results are over 20 test clients; the best settings were chosen on 20 others",
        "n-gram models have: unigram 6.000, bigram 5.400 and trigram 5.300.",
        "CIFG with client lr 1: held-out loss 5.300 ± 0.497; diverged: client lr 3 (3 of 3 seeds).",
        "Rounds to a loss of 5.400 (the bigram model's): CIFG 2 (4 client seconds",
        "SI-CIFG has a lower mean loss over rates than CIFG: ",
        "± is half of the 95 % interval over 3 seeds. 2 differences were tested",
    ):
        assert sentence in text
    assert "another may change gaps, even their sign" in " ".join(findings(comparison(1)))


def test_the_table_has_a_row_for_each_arm_and_ngram_model() -> None:
    header, rows = study_table(comparison(1))
    assert header == [
        "", "best client lr", "loss", "most likely word", "among three suggestions",
        "client lr 0.3", "client lr 1", "client lr 3",
    ]  # fmt: skip
    assert rows[0] == ["CIFG", "1", "5.100", "0.100", "0.200", "5.300", "5.100", "diverged"]
    assert [row[0] for row in rows[2:]] == ["unigram", "bigram", "trigram"]
    assert rows[3][2:4] == ["5.400", "0.050"]


def test_a_sweep_has_a_row_for_each_setting() -> None:
    axes = [RATES, {"key": "client.epochs", "values": [1, 2]}]
    study = Study(name="sweep", axes=axes, tune=["client.learning_rate", "client.epochs"], seeds=3)
    losses = {
        (rate, epochs): [5.0 + rate + epochs / 10 + s / 100 for s in range(3)]
        for rate in (0.3, 1.0, 3.0)
        for epochs in (1, 2)
    }
    found = study_result(study, losses)
    header, rows = study_table(found)
    assert header[:4] == ["client lr", "client epochs", "validation loss", "loss"]
    assert [row[-1] for row in rows] == ["chosen", "", "", "", "", "", "", "", ""]
    assert findings(found)[0].startswith(
        "Client lr 0.3, client epochs 1 has a lower loss than client lr 0.3, client epochs 2: -0.1"
    )
    assert len(study_figure(found).axes) == 2


MAPPED = [
    {"key": "privacy.clip_norm", "values": [1.0, 0.1, 0.3]},
    {"key": "server.learning_rate", "values": [0.01, 0.03]},
]


def sweep() -> StudyResult:
    """Return a sweep over two keys with every kind of cell."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 1.0},
        server={"sampling": "poisson", "averaging": "uniform"},
    )
    keys = [axis["key"] for axis in MAPPED]
    study = Study(name="sweep", experiment=base, axes=MAPPED, tune=keys, seeds=3)
    losses: dict[tuple[object, ...], list[float | None]] = {
        (0.1, 0.01): [5.2, 5.3, 5.4], (0.1, 0.03): [5.1] * 3, (0.3, 0.01): [4.9] * 3,
        (0.3, 0.03): [6.5] * 3, (1.0, 0.01): [5.0, None, 5.0],
    }  # fmt: skip
    return study_result(study, losses)


def test_a_sweep_over_two_keys_is_a_map_with_the_chosen_cell_framed() -> None:
    report = study_report(sweep(), {"the last": "killed"})
    _, cells = report.figure.axes
    texts = {tuple(map(float, t.get_position())): t.get_text() for t in cells.texts}
    assert texts == {
        (0, 0): "5.300", (0, 1): "5.100", (1, 0): "4.900", (1, 1): "6.500", (2, 0): "diverged",
        (2, 1): "not\nfinished",
    }  # fmt: skip
    assert [label.get_text() for label in cells.get_xticklabels()] == ["0.1", "0.3", "1"]
    assert [label.get_text() for label in cells.get_yticklabels()] == ["0.01", "0.03"]
    patches = [patch for patch in cells.patches if isinstance(patch, Rectangle)]
    (frame,) = [patch for patch in patches if not patch.get_fill()]
    assert frame.get_bbox().contains(1, 0)
    colours = {(round(p.get_x() + 0.5), round(p.get_y() + 0.5)): to_rgba(p.get_facecolor())
               for p in patches if p.get_fill()}  # fmt: skip
    assert colours[1, 1] == colours[2, 0] == colours[2, 1]  # of no use
    light = {place: sum(colour[:3]) for place, colour in colours.items()}
    assert light[1, 0] < light[0, 1] < light[0, 0]  # the lower, the darker
    assert "5.300 ± 0.248" in report.rows[2]
    # Drawn values are no grid, and compared models no single map.
    found = sweep()
    for changes in ({"draws": 4, "design": "random"}, {"tune": found.study.tune[:1]}):
        assert mapped_axes(replace(found, study=found.study.updated(**changes))) is None


def test_a_users_model_goes_by_its_import_path() -> None:
    axes = [{**ARMS, "values": ["cifg", "my_model:gru"]}]
    study = Study(axes=axes, compare=["model.architecture"])
    found = study_result(study, {("cifg",): [5.2], ("my_model:gru",): [5.1]})
    assert study_table(found)[1][1][0] == "my_model:gru"
    (legend,) = study_figure(found).legends
    assert [text.get_text() for text in legend.get_texts()] == ["CIFG", "my_model:gru"]
    assert [text.get_text() for text in study_figure(found).axes[0].texts] == [
        "unigram 6.00",
        "bigram 5.40",
        "trigram 5.30",
    ]


@pytest.mark.parametrize("kept", [1, 2, 3, 5])
def test_reports_with_holes(kept: int) -> None:
    whole = comparison(1)
    found = StudyResult(whole.study, whole.results[:kept], whole.baselines)
    report = study_report(found, {"si_cifg-lr3-seed0": "killed"})
    cells = [cell for row in report.rows for cell in row[5:]]
    assert cells.count("not finished") == 6 - kept
    assert "Not finished, and in none of these numbers: si_cifg-lr3-seed0 (killed)." in (
        report.findings
    )
    json.dumps(report.values, allow_nan=False)


FULL = "± is half of the 95 % interval over 5 seeds."


@pytest.mark.parametrize(
    ("seeds", "lost", "told"),
    [
        (range(5), (4,), ["cannot be compared: at least one has no loss to compare.",
                          "SI-CIFG has no loss: 1 of 5 runs diverged.", FULL]),
        (range(5), range(5), ["SI-CIFG: every run diverged.", FULL]),
        ((), (), ["no loss to compare.", "SI-CIFG has no finished run.", FULL]),
        ((5, 6, 7), (), ["cannot be compared: no seed has a finished run of both.",
                         "SI-CIFG: held-out loss 5.600 ± 0.248.",
                         "± is half of the 95 % interval over the seeds that each number is of."]),
        (range(5), (), ["SI-CIFG: held-out loss 5.200 ± 0.196.", FULL]),
    ],
)  # fmt: skip
def test_what_is_said_of_an_arm_counts_its_runs(
    seeds: Sequence[int], lost: Sequence[int], told: list[str]
) -> None:
    study = Study(axes=[ARMS], compare=["model.architecture"], seeds=5)
    losses: dict[str, dict[int, float | None]] = {
        "cifg": {seed: 5.0 + seed / 10 for seed in range(5)},
        "si_cifg": {seed: None if seed in lost else 5.0 + seed / 10 for seed in seeds},
    }
    results = [
        result(study.trial(points, seed), loss)
        for points in study.combinations()
        for seed, loss in losses[str(points[0].value)].items()
    ]
    text = " ".join(findings(StudyResult(study, results, study_result(study, {}).baselines)))
    for sentence in told:
        assert sentence in text


def test_a_tuned_arm_without_a_loss_has_a_diverged_run_with_each_setting() -> None:
    study = Study(axes=[RATES], tune=["client.learning_rate"], seeds=2)
    losses: dict[object, list[float | None]] = {
        (0.3,): [5.0, None],
        (1.0,): [None, None],
        (3.0,): [None, 5.0],
    }
    text = " ".join(findings(study_result(study, losses)))
    assert "has no loss: 4 of 6 runs diverged, at least one with each setting." in text


LEVELS = (Level(math.inf, 0, 0), Level(8, 0.6, 0.001), Level(1, 1.8, 0.004))
LOSSES = {"cifg": (5.0, 5.25, 6.1), "si_cifg": (5.2, 5.2, None)}


def tradeoff(seeds: int = 1, *, extrapolated: bool = True) -> StudyResult:
    """Return a trade-off in which each seed's loss is .1 higher than the previous seed's."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform"},
    )
    axes = [ARMS, noise_axis(EPSILON, [math.inf, 8.0, 1.0]).model_dump()]
    study = Study(experiment=base, axes=axes, compare=["model.architecture"], seeds=seeds)
    losses = {
        (name, epsilon): [loss and loss + 0.1 * seed for seed in range(seeds)]
        for name, by_level in LOSSES.items()
        for epsilon, loss in zip((math.inf, 8.0, 1.0), by_level, strict=True)
    }
    costs = dict(zip(study.combinations(), LEVELS * 2, strict=True))
    return study_result(
        study, losses, privacy=replace(PRIVACY, extrapolated=extrapolated), setting_levels=costs
    )


def test_a_tradeoff_says_what_privacy_costs() -> None:
    text = " ".join(findings(tradeoff(3)))
    for sentence in (
        "At epsilon ∞: SI-CIFG has a higher loss than CIFG: +0.200",
        "At epsilon 8: SI-CIFG has a lower loss than CIFG: -0.050",
        "At epsilon 1: SI-CIFG and CIFG cannot be compared",
        "CIFG at epsilon 8 has a higher loss than CIFG at epsilon ∞: +0.250",
        "No ranking of CIFG at epsilon 1 and CIFG at epsilon ∞",
        "cohorts of 20 from 900 clients were simulated and stand for cohorts of 500 from 10,000",
        f"for {PRIVACY.adjacency} (accountant: PLD), with the gaussian mechanism",
        "Nothing was tuned: each may have a better learning rate.",
        "all 40 evaluated clients, because nothing was chosen",
    ):
        assert sentence in text
    assert "extrapolation" not in " ".join(findings(tradeoff(extrapolated=False)))


def test_a_tradeoffs_table_and_json_have_what_each_level_costs() -> None:
    header, rows = study_table(tradeoff())
    assert header[:4] == ["epsilon", "noise multiplier", "noise on the mean", ""]
    assert rows[0][:5] == ["∞", "0", "0", "CIFG", "5.000"]
    assert rows[5][:5] == ["1", "1.8", "0.004", "SI-CIFG", "diverged"]
    values = json.loads(json.dumps(study_json(tradeoff()), allow_nan=False))
    assert [place["epsilon"] for place in values["places"]] == [None, None, 8, 8, 1, 1]
    assert values["places"][5]["chosen"] is None
    assert values["runs"][0]["target_epsilon"] is None


def ways() -> StudyResult:
    """Return a trade-off of two kinds of noise, of equal epsilon and different noise."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform"},
    )
    noise = {
        "name": "noise", "label": "", "values": ["gaussian", "blt"],
        "changes": [
            {"privacy.mechanism": "gaussian", "server.sampling": "poisson"},
            {"privacy.mechanism": "blt", "server.sampling": "shuffled"},
        ],
    }  # fmt: skip
    levels = noise_axis(EPSILON, [math.inf, 2.0]).model_dump()
    study = Study(experiment=base, axes=[noise, levels], compare=["noise"])
    losses = {("gaussian", math.inf): [5.0], ("gaussian", 2.0): [5.2]}
    costs = (Level(math.inf, 0, 0), Level(2, 1, 0.001), Level(math.inf, 0, 0), Level(2, 9, 0.01))
    found = study_result(
        study,
        losses,
        privacy=PRIVACY,
        setting_levels=dict(zip(study.combinations(), costs, strict=True)),
    )
    other = replace(PRIVACY, mechanism="blt", sampling="shuffled", adjacency="zero out one client")
    of_blt = [
        result(trial, loss, privacy=other)
        for trial, loss in zip(study.trials()[2:], (5.0, 5.1), strict=True)
    ]
    return replace(found, results=[*found.results, *of_blt])


def test_arms_of_different_noise_have_their_own_costs() -> None:
    _, rows = study_table(ways())
    assert [row[:4] for row in rows[2:4]] == [
        ["2", "1", "0.001", "gaussian"],
        ["2", "9", "0.01", "blt"],
    ]
    told = " ".join(findings(ways()))
    assert "blt: Epsilon covers all rounds at delta" in told
    assert "zero out one client (accountant: PLD), with the blt mechanism and shuffled" in told
    assert "These are different guarantees" in told
    axes = tradeoff_figure(ways()).axes[0]
    assert axes.get_xlabel() == "epsilon; left: more private"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["∞", "2"]
    costs = {points: Level(n, 1, 1) for n, points in enumerate(ways().setting_levels)}
    assert "over rounds" in study_report(replace(ways(), setting_levels=costs), {}).caption


def test_a_level_costs_what_its_chosen_setting_does() -> None:
    """Of two tuned cohort sizes, the one that is chosen with noise is not the first."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform", "rounds": 50},
    )
    noise, cohorts = noise_axis(NOISE, [0.0, 1.0]), {"key": "server.cohort_size", "values": [5, 50]}
    study = Study(experiment=base, axes=[noise, cohorts], tune=["server.cohort_size"])
    losses = {(0.0, 5): 4.8, (0.0, 50): 4.9, (1.0, 5): 5.9, (1.0, 50): 5.2}
    results = [
        result(trial, loss, privacy=replace(PRIVACY, cohort_size=int(trial.points[1].value)))
        for trial, loss in zip(study.trials(), losses.values(), strict=True)
    ]
    found = StudyResult(study, results, ngrams(), levels_of(study, 900))
    first, other = (level_of(trial.experiment, 900) for trial in study.trials()[2:])
    assert first.epsilon < other.epsilon / 10
    _, rows = study_table(found)
    assert rows[1][:4] == [number(other.epsilon), "1", number(other.noise_on_mean), "50"]
    place = study_json(found)["places"][1]
    assert (place["epsilon"], place["noise_on_mean"]) == (other.epsilon, other.noise_on_mean)
    told = " ".join(findings(found))
    assert "noise multiplier 0: Epsilon covers all rounds" in told
    assert "noise multiplier 1: Epsilon covers all rounds" in told
    assert "poisson sampling of 50 from" in told
    figure = tradeoff_figure(found)
    assert number(other.epsilon) in figure.axes[0].get_xticklabels()[1].get_text()
    assert "cohorts of 5 or 50 from 10,000 clients" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("epsilons", "order"),
    [
        ([math.inf, 8, 1], [2, 1, 0]),
        ([8, 1], [1, 0]),
        ([math.inf, 8], [1, 0]),
        ([math.inf], [0]),
        ([1, 0.1, 0], [2, 1, 0]),
    ],
)
def test_no_noise_lies_beyond_all_levels(epsilons: Sequence[float], order: list[int]) -> None:
    places = epsilon_places(epsilons)
    assert len(set(places)) == len(places)
    assert sorted(range(len(places)), key=lambda i: places[i]) == order


def test_a_tradeoffs_figure_shows_every_setting() -> None:
    figure = tradeoff_figure(tradeoff(seeds=2))
    assert "cohorts of 500 from 10,000" in figure.get_suptitle()
    assert "cohorts of 20 were simulated" in figure.get_suptitle()
    assert len(figure.axes) == 2
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == ["∞\n(0)", "8\n(0.001)", "1\n(0.004)"]
        means = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
        assert [len(values) for values in means] == [3, 2]
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert [np.asarray(line.get_xdata()) for line in crosses] == [[axes.get_xticks()[2]]]
    losses = np.asarray(figure.axes[0].lines[0].get_ydata())
    assert losses == pytest.approx([5.05, 5.3, 6.15])


def lengths() -> StudyResult:
    """Return a study of lengths in which learned positions cannot read the longer one."""
    axes = [{"key": "model.positions", "values": ["none", "learned", "fire"], "label": ""}]
    base = Experiment(model={"architecture": "transformer", "max_length": 20})
    study = Study(
        name="lengths", experiment=base, axes=axes, compare=["model.positions"], seeds=3,
        lengths=[20, 40],
    )  # fmt: skip
    losses = {"none": (5.1, 5.5), "learned": (5.1, None), "fire": (5.0, 4.9)}
    results = [
        result(
            study.trial(points, seed), losses[str(points[0].value)][0] or 0.0,
            lengths={n: one + 0.01 * seed for n, one in zip((20, 40), losses[str(points[0].value)],
                                                          strict=True) if one},
        )
        for points in study.combinations()
        for seed in range(3)
    ]  # fmt: skip
    return StudyResult(study, results)


def test_lengths_are_told_of_each_encoding() -> None:
    report = study_report(lengths(), {})
    text = " ".join(report.findings)
    assert "no positions: 5.110 ± 0.025 at 20, 5.510 ± 0.025 at 40, a change of +0.400." in text
    told = "At 40 FIRE has a lower loss than no positions: -0.600 [-0.600, -0.600] nats (95 % "
    assert told in text
    assert "20 rows (model.max_length), so lengths 40 are missing" in text
    assert report.rows[1] == ["learned", "5.110 ± 0.025", "-", "-"]
    whole, beyond = lengths_figure(lengths()).axes
    assert len(whole.lines) == 3 + 1  # and the length of training
    assert len(beyond.lines) == 3 + 1


def at_40(
    cifg: Mapping[int, float | None], si_cifg: Mapping[int, float | None], **study: Any
) -> StudyResult:
    """Return a study of cells with some losses by seed at 40, which are .1 higher at level 2."""
    whole = Study(**{"axes": [ARMS], "compare": ["model.architecture"], "lengths": [40], **study})
    results = []
    for points in whole.combinations():
        worse = 0.1 * sum(point.value == 2 for point in points)
        for seed, loss in {"cifg": cifg, "si_cifg": si_cifg}[str(points[0].value)].items():
            at = None if loss is None else {40: loss + worse}
            results.append(result(whole.trial(points, seed), loss, lengths=at))
    return StudyResult(whole, results, ngrams())


@pytest.mark.parametrize(
    ("cifg", "si_cifg", "told"),
    [
        # SI-CIFG is worse by .1 at each common seed, and has a lower mean over its own seeds.
        ({0: None, 1: 4.2, 2: 4.4, 3: 5.0}, {0: 4.1, 1: 4.3, 2: 4.5, 3: None},
         "and CIFG cannot be compared: at least one has no loss to compare."),
        ({1: 4.2, 2: 4.4, 3: 4.6, 4: 5.2}, {0: 4.0, 1: 4.3, 2: 4.5, 3: 4.701},
         "has a higher loss than CIFG: +0.100 [+0.099, +0.102] nats (95 % intervals, t over 3"),
        ({0: 4.2, 1: 4.4}, {0: 4.1, 1: 4.3}, "3 are needed. SI-CIFG minus CIFG: -0.100 nats."),
        ({0: 4.2, 1: 4.4, 2: 4.6}, {0: 4.1, 1: 4.5, 2: 4.6},
         "At 40 no difference shown between SI-CIFG and CIFG: "),
        ({0: 6.2, 1: 6.4, 2: 6.6}, {0: 6.1, 1: 6.3, 2: 6.51}, "not better than the unigram model"),
        ({0: 4.2, 1: 4.4, 2: 4.6}, {}, "cannot be compared: at least one has no loss to compare."),
    ],
)  # fmt: skip
def test_the_verdict_at_the_longest_length_is_from_pairs_of_seeds(
    cifg: Mapping[int, float | None], si_cifg: Mapping[int, float | None], told: str
) -> None:
    found = at_40(cifg, si_cifg, seeds=5)
    assert told in length_verdicts(found)[0]
    (row,) = [row for row in study_report(found, {}).rows if row[0] == "CIFG"]
    assert ("(3 of 4 seeds)" in row[1]) == (None in cifg.values())


def test_at_the_longest_length_levels_are_named_and_counted() -> None:
    levels = {"key": "client.epochs", "values": [1, 2]}
    seeds = {seed: 4.0 + 0.1 * seed for seed in range(3)}
    better = {seed: loss - 0.1 - 0.001 * seed for seed, loss in seeds.items()}
    found = at_40(seeds, better, axes=[ARMS, levels], seeds=3)
    told = [one.partition(":")[0] for one in length_verdicts(found)]
    assert told == [
        "At 40 SI-CIFG at client epochs 1 has a lower loss than CIFG at client epochs 1",
        "At 40 CIFG at client epochs 2 has a higher loss than CIFG at client epochs 1",
        "At 40 SI-CIFG at client epochs 2 has a lower loss than CIFG at client epochs 2",
        "At 40 SI-CIFG at client epochs 2 has a higher loss than SI-CIFG at client epochs 1",
    ]
    caveat = findings(found)[-1]
    assert "8 differences were tested" in caveat
    assert "correction for 4 of them" in caveat
    assert caveat.endswith(" Those at 40 are not in that correction.")
    one_seed = length_verdicts(at_40({0: 4.0}, {0: 4.1}, axes=[ARMS, levels]))
    assert one_seed == [
        "At 40 no claim about any of the 4 differences: 1 seed, and at least 3 are needed."
    ]


def test_losses_by_length_say_on_whom_they_are() -> None:
    rates = {"axes": [ARMS, RATES], "tune": ["client.learning_rate"]}
    told = (
        "Losses by length are over all 40 evaluated clients, also the 20 on which the best "
        "settings were chosen."
    )
    chosen = study_report(at_40({0: 4.0}, {0: 4.1}, **rates), {})
    assert told in chosen.verdicts
    assert "all evaluated clients" in chosen.table_title
    assert told not in study_report(at_40({0: 4.0}, {0: 4.1}), {}).verdicts
