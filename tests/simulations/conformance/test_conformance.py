"""The conformance kit finds each planted fault, and says what fedsi and Flower do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fedsi.privacy.zcdp import epsilon_of
from simulations.cli.main import main
from simulations.conformance.checks import CHECKS, conformance
from simulations.conformance.table import BUILT_IN, adapter_of
from simulations.conformance.vectors import (
    gaussian_releases,
    one_sampled_release,
    participations,
    tree_covariance,
)
from tests.simulations.conformance.reference import FAULTS, Reference

OWN = "tests.simulations.conformance.reference"


def results(adapter: object) -> dict[str, str]:
    return {one.check: one.status for one in conformance(adapter)}  # type: ignore[arg-type]


def test_what_is_right_passes() -> None:
    assert set(results(Reference()).values()) == {"pass"}


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert set().union(*FAULTS.values()) == set(CHECKS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_its_check_and_no_other(fault: str) -> None:
    found = results(Reference(fault))
    assert {check for check, status in found.items() if status != "pass"} == FAULTS[fault]


def test_fedsi_passes() -> None:
    assert set(results(adapter_of("fedsi", None)).values()) == {"pass"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flower", "flower_client"])
def test_what_flower_does_is_told(name: str) -> None:
    found = results(adapter_of(name, None))
    unasked = {"covariance", "separation", "count"}
    assert {one for one, status in found.items() if status == "cannot be asked"} == unasked
    failed = {one for one, status in found.items() if status == "fails"}
    assert failed == {"zero", "not finite", "weights", "denominator"}
    assert results(adapter_of(name, None)) == found


def test_known_answers_agree_with_other_ways_to_them() -> None:
    assert gaussian_releases(20, 100, 1e-6) == pytest.approx(epsilon_of(1 / 8, 1e-6), rel=1e-8)
    # Certain to be drawn, it is one Gaussian release.
    assert one_sampled_release(1.0, 1.0, 1e-5) == pytest.approx(epsilon_of(0.5, 1e-5), rel=1e-6)
    # The root of 8 rounds has the variance 1 / (2 - 2^-3), and so has the sum of all rounds.
    assert tree_covariance().sum() == pytest.approx(1 / (2 - 1 / 8))
    assert participations(1, 8)["patterns"] == 2**8 - 1
    assert participations(3, 1)["sensitivity_of_square_root"] == pytest.approx(
        math.sqrt(sum((math.comb(2 * k, k) / 4**k) ** 2 for k in range(8)))
    )


def test_an_own_adapter_is_named_by_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["conformance", "--adapter", f"{OWN}:broken", "--out", str(tmp_path / "kit")]
    assert main(command) == 1
    assert "11 of 12 checks pass; it fails 'noise'" in capsys.readouterr().out
    stored = json.loads((tmp_path / "kit" / "conformance.json").read_text())
    assert [one["check"] for one in stored["noise per node"] if one["status"] == "fails"] == [
        "noise"
    ]
    vectors = json.loads((tmp_path / "kit" / "vectors.json").read_text())
    assert all(one["source"] for part in vectors.values() for one in part)
    assert np.shape(vectors["noise_covariances"][0]["covariance"]) == (8, 8)
    page = (tmp_path / "kit" / "report.html").read_text()
    assert "Known participation patterns" in page
    assert "The whole experiment" not in page


def test_an_adapter_that_passes_has_exit_code_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["conformance", "--adapter", f"{OWN}:Reference", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    (findings,) = json.loads(capsys.readouterr().out).values()
    assert {one["status"] for one in findings} == {"pass"}
    assert main([*command[:2], f"{OWN}:broken", *command[3:]]) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("other", f"choose from {', '.join(BUILT_IN)}, pfl"),
        ("pfl", "needs --pfl-python"),
        (f"{OWN}:nobody", "has no nobody"),
        (f"{OWN}:FAULTS", "names no function"),
        (f"{OWN}:len", "has no len"),
    ],
)
def test_adapters_that_are_not_there(
    name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", "--adapter", name]) == 2
    assert sentence in capsys.readouterr().err
