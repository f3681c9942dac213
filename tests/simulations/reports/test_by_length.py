"""Reports of studies whose tasks make examples of further lengths: table, figure, verdict, page."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simulations.reports.by_length import by_length
from simulations.reports.study import study_page, study_report
from simulations.studies.results import StudyResult
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import ngrams, result

LENGTHS = ("10", "20", "50")
IDS = {"key": "task.ids", "values": ["coupled", "ordinary"], "label": ""}
RATES = {"key": "client.learning_rate", "values": [0.3, 1.0], "label": "lr"}


def learned(scores: dict[tuple[str, float], Sequence[float | None]]) -> StudyResult:
    """Return a study on arithmetic whose two seeds have some exact match at each length."""
    study = Study(
        name="mine", axes=[IDS, RATES], compare=["task.ids"], seeds=2,
        experiment={"task": {"name": "arithmetic", "grid": ",".join(LENGTHS)}},
    )  # fmt: skip
    results = []
    for points in study.combinations():
        ids, rate = (point.value for point in points)
        for seed in range(2):
            found = scores[str(ids), float(str(rate))]
            moved = [None if one is None else max(0.0, one - 0.02 * seed) for one in found]
            metrics = {"exact_match": dict(zip(LENGTHS, moved, strict=True))}
            one = result(study.trial(points, seed), 1.0, by_length=metrics)
            heldout = {"loss": 1.0, "exact_match": 0.9}
            results.append(replace(one, summary=replace(one.summary, heldout=heldout)))
    return StudyResult(study, results, ngrams())


def test_scores_over_lengths_come_first() -> None:
    solved = learned(
        {
            ("coupled", 0.3): [1.0, 1.0, 0.5],
            ("coupled", 1.0): [1.0, 0.97, 0.9],
            ("ordinary", 0.3): [0.9, 1.0, None],
            ("ordinary", 1.0): [1.0, 0.5, 0.0],
        }
    )
    part = by_length(solved)
    assert part is not None
    assert part.header == ["", *LENGTHS]
    rows = {row[0]: row[1:] for row in part.rows}
    assert rows["ids coupled at client lr 0.3"] == ["0.990", "0.990", "0.490"]
    assert rows["ids ordinary at client lr 0.3"] == ["0.890", "0.990", "-"]
    assert part.verdict == (
        "Exact match of 0.95 or more at lengths up to 20: ids coupled at client lr 0.3 and "
        "ids coupled at client lr 1."
    )
    panels = part.figure.axes
    assert [axes.get_title() for axes in panels] == ["client lr 0.3", "client lr 1"]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in panels[0].get_lines()}
    assert list(lines["ordinary"]) == [0.89, 0.99]
    report = study_report(solved, {})
    assert report.findings[0] == part.verdict
    page = study_page(report, solved, "2026-01-01")
    assert page.tables[0].title.endswith("examples of each length (digits of an operand)")
    assert "mine-lengths.svg" in page.files
    assert len(page.figures) == 2


def test_what_a_seed_diverged_of_solves_nothing_and_is_named() -> None:
    found = learned({(ids, rate): [1.0, 1.0, 0.5] for ids in ("coupled", "ordinary")
                     for rate in (0.3, 1.0)})  # fmt: skip
    lost = {"exact_match": dict.fromkeys(LENGTHS)}
    spoiled = [
        replace(one, measured=None, summary=replace(one.summary, status="diverged", by_length=lost))
        if [point.value for point in one.trial.points] == ["coupled", 0.3] and one.trial.seed == 1
        else one
        for one in found.results
    ]
    part = by_length(replace(found, results=spoiled))
    assert part is not None
    assert part.rows[0] == ["ids coupled at client lr 0.3", *(
        f"{score} (1 of 2 seeds)" for score in ("1.000", "1.000", "0.500")
    )]  # fmt: skip
    assert part.verdict == (
        "Exact match of 0.95 or more at lengths up to 20: ids ordinary at client lr 0.3, ids "
        "coupled at client lr 1 and ids ordinary at client lr 1. Left out, because runs diverged: "
        "ids coupled at client lr 0.3 (1 of 2 seeds)."
    )


def test_nothing_solved_and_nothing_evaluated() -> None:
    none = {(ids, rate): [0.1, 0.0, 0.0] for ids in ("coupled", "ordinary") for rate in (0.3, 1.0)}
    part = by_length(learned(dict(none)))
    assert part is not None
    assert part.verdict == "No exact match of 0.95 or more at length 10."
    study = Study(axes=[RATES])
    plain = [result(trial, 1.0) for trial in study.trials()]
    assert by_length(StudyResult(study, plain, ngrams())) is None
