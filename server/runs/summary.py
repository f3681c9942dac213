"""The summary of a run: the content of ``summary.json`` and of ``fedsi run --json``."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fedsi.errors import UserError
from server.endings import Status
from server.runs.foreign import ADVICE, written_by

_HELDOUT = "heldout_"
"""Prefix of the held-out metrics' keys in the JSON."""
_BY_LENGTH = "_by_length"
"""Suffix of the keys of metrics by length."""


class _Checked:
    """A part of the summary. In JSON it must have all its fields, no others, with their types."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class ParticipationSummary(_Checked):
    """Participations of the simulated clients, as checked in every round."""

    clients: int
    """Training clients that took part at least once."""
    most: int
    """Participations of the client that took part most often."""
    closest: int | None
    """Smallest distance of two participations of a client in rounds; None if there are none."""
    most_allowed: int | None
    """Bound on ``most`` assumed by the accounting; None if there is none."""
    closest_allowed: int | None
    checked: str
    """Clients whose participations were checked, in words."""


@dataclass(frozen=True)
class AuditSummary(_Checked):
    """The result of an audit, as in ``fedsi.privacy.audit.Audit``."""

    canaries: int
    included: int
    mean_in: float
    mean_out: float
    deviation_in: float
    deviation_out: float
    guesses: int
    correct: int
    gaussian_epsilon: float
    curve_epsilon: float | None
    counting_epsilon: float
    rounds_correct: int
    rounds_epsilon: float
    participations_likelihood: float
    bound: float
    """The largest lower bound on epsilon."""
    bound_from: str
    """The name of that bound."""
    participations_fit: bool
    refuted: bool
    """Whether a lower bound is above the claimed epsilon."""


@dataclass(frozen=True)
class PrivacySummary(_Checked):
    """The privacy claim of a run, and its unit."""

    epsilon: float | None
    """None if it is infinite."""
    delta: float
    accounted_rounds: int
    accountant: str
    adjacency: str
    mechanism: str
    sampling: str
    noise_multiplier: float
    population: int
    """Accounted number of clients."""
    cohort_size: int
    """Accounted cohort size."""
    simulated_cohort_size: int
    extrapolated: bool
    """Whether the accounted population or cohort differs from the simulated one."""
    clipping: str
    clip_norm: float | None
    """Clip norm of the last round; None if it is infinite."""
    clipped_share: float
    noise_on_mean: float
    """Standard deviation of the noise on the mean update of the last round."""
    participations: ParticipationSummary | None
    audit: AuditSummary | None = None
    """None for a run without canaries."""


@dataclass(frozen=True)
class ExamplePrivacySummary(_Checked):
    """The privacy claim of DP-SGD on the clients, for single examples."""

    epsilon: float | None
    """Epsilon of the client that took part most often; None if it is infinite."""
    delta: float
    accountant: str
    adjacency: str
    unit: str
    noise_multiplier: float
    clip_norm: float
    sampling_rate: float
    """Probability that an example is in a batch."""
    steps: int
    """Steps per round."""
    most_participations: int


@dataclass(frozen=True)
class PersonalisationSummary(_Checked):
    """Gain of fine-tuning the final model on held-out clients."""

    epochs: int
    learning_rate: float
    clients: int
    """Clients that were fine-tuned and evaluated."""
    clients_too_small: int
    """Clients without two different examples, one to tune on and one to evaluate on."""
    clients_unevaluated: int
    """Clients that failed."""
    before: Mapping[str, float | None]
    """The task's metrics of the global model on the evaluated halves; None for one that is not
    finite."""
    after: Mapping[str, float | None]
    """The same metrics of the fine-tuned models."""
    quantiles: Mapping[str, Mapping[str, float | None]]
    """Quantiles over clients, with equal weights, of loss and score before and after, and of the
    gain in each (a larger gain is better)."""


@dataclass(frozen=True)
class Summary(_Checked):
    """The result of a run. Its fields are the keys of ``summary.json``."""

    status: Status
    ended_by: str
    """The key or the reason that ended the run: ``server.endings``."""
    architecture: str
    parameters: int
    trained_parameters: int
    """Parameters that are not frozen."""
    seed: int
    rounds: int
    """Rounds that were run."""
    clients_trained: int
    clients_rejected: int
    clients_failed: int
    clients_lost: int
    losses: Mapping[str, int]
    """Contributions that were lost, by kind: the rejected and the failed clients, as in the columns
    of ``rounds.csv``."""
    rounds_repeated: int
    """Rounds that were repeated because too few clients contributed."""
    clients_dropped: int
    clients_unevaluated: int
    tokens_trained: int
    download_bytes: int
    upload_bytes: int
    train_loss: float | None
    """Loss of the last round's cohort, in nats per target; None if it is not finite."""
    heldout: Mapping[str, float | None]
    """The task's metrics on the held-out clients after the last round, including ``loss``; None for
    one that is not finite. In the JSON each is a separate key, ``heldout_<name>``."""
    unigram_loss: float | None
    """Held-out loss of the training clients' unigram model; None if it is not finite."""
    best_round: int | None
    """The round of the lowest held-out loss; None if none was finite."""
    best_heldout_loss: float | None
    corpus: str
    corpus_sha256: str
    vocabulary_source: str
    vocabulary_size: int
    population: int
    training_clients: int
    heldout_clients: int
    rows: int
    rows_left_out: Mapping[str, int]
    words_cut: float
    heldout_in_training: float
    not_words: Mapping[str, float]
    clients_without_examples: int
    model_sha256: str
    train_seconds: float
    evaluation_seconds: float
    clients_per_second: float
    tokens_per_second: float
    privacy: PrivacySummary | None
    versions: Mapping[str, str]
    """Versions that results may depend on, by package."""
    example_privacy: ExamplePrivacySummary | None = None
    personalisation: PersonalisationSummary | None = None
    """None for a run without ``personalisation.epochs``."""
    provenance: Mapping[str, Any] | None = None
    """Facts that the bits depend on besides the experiment: ``server.runs.provenance``."""
    warm_start: Mapping[str, Any] | None = None
    """Counts of kept, new and dropped words of the initial weights: ``server.warm_start``."""
    vocabulary_sha256: str | None = None
    """Hash of the vocabulary's file; None for a run without a folder."""
    not_private: tuple[str, ...] | None = None
    """Keys that epsilon does not cover; None for a run without privacy."""
    algorithm: str = "fed_avg"
    clients_with_state: int = 0
    """Clients that keep vectors for their next round."""
    kept_bytes: int = 0
    """Disk space of those vectors."""
    clipped_steps_share: float | None = None
    """Share of the local steps whose gradient was clipped; None in a run that clips none."""
    by_length: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """The task's metrics of the final model at each length of ``task.grid``, by metric and then by
    length; None for one that is not finite. In the JSON each metric is a separate key,
    ``<name>_by_length``."""

    @property
    def diverged(self) -> bool:
        """Whether the run diverged."""
        return self.status == "diverged"

    @property
    def heldout_loss(self) -> float | None:
        """Nats per target on the held-out clients; None if it is not finite."""
        return self.heldout["loss"]

    def metric(self, name: str) -> float:
        """Return a held-out metric; NaN if it is not finite."""
        value = self.heldout[name]
        return math.nan if value is None else value

    def to_json(self) -> dict[str, Any]:
        """Return the values of ``summary.json``, in its order."""
        values: dict[str, Any] = {}
        for name, value in to_json(self).items():
            if name == "heldout":
                values |= {_HELDOUT + metric: one for metric, one in value.items()}
            elif name == "by_length":
                values |= {metric + _BY_LENGTH: one for metric, one in value.items()}
            else:
                values[name] = value
        return values

    def text(self) -> str:
        """Return the content of ``summary.json``."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_text(cls, text: str | bytes, source: Path | str) -> "Summary":
        """Read the result of ``text``.

        Args:
            text: JSON.
            source: The file, for the error message.

        Raises:
            UserError: It is not the summary of a run of this version.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{source} is not valid JSON ({error}); {_advice(None)}") from None
        try:
            summary = TypeAdapter(Summary).validate_json(json.dumps(_gathered(values)))
        except ValidationError as error:
            raise UserError(f"{source} {_reason(error)}; {_advice(values)}") from None
        if "loss" not in summary.heldout:
            raise UserError(f"{source} has no field heldout_loss; {_advice(values)}")
        return summary


