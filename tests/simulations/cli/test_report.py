"""``fedsi report``: the same pages again, without the corpus and without a run."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from server.runs.folder import RunFolder
from simulations.cli.main import main


def nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every computation fail."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("computed anew")

    for place in (
        "simulations.simulation.simulate",
        "fedsi.data.prepare.prepare",
        "fedsi.learning.block.BlockTrainer.__init__",
        "simulations.membership.attack",
        "fedsi.data.ngrams.KneserNey.__init__",
    ):
        monkeypatch.setattr(place, refuse)


def contents(folder: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def again(folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Assert that ``fedsi report`` writes files again that are gone."""
    before = contents(folder, names)
    for name in names:
        (folder / name).unlink()
    with monkeypatch.context() as patched:
        nothing_new(patched)
        assert main(["report", str(folder)]) == 0
    assert contents(folder, names) == before


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Make a small private run, and audit it."""
    folder = tmp_path_factory.mktemp("audited") / "run"
    small = [
        "server.rounds=4",
        "server.cohort_size=60",
        "privacy.canaries=60",
    ]
    settings = [word for one in small for word in ("--set", one)]
    command = ["audit", "--preset", "audit", *settings, "--out", str(folder)]
    assert main([*command, "--cache", str(cache)]) == 0
    return folder


def test_the_pages_of_a_run_and_its_audit(
    audited: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    names = ["report.html", "audit.html", "curves.svg", "audit.svg"]
    again(audited, names, monkeypatch)
    shown = capsys.readouterr().out.splitlines()
    assert shown == [str(audited / "report.html"), str(audited / "audit.html")]
    assert "trigram" in (audited / "report.html").read_text()


def test_the_page_of_an_audit(audited: Path) -> None:
    page = (audited / "audit.html").read_text()
    claim = RunFolder(audited).summary()
    assert claim is not None
    assert claim.privacy is not None
    assert f"The claim of epsilon {claim.privacy.epsilon:.3f} at delta" in page
    verdict = page.partition("Verdict")[2].partition("</section>")[0]
    for text in ("not refuted", "does not prove the claim", "AUC"):
        assert text in verdict
    for text in ("<svg", "guesses on sums", "Attack on the model", "2305.08846", "canary",
                 "fedsi audit", "--preset audit", "canaries.csv", claim.corpus_sha256):  # fmt: skip
        assert text in page
    assert not re.search(r"(src|href)=.https?://", page)  # complete without a network


def test_other_folders_are_refused_in_a_sentence(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} holds neither a run nor a study; name the folder of one, such as "
        "results/run-...\n"
    )
    copy = tmp_path / "copy"
    shutil.copytree(audited, copy)
    (copy / "ngrams.json").write_text("[")
    assert main(["report", str(copy)]) == 2
    assert f"{copy / 'ngrams.json'} is damaged" in capsys.readouterr().err
    (copy / "study.toml").write_text("")
    assert main(["report", str(copy)]) == 2
    assert f"the study in {copy} has no finished run yet" in capsys.readouterr().err
