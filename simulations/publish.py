"""Publication of a private run: the model, a public vocabulary, and the claim.

Epsilon covers the models that a run releases, and nothing else in its folder: losses, counts and
norms are the simulator's view, and a checkpoint contains past noise. The published files are newly
written from what is covered; a run of which nothing is covered is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsi.data.vocabulary import VOCABULARY_FILES
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.data import LEARNED_VOCABULARIES
from fedsi.experiment.paths import is_path
from fedsi.files import make_folder, write_atomically
from server.runs.folder import MODEL
from simulations.finished_run import FinishedRun

STATEMENT = "privacy.json"
COMPLETE = ("finished", "budget spent")
"""Status of runs whose end does not depend on their clients' data."""

CLAIM = (
    "epsilon",
    "delta",
    "adjacency",
    "accountant",
    "mechanism",
    "sampling",
    "noise_multiplier",
    "clipping",
    "population",
    "cohort_size",
)
"""Keys of the summary's part ``privacy`` that are stated."""

TRUSTED = (
    "the server and the devices, which follow the protocol and keep to themselves what they see, "
    "and the machine's source of random numbers"
)
PUBLIC = (
    "the settings below",
    "the number of training clients (the sampling rate is the cohort's size over it)",
    "the words of the vocabulary",
    "that the run was completed",
)
BROUGHT = {
    "model.init_from": "the weights that the run started from, and all data they were trained on",
    "algorithm.teacher": "the model that the server imitated, and all data it was trained on",
    "algorithm.public_corpus": "the corpus that the server itself trained on",
}
"""What a run takes for public by the key that names it."""
NOT_COVERED = (
    "other runs on the same clients, such as those used to choose its settings",
    "everything else in the run's folder, and its log",
)
_SEEDS = {"seed", "data.population_seed"}


def check_publishable(experiment: Experiment, place: Path, *, heldout_is_public: bool) -> None:
    """Refuse to publish what epsilon does not cover, before anything is trained.

    Args:
        experiment: The run's experiment.
        place: The folder to publish to.
        heldout_is_public: Whether the held-out metrics are included.

    Raises:
        UserError: Epsilon covers nothing of the run, or not its vocabulary; the metrics are those
            of
            training clients' sentences; or the folder is not empty.
    """
    reason = _not_covered(experiment)
    if reason:
        raise UserError(f"the run cannot be published: {reason}")
    data = experiment.data
    if heldout_is_public and data.heldout_split is None and data.heldout_by == "sentences":
        raise UserError(
            "--heldout-is-public is not possible with data.heldout_by=sentences, because the "
            "held-out sentences are those of training clients, whom epsilon protects; leave it "
            "out, or hold out clients with data.heldout_by=clients"
        )
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(
            f"{place} is not an empty folder, and what it holds would be published too; name "
            "another one with --publish"
        )


def _not_covered(experiment: Experiment) -> str | None:
    privacy, vocabulary = experiment.privacy, experiment.data.vocabulary
    if privacy.mechanism == "none":
        return (
            "it has no privacy, so no epsilon covers its model; choose a privacy.mechanism, or "
            "copy what you want to give away from its folder"
        )
    if privacy.noise_multiplier == 0:
        return "it adds no noise, so epsilon is infinite; set privacy.noise_multiplier"
    if not privacy.secure_noise:
        return (
            "its noise and its cohorts follow from the seed, which can be guessed; run it with "
            "privacy.secure_noise=true"
        )
    if privacy.population is not None or privacy.cohort_size is not None:
        return (
            "its epsilon is that of a larger population or cohort and does not cover the simulated "
            "clients; leave privacy.population and privacy.cohort_size out"
        )
    if experiment.data.corpus != "synthetic" and vocabulary in LEARNED_VOCABULARIES:
        return (
            f"data.vocabulary={vocabulary} is learned from the training clients' text, which "
            "epsilon does not cover; set data.vocabulary=public, or name a public word list or "
            "tokenizer.json with it"
        )
    return None


def publish(
    run: FinishedRun, place: Path, more: Mapping[str, bytes], *, heldout_is_public: bool
) -> list[str]:
    """Write the model, its vocabulary and ``privacy.json`` into an empty folder, nothing else.

    Args:
        run: The finished run.
        place: The folder; it may not exist yet.
        more: Further files made from the model only, by name.
        heldout_is_public: Whether to include the held-out metrics.

    Returns:
        The names of the files.

    Raises:
        UserError: Same as ``check_publishable``; or the run ended early because of its clients'
            data;
            or the folder cannot be written.
    """
    check_publishable(run.experiment, place, heldout_is_public=heldout_is_public)
    if run.summary.status not in COMPLETE:
        raise UserError(
            f"the run in {run.path} cannot be published: it ended early ({run.summary.status}) "
            "because of its clients' text, which epsilon does not cover; run it with other settings"
        )
    vocabulary = run.trained.vocabulary
    files = {
        MODEL: (run.path / MODEL).read_bytes(),
        vocabulary.file_name: vocabulary.file_text().encode("utf-8", "surrogatepass"),
        **more,
    }
    stated = statement(run, sorted(files), heldout_is_public=heldout_is_public)
    files[STATEMENT] = (json.dumps(stated, indent=1, allow_nan=False) + "\n").encode()
    make_folder(place)
    for name, content in files.items():
        write_atomically(place / name, content)
    return sorted(files)


def statement(run: FinishedRun, files: list[str], *, heldout_is_public: bool) -> dict[str, Any]:
    """Return the guarantee for the published files, whom it assumes, and how it is computed."""
    summary = run.summary.to_json()
    heldout = {k: v for k, v in summary.items() if k.startswith("heldout_")}
    return {
        "unit": "one training client with all of its text",
        **{name: summary["privacy"][name] for name in CLAIM},
        "rounds": summary["rounds"],
        "noise": "from the operating system's entropy, and so is who took part",
        "covers": [name for name in files if name not in VOCABULARY_FILES],
        "trusted": TRUSTED,
        "taken_for_public": taken_for_public(run.experiment),
        "not_covered": list(NOT_COVERED),
        "settings": _public_settings(run.experiment),
        "model_sha256": summary["model_sha256"],
        "versions": summary["versions"],
        **({"heldout_declared_public": heldout} if heldout_is_public else {}),
    }


def taken_for_public(experiment: Experiment) -> list[str]:
    """Return what a run reads that its epsilon does not cover."""
    flat = experiment.flat()
    return [*PUBLIC, *(what for key, what in BROUGHT.items() if flat.get(key, "none") != "none")]


def _public_settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings without seeds and paths."""
    flat = experiment.flat().items()
    return {key: value for key, value in flat if key not in _SEEDS and not is_path(key, value)}
