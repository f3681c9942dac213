"""The results of the conformance kit as JSON and as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fedsi
from fedsi.files import make_folder, write_atomically
from simulations.conformance.checks import CHECKS, CheckResult
from simulations.conformance.vectors import TREE_ROUNDS, known_answers
from simulations.reports.page import Page, PageTable, write_page
from simulations.reports.study_words import enumerate_words

VECTORS, RESULTS = "vectors.json", "conformance.json"
Results = Mapping[str, Sequence[CheckResult]]
"""Findings by the adapter's name."""


def write_conformance(results: Results, folder: Path, command: str) -> None:
    """Write the known answers, the findings and the page."""
    make_folder(folder)
    known = known_answers()
    found = {name: [asdict(one) for one in findings] for name, findings in results.items()}
    for name, values in ((VECTORS, known), (RESULTS, found)):
        write_atomically(folder / name, (json.dumps(values, indent=1) + "\n").encode())
    write_page(_page(results, known, command), folder)


def adapter_sentence(name: str, findings: Sequence[CheckResult]) -> str:
    """Return the result of an adapter in a sentence."""
    of = {status: [f.check for f in findings if f.status == status] for status in _STATUSES}
    passed, failed, unasked = (of[status] for status in _STATUSES)
    told = f"{name}: {len(passed)} of {len(passed) + len(failed)} checks pass"
    if failed:
        told += f"; it fails {enumerate_words([repr(one) for one in failed])}"
    if unasked:
        told += f"; {len(unasked)} cannot be asked"
    return f"{told}."


_STATUSES = ("pass", "fails", "cannot be asked")


def _page(results: Results, known: Mapping[str, Any], command: str) -> Page:
    return Page(
        title="Conformance of private aggregation",
        kind="Conformance",
        date=date.today().isoformat(),
        verdict=[adapter_sentence(name, findings) for name, findings in results.items()],
        experiment=None,
        tables=[
            _summary(results),
            PageTable(
                "Expectations", ["check", "expected"], [[n, e] for n, (e, _) in CHECKS.items()]
            ),
            *(
                PageTable(
                    name,
                    ["check", "result", "found"],
                    [[f.check, f.status, f.found] for f in findings],
                )
                for name, findings in results.items()
            ),
            *_known(known),
        ],
        methods=[
            "Each check asks an adapter one question and holds the answer against what is known in "
            "advance. Noise and covariances are measured; a check of noise fails beyond five "
            "standard errors. Every check is tested by planting the fault that it is to find.",
        ],
        command=command,
        files=[VECTORS, RESULTS],
        facts=[f"fedsi {fedsi.__version__}, Flower {version('flwr')}."],
    )


def _summary(results: Results) -> PageTable:
    status = {name: {f.check: f.status for f in found} for name, found in results.items()}
    rows = [[check, *(status[name][check] for name in results)] for check in CHECKS]
    return PageTable("Summary", ["check", *results], rows)


def _known(known: Mapping[str, Any]) -> list[PageTable]:
    accounting = [
        [f"{one['sampling_rate']:g}", f"{one['noise_multiplier']:g}", f"{one['rounds']:,}",
         f"{one['delta']:g}", f"{one['epsilon']:.6g}", one["source"]]
        for one in known["accounting"]
    ]  # fmt: skip
    patterns = [
        [str(one["rounds"]), str(one["min_separation"]), str(one["most"]), str(one["patterns"]),
         ", ".join(map(str, one["worst"])), f"{one['sensitivity_of_square_root']:.6g}"]
        for one in known["participation_patterns"]
    ]  # fmt: skip
    covariance = known["noise_covariances"][0]["covariance"]
    return [
        PageTable(
            "Known epsilons",
            ["sampling rate", "noise multiplier", "rounds", "delta", "epsilon", "source"],
            accounting,
        ),
        PageTable(
            "Known covariance of tree noise",
            ["round", *(str(n) for n in range(1, TREE_ROUNDS + 1))],
            [[str(n), *(f"{v:.4f}" for v in row)] for n, row in enumerate(covariance, 1)],
            "Noise on the sum of each round, in units of (noise multiplier x clip norm)^2, by "
            "least squares over the nodes.",
        ),
        PageTable(
            "Known participation patterns",
            ["rounds", "separation", "most", "patterns", "worst", "sensitivity of the root matrix"],
            patterns,
            "All patterns were tried. The matrix is the square root of prefix sums, binom(2k, k) / "
            "4^k in its first column.",
        ),
    ]
