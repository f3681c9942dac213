"""Reports of studies that evaluate their models at several sequence lengths."""

from collections.abc import Mapping
from typing import Any

import pytest

from fedsi import Experiment
from simulations.reports.findings import findings
from simulations.reports.lengths import length_verdicts, lengths_figure
from simulations.reports.study import study_report
from simulations.studies.results import StudyResult
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import ARMS, RATES, ngrams, result


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
