"""Reports of fabricated studies: verdicts, tables, figures and JSON, also of incomplete ones."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from fedsi import Experiment
from simulations.reports.findings import findings, headlines
from simulations.reports.heat_map import mapped_axes
from simulations.reports.study import study_page, study_report
from simulations.reports.study_figure import study_figure
from simulations.reports.study_table import study_table
from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.study import Study
from tests.simulations.reports.test_lengths import lengths
from tests.simulations.reports.test_tradeoff_report import tradeoff
from tests.simulations.studies.fabricated import ARMS, RATES, result, study_result


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
