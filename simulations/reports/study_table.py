"""The table of a study, and its result in values that JSON can represent."""

import math
from dataclasses import asdict
from typing import Any

from fedsi.experiment import Scalar
from simulations.reports.study_words import (
    NO_RUN,
    axis_words,
    cell,
    legend_title,
    loss_text,
    number,
    share_text,
)
from simulations.studies.gaps import (
    area_by_rate,
    gap_between,
    holm_p_values,
    pairs,
    rounds_to_target,
    worse_than_unigram,
)
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.study import Combination

_MOST_COLUMNS = 8
"""Number of a tuned axis's values that get a column each."""


def study_table(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a study's table, as text.

    A row is an arm at a level or, if nothing is compared and there are no levels, a setting. Rows
    of n-gram models on the same targets follow.
    """
    header, rows = _of_settings(result) if _by_setting(result) else _of_places(result)
    return header, [*rows, *_baselines(result, header)]


def naming_columns(result: StudyResult) -> int:
    """Return the number of leading columns of the table that name a row."""
    if _by_setting(result):
        return len(result.study.axes)
    return len(_naming_cells(result, result.places[0]))


def _by_setting(result: StudyResult) -> bool:
    """Whether rows are settings, because nothing is compared and there are no levels."""
    return len(result.places) == 1 and result.chooses


def _of_settings(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return a row for each setting of the only place, with validation and test metrics."""
    place, shares = result.places[0], result.metrics[1:]
    header = [axis_words(axis.called) for axis in result.study.axes]
    header += ["validation loss", "loss", *(result.task.curves[name] for name in shares), ""]
    chosen = result.chosen(place)
    rows = []
    for setting in result.settings(place):
        best = chosen is not None and setting.points == chosen.points
        rows.append(
            [
                *(cell(point) for point in setting.points),
                loss_text(setting, "validation"),
                loss_text(setting, "test"),
                *(share_text(setting, name, "test") for name in shares),
                "chosen" if best else "",
            ]
        )
    return header, rows


def _of_places(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    columns = _single_axis(result)
    header, rows = [], []
    for place in result.places:
        cells = [
            *_naming_cells(result, place),
            *_chosen_cells(result, place),
            *((name, loss_text(setting, result.part)) for name, setting in columns(place)),
        ]
        header = [name for name, _ in cells]
        rows.append([text for _, text in cells])
    return header, rows


def _naming_cells(result: StudyResult, place: GridPoint) -> list[tuple[str, str]]:
    """Return what names a row: its level and its arm, or what a study of one setting is about."""
    # Names of architectures, alone, say what they are.
    named = legend_title(result.arms) is not None or len(result.arms[0]) > 1
    arm = [(axis_words(point.axis) if named else "", cell(point)) for point in place.arm]
    return [*_level_cells(result, place), *arm] or [("", "the experiment")]


def _level_cells(result: StudyResult, place: GridPoint) -> list[tuple[str, str]]:
    cost = result.privacy_levels.get(place)
    if cost is None:
        return [(axis_words(point.axis), cell(point)) for point in place.level]
    return [
        ("epsilon", number(cost.epsilon)),
        ("noise multiplier", number(cost.noise_multiplier)),
        ("noise on the mean", number(cost.noise_on_mean)),
    ]


def _chosen_cells(result: StudyResult, place: GridPoint) -> list[tuple[str, str]]:
    chosen, shares = result.chosen(place), result.metrics[1:]
    names = [result.task.curves[name] for name in shares]
    cells: list[tuple[str, str]] = []
    for axis in result.study.axes if result.chooses else ():
        if axis.called in result.study.tune:
            values = {} if chosen is None else {point.axis: cell(point) for point in chosen.points}
            cells.append((f"best {axis_words(axis.called)}", values.get(axis.called, "none")))
    if chosen is None:
        settings = result.settings(place)
        whole = [setting for setting in settings if result.ran_to_the_end(setting)]
        why = loss_text(settings[0], result.part) if len(settings) == 1 else _why_none(whole)
        cells.append(("loss", why))
        cells += [(name, "") for name in names]
    else:
        cells.append(("loss", loss_text(chosen, result.part)))
        cells += [
            (called, share_text(chosen, name, result.part))
            for called, name in zip(names, shares, strict=True)
        ]
    return cells


def _why_none(settings: list[Setting]) -> str:
    return "diverged" if any(setting.diverged for setting in settings) else NO_RUN


def _single_axis(result: StudyResult) -> Any:
    """Return a function from a place to its settings with column names, if they are few."""
    tuned = [axis for axis in result.study.axes if axis.called in result.study.tune]
    few = len(tuned) == 1 and result.chooses and len(result.settings(result.places[0])) > 1
    if not few or len(result.settings(result.places[0])) > _MOST_COLUMNS:
        return lambda _: []
    name = tuned[0].called

    def columns(place: GridPoint) -> list[tuple[str, Setting]]:
        return [
            (next(f"{axis_words(name)} {p.text}" for p in s.points if p.axis == name), s)
            for s in result.settings(place)
        ]

    return columns


def _baselines(result: StudyResult, header: list[str]) -> list[list[str]]:
    if result.baselines is None:
        return []
    rows = []
    for name in result.baselines.names:
        row = [name, *[""] * (len(header) - 1)]
        if not result.baselines.ranks_labels:
            row[header.index("loss")] = f"{result.baseline(name):.3f}"
        score = result.task.curves[result.task.score]
        row[header.index(score)] = f"{result.baseline_accuracy(name):.3f}"
        rows.append(row)
    return rows


def study_json(result: StudyResult) -> dict[str, Any]:
    """Return a study's result in values that JSON can represent; infinite values are null."""
    summary, corrected = result.summary, holm_p_values(result)
    return {
        "name": result.study.name,
        "corpus": summary.corpus,
        "corpus_sha256": summary.corpus_sha256,
        "seeds": result.seeds,
        "reported_on": result.part,
        "ngrams": {
            name: {
                "loss": result.baseline(name),
                result.task.score: result.baseline_accuracy(name),
            }
            for name in (result.baselines.names if result.baselines is not None else ())
        },
        "target": result.target,
        **_privacy_json(result),
        "places": [_place_json(result, place) for place in result.places],
        "gaps": [
            {
                "first": _values(first.level + first.arm),
                "second": _values(second.level + second.arm),
                **gap_between(result, first, second).to_json(),
                "p_holm": corrected.get((first, second)),
            }
            for first, second in pairs(result)
        ],
        "runs": [{**_values(one.trial.points), **one.summary.to_json()} for one in result.results],
    }


def _privacy_json(result: StudyResult) -> dict[str, Any]:
    cost = result.privacy
    if cost is None:
        return {}
    values = {name: _json(value) for name, value in asdict(cost).items() if name != "random"}
    random = None if cost.random is None else asdict(cost.random)
    return {"privacy_of_all_runs": {**values, "random": random}}


def _place_json(result: StudyResult, place: GridPoint) -> dict[str, Any]:
    choice, cost = result.choice(place), result.privacy_levels.get(place)
    chosen = result.chosen(place)
    reached = [] if chosen is None else rounds_to_target(result, chosen)
    return {
        "level": _values(place.level),
        "arm": _values(place.arm),
        **({} if cost is None else {name: _json(value) for name, value in asdict(cost).items()}),
        "chosen": None if chosen is None else _setting_json(result, chosen),
        "ranked_on_seeds": sorted(choice.seeds),
        "left_out_of_the_choice": [_values(setting.points) for setting in choice.left_out],
        "rounds_to_target": [
            None if one is None else {"rounds": one[0], "client_seconds": one[1]} for one in reached
        ],
        "mean_over_log_learning_rate": [*area_by_rate(result, place).values()],
        "settings": [_setting_json(result, setting) for setting in result.settings(place)],
    }


def _setting_json(result: StudyResult, setting: Setting) -> dict[str, Any]:
    return {
        "values": _values(setting.points),
        "seeds": len(setting.results),
        "diverged": setting.diverged,
        "worse_than_unigram": worse_than_unigram(result, setting),
        **{
            part: {name: _json(setting.mean(name, part)) for name in result.metrics}
            for part in result.parts
        },
    }


def _values(points: Combination) -> dict[str, Any]:
    return {point.axis: _json(point.value) for point in points}


def _json(value: Scalar) -> Scalar | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