def to_json(part: Summary | PrivacySummary | PersonalisationSummary) -> dict[str, Any]:
    """Return the fields as in JSON; optional fields are omitted if they are None."""
    adapter = TypeAdapter(type(part))
    return dict(adapter.dump_python(part, mode="json", exclude_defaults=True))


def _gathered(values: object) -> object:
    """Return a summary's JSON with the metrics gathered in objects, as in ``Summary``."""
    if not isinstance(values, dict):
        return values
    own = {one.name for one in fields(Summary)} - {"heldout", "by_length"}
    metrics = {name for name in values if name.startswith(_HELDOUT) and name not in own}
    lengths = {name for name in values if name.endswith(_BY_LENGTH) and name not in own}
    others = {name: value for name, value in values.items() if name not in metrics | lengths}
    heldout = {name.removeprefix(_HELDOUT): values[name] for name in values if name in metrics}
    by_length = {name.removesuffix(_BY_LENGTH): values[name] for name in values if name in lengths}
    return {**others, "heldout": heldout, **({"by_length": by_length} if by_length else {})}


def _reason(error: ValidationError) -> str:
    """Describe what is wrong with the first invalid field."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    place = _HELDOUT + path[1] if path[:1] == ["heldout"] and len(path) > 1 else ".".join(path)
    match first["type"]:
        case "missing":
            return f"has no field {place}"
        case "unexpected_keyword_argument":
            return f"has a field {place}, which is not known"
    where = f"at {place}" if place else "in it"
    return f"has {str(first['input'])[:40]!r} {where}, where it is wrong: {first['msg']}"


def _advice(values: object) -> str:
    """Return what to do about a summary that cannot be read."""
    versions = values.get("versions") if isinstance(values, dict) else None
    version = versions.get("fedsi") if isinstance(versions, dict) else None
    if not isinstance(version, str):
        return "put back the file that the run wrote, or run again with fedsi run --overwrite"
    return f"it was written by {written_by(version)}: {ADVICE}"
