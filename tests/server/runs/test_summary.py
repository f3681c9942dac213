"""``summary.json``: its keys, and the errors for invalid files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fedsi
from fedsi import Experiment, UserError
from server.runs.folder import RunFolder
from server.runs.foreign import ADVICE
from server.runs.summarise import not_private
from server.runs.summary import ExamplePrivacySummary, Summary
from simulations import simulate
from tests.summaries import AUDIT, PRIVACY, SUMMARY

KEYS = """
status ended_by architecture parameters trained_parameters seed rounds clients_trained
clients_rejected clients_failed clients_lost losses rounds_repeated clients_dropped
clients_unevaluated tokens_trained
download_bytes upload_bytes train_loss
heldout_loss heldout_perplexity heldout_perplexity_no_oov heldout_accuracy
heldout_accuracy_no_oov heldout_accuracy_no_oov_no_eos heldout_recall_at_3
heldout_client_accuracy_p10 heldout_client_accuracy_p50 heldout_client_accuracy_p90
heldout_client_loss_mean heldout_client_accuracy_mean unigram_loss
best_round best_heldout_loss
corpus corpus_sha256 vocabulary_source vocabulary_size population training_clients
heldout_clients rows rows_left_out words_cut heldout_in_training not_words
clients_without_examples model_sha256 train_seconds evaluation_seconds clients_per_second
tokens_per_second privacy versions provenance vocabulary_sha256
"""
PRIVACY_KEYS = """
epsilon delta accounted_rounds accountant adjacency mechanism sampling noise_multiplier population
cohort_size simulated_cohort_size extrapolated clipping clip_norm clipped_share noise_on_mean
participations audit
"""
PARTICIPATION_KEYS = """
clients most closest most_allowed closest_allowed checked
"""
AUDIT_KEYS = """
canaries included mean_in mean_out deviation_in deviation_out guesses correct gaussian_epsilon
curve_epsilon counting_epsilon rounds_correct rounds_epsilon participations_likelihood bound
bound_from participations_fit refuted
"""
EXAMPLE_KEYS = """
epsilon delta accountant adjacency unit noise_multiplier clip_norm sampling_rate steps
most_participations
"""

EXAMPLE_PRIVACY = ExamplePrivacySummary(
    2.0, 1e-5, "RDP (opacus)", "one example", "one example", 1.0, 1.0, 0.25, 4, 3
)
FULL = replace(
    SUMMARY,
    privacy=replace(PRIVACY, audit=AUDIT),
    example_privacy=EXAMPLE_PRIVACY,
    not_private=("status", "train_loss"),
)


def test_the_keys_on_disk_are_those_of_earlier_versions(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    private = {
        "server.sampling": "poisson", "server.averaging": "uniform", "privacy.canaries": 50,
        "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0,
    }  # fmt: skip
    for name, changes in (("plain", {}), ("private", private)):
        few = smoke.updated({"server.rounds": 1, **changes})
        result = simulate(few, cache=cache, out=tmp_path / name)
        written = json.loads((tmp_path / name / "summary.json").read_text())
        assert written == result.summary.to_json()
        assert list(written) == KEYS.split() + (["not_private"] if changes else [])
        if changes:
            assert list(written["privacy"]) == PRIVACY_KEYS.split()
            assert list(written["privacy"]["participations"]) == PARTICIPATION_KEYS.split()
            assert list(written["privacy"]["audit"]) == AUDIT_KEYS.split()
        else:
            assert written["privacy"] is None


def test_a_summary_comes_back_as_it_was() -> None:
    for summary in (SUMMARY, FULL, replace(SUMMARY, heldout={"loss": None}, train_loss=None)):
        assert Summary.from_text(summary.text(), "summary.json") == summary
    values = json.loads(FULL.text())
    assert list(values["example_privacy"]) == EXAMPLE_KEYS.split()
    assert values["heldout_loss"] == FULL.heldout_loss == 5.0
    assert "heldout" not in values


def test_a_metric_that_is_no_number_is_null_and_not_a_number() -> None:
    summary = replace(SUMMARY, heldout={"loss": None, "accuracy": 0.5})
    assert summary.heldout_loss is None
    assert summary.metric("loss") != summary.metric("loss")
    assert summary.metric("accuracy") == 0.5


def test_whatever_is_not_known_to_be_covered_is_not_private() -> None:
    names = not_private(FULL)
    assert {"heldout_loss", "example_privacy", "privacy.audit", "not_private"} <= set(names)
    assert not {"rounds", "model_sha256", "privacy", "privacy.epsilon"} & set(names)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda v: v.pop("vocabulary_size"), "has no field vocabulary_size;"),
    "missing inside": (lambda v: v["privacy"].pop("delta"), "has no field privacy.delta;"),
    "missing deeper": (
        lambda v: v["privacy"]["audit"].pop("refuted"),
        "has no field privacy.audit.refuted;",
    ),
    "no loss": (lambda v: v.pop("heldout_loss"), "has no field heldout_loss;"),
    "unknown": (lambda v: v.update(words=4), "has a field words, which is not known;"),
    "unknown inside": (
        lambda v: v["privacy"].update(unit="client"),
        "has a field privacy.unit, which is not known;",
    ),
    "a text": (lambda v: v.update(rounds="12"), "has '12' at rounds, "),
    "a fraction": (lambda v: v.update(rounds=1.5), "has '1.5' at rounds, "),
    "a truth": (lambda v: v.update(seed=True), "has 'True' at seed, "),
    "not finite": (lambda v: v.update(train_seconds=float("inf")), "at train_seconds, "),
    "a metric": (lambda v: v.update(heldout_accuracy="x"), "has 'x' at heldout_accuracy, "),
    "null": (lambda v: v.update(corpus=None), "has 'None' at corpus, "),
    "status": (lambda v: v.update(status="done"), "has 'done' at status, "),
    "list": (lambda v: v.update(privacy=[1]), "has '[1]' at privacy, "),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_summary_is_refused_in_one_sentence(name: str) -> None:
    damage, expected = DAMAGE[name]
    values = FULL.to_json()
    damage(values)
    with pytest.raises(UserError) as caught:
        Summary.from_text(json.dumps(values), Path("run/summary.json"))
    assert str(caught.value).startswith("run/summary.json has ")
    assert expected in str(caught.value)
    assert str(caught.value).endswith(ADVICE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\xff"])
def test_what_is_no_summary_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^summary\.json (is not valid JSON|has ).*put back"):
        Summary.from_text(text, "summary.json")


def test_a_summary_of_another_version_names_it() -> None:
    values = {**SUMMARY.to_json(), "versions": {"fedsi": "9.9"}, "energy": 1.0}
    with pytest.raises(UserError) as caught:
        Summary.from_text(json.dumps(values), "summary.json")
    assert str(caught.value) == (
        "summary.json has a field energy, which is not known; it was written by fedsi 9.9, and "
        f"this is {fedsi.__version__}: {ADVICE}"
    )


def test_the_folder_names_its_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(Experiment(), overwrite=False, resume=False)
    folder.finish(replace(SUMMARY, heldout={}), b"")
    with pytest.raises(UserError, match=rf"^{tmp_path}/summary\.json has no field heldout_loss"):
        folder.summary()
