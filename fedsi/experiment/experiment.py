"""The configuration of an experiment: one immutable object, validated when it is built.

Keys are dotted (``server.cohort_size``) on the command line, nested tables in TOML and attributes
in Python. An absent optional value is ``None`` in Python and the word ``none`` elsewhere, because
TOML has no null.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import Field, Strict, ValidationError, model_validator

from fedsi.errors import UserError
from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.experiment.choices import keys_losing_effect
from fedsi.experiment.client import ClientSettings
from fedsi.experiment.data import DataSettings
from fedsi.experiment.devices import DeviceSettings
from fedsi.experiment.explanations import explain, unknown_key
from fedsi.experiment.faults import FaultSettings
from fedsi.experiment.field_types import Scalar, Settings
from fedsi.experiment.model import ModelSettings
from fedsi.experiment.paths import PATHS, absolute
from fedsi.experiment.personalisation import PersonalisationSettings
from fedsi.experiment.privacy import PrivacySettings
from fedsi.experiment.schedule_checks import check_rounds
from fedsi.experiment.server import ServerSettings
from fedsi.experiment.task import TaskSettings
from fedsi.experiment.toml_text import parsed_toml, toml_file
from fedsi.learning.algorithms.table import check_algorithm
from fedsi.limits import largest_contribution
from fedsi.models.table import (
    ARCHITECTURES,
    BY_HAND,
    architecture,
    architecture_keys,
    is_penalised,
)
from fedsi.privacy.mechanisms.table import accounting_of
from fedsi.tasks.table import check_keys, reads_a_corpus

WAITING = ("server.round_timeout", "server.minimum_replies", "server.repeats")
"""Keys that may change when a run is resumed: they set how long to wait, not what for."""
ENDING = (
    "server.patience",
    "server.target_loss",
    "server.budget_tokens",
    "server.budget_bytes",
    "server.budget_seconds",
)
"""Keys that end a run before its last round."""


DEPTH_EXPONENT = -1.5
"""Exponent of the depth in the rates of ``client.depth_rule`` (arXiv 2305.07810)."""


class Experiment(Settings):
    """One federated training run, completely described.

    Raises:
        UserError: An unknown key or an impossible value; gives its path and what is allowed.
    """

    seed: Annotated[int, Strict(), Field(ge=0, lt=2**63)] = 0
    """Seed of everything random, except what ``privacy.secure_noise`` keeps secret."""
    task: TaskSettings = TaskSettings()
    algorithm: AlgorithmSettings = AlgorithmSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    client: ClientSettings = ClientSettings()
    devices: DeviceSettings = DeviceSettings()
    faults: FaultSettings = FaultSettings()
    server: ServerSettings = ServerSettings()
    privacy: PrivacySettings = PrivacySettings()
    personalisation: PersonalisationSettings = PersonalisationSettings()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(explain(error, _known_keys())) from None

    @model_validator(mode="after")
    def _over_selection_fits_the_sampling(self) -> Self:
        if self.devices.over_selection > 1 and self.server.sampling != "uniform":
            raise ValueError(
                f"devices.over_selection = {self.devices.over_selection} needs cohorts of fixed "
                f"size, which server.sampling={self.server.sampling} does not draw; set "
                "server.sampling=uniform or devices.over_selection=1"
            )
        return self

    @model_validator(mode="after")
    def _the_clients_schedule_fits_the_rounds(self) -> Self:
        check_rounds("client", self.client.learning_rate_schedule, self.server.rounds)
        return self

    @model_validator(mode="after")
    def _the_depth_rule_has_a_depth(self) -> Self:
        rule, name = self.client.depth_rule, self.model.architecture
        if rule is None:
            return self
        if "layers" not in architecture_keys(name, self.model.encoder):
            raise ValueError(
                f"client.depth_rule={rule} has no effect with model.architecture={name}, which has "
                "no model.layers; leave it out"
            )
        rate, decay = self.local_training.learning_rate, self.client.weight_decay
        if rate * decay >= 1:
            raise ValueError(
                f"client.weight_decay = {decay} times {rate:.4g}, the rate that client.depth_rule="
                f"{rule} gives {self.model.layers} layers, leaves nothing of the parameters; their "
                "product must be less than 1"
            )
        return self

    @model_validator(mode="after")
    def _fine_tuning_leaves_something(self) -> Self:
        rate, decay = self.personalisation.learning_rate, self.client.weight_decay
        if rate is not None and rate * decay >= 1:
            raise ValueError(
                f"client.weight_decay = {decay} times personalisation.learning_rate = {rate} "
                "leaves nothing of the parameters; their product must be less than 1"
            )
        return self

    @model_validator(mode="after")
    def _the_task_takes_them(self) -> Self:
        check_keys(self)
        return self

    @model_validator(mode="after")
    def _learned_positions_reach(self) -> Self:
        needed, rows = self.data.sequence_length, self.model.max_length
        if self.model.positions != "learned" or not reads_a_corpus(self.task.name):
            return self  # lengths of generated examples are checked on the population
        if rows < needed:
            raise ValueError(
                f"model.max_length ({rows}) learned positions are too few for sequences of "
                f"data.sequence_length ({needed}); set model.max_length={needed} or more"
            )
        return self

    @model_validator(mode="after")
    def _gradients_by_hand_take_them(self) -> Self:
        has_them = architecture(self.model.architecture).by_hand is not None
        if has_them and self.client.example_noise_multiplier is None:
            return self
        for key, usual in BY_HAND.items():
            value = getattr(self.client, key)
            if value != usual:
                by_hand = [name for name in ARCHITECTURES if architecture(name).by_hand]
                raise ValueError(
                    f"client.{key}={value} works with the gradients by hand of "
                    f"{', '.join(by_hand[:-1])} and {by_hand[-1]}; set client.{key}={usual}"
                )
        return self

    @model_validator(mode="after")
    def _example_privacy_hides_sizes(self) -> Self:
        private = self.client.example_noise_multiplier is not None
        if private and self.server.averaging != "uniform":
            raise ValueError(
                "client.example_noise_multiplier needs server.averaging=uniform: weights by "
                "examples would tell how many a client has"
            )
        if private and is_penalised(self.model):
            raise ValueError(
                "client.example_noise_multiplier clips the gradient of each example, and the loss "
                "of model.balance is one of a whole batch; set model.balance=0.0"
            )
        if private and self.data.max_examples_per_client is None:
            raise ValueError(
                "client.example_noise_multiplier needs data.max_examples_per_client: batches are "
                "drawn at a rate that must not follow how many examples a client has; set it to "
                "about what a client has"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_has_a_meaning(self) -> Self:
        check_algorithm(self)
        return self

    @model_validator(mode="after")
    def _privacy_can_be_accounted(self) -> Self:
        privacy, server, devices = self.privacy, self.server, self.devices
        if privacy.mechanism == "none":
            return self
        accounting_of(privacy.mechanism, server.sampling)
        if server.norm_bound is not None:
            raise ValueError(
                f"server.norm_bound has no effect with privacy.mechanism={privacy.mechanism}: "
                "privacy.clip_norm bounds every update; leave server.norm_bound out"
            )
        if server.averaging != "uniform":
            raise ValueError(
                f"privacy.mechanism={privacy.mechanism} needs server.averaging=uniform: weights "
                "by examples would tell how many a client has"
            )
        amplified = server.sampling != "shuffled"
        chosen = devices.availability != "always" or devices.dropout or devices.timeout
        if amplified and (chosen or devices.over_selection > 1):
            raise ValueError(
                "devices that are not always there, drop out, are waited for or over-selected "
                f"void the amplification that server.sampling={server.sampling} is accounted "
                "with; use server.sampling=shuffled with a correlated mechanism, or leave the "
                "devices settings out"
            )
        limit = largest_contribution(server.largest_cohort + privacy.canaries)
        if privacy.clip_norm > limit:
            raise ValueError(
                f"privacy.clip_norm = {privacy.clip_norm} is more than {limit:g}, the largest that "
                "can be summed exactly in a cohort of this size; lower it"
            )
        return self

    @property
    def local_training(self) -> ClientSettings:
        """The settings of local training, with the learning rate of the model's depth.

        ``client.depth_rule`` is the rule of arXiv 2305.07810: rates fall as depth^-1.5.
        """
        rule, client = self.client.depth_rule, self.client
        if rule is None:
            return client
        factor = (self.model.layers / rule) ** DEPTH_EXPONENT
        return client.model_copy(update={"learning_rate": client.learning_rate * factor})

    @property
    def examples_per_pass(self) -> int | None:
        """The most examples that a client's pass over its data can use; None for all."""
        if self.client.example_noise_multiplier is not None:
            return None
        steps, cap = self.client.max_steps, self.data.max_examples_per_client
        return min(
            (n for n in (cap, steps and steps * self.client.batch_size) if n is not None),
            default=None,
        )

    @property
    def nominal_examples(self) -> int:
        """The number of examples that gives DP-SGD batches of the batch size on average."""
        nominal = self.data.max_examples_per_client
        assert nominal is not None, "such an experiment was refused"  # noqa: S101
        return nominal

    @property
    def import_paths(self) -> dict[str, str]:
        """Import paths of the user's own code, by the keys that name them."""
        sections = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {
            f"{name}.{key}": path
            for name, section in sections
            if isinstance(section, Settings)
            for key, path in section.import_paths.items()
        }

    @classmethod
    def from_toml(cls, text: str, source: str = "the experiment") -> Self:
        """Parse TOML text.

        Raises:
            UserError: Malformed TOML, an unknown key or an impossible value; ``source`` is named.
        """
        values = parsed_toml(text, source)
        if "axes" in values:
            raise UserError(f"{source} is a study; run it with: fedsi study {source}")
        try:
            return cls(**values)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a TOML file; paths in it are relative to its folder.

        Raises:
            UserError: Same as ``from_toml``, or the file is missing or unreadable.
        """
        return cls.from_toml(toml_file(path, "experiment"), source=str(path)).located(path.parent)

    def located(self, folder: Path) -> Self:
        """Return a copy in which paths of existing files in a folder are absolute.

        Other paths are unchanged.
        """
        flat = self.flat()
        places = {key: absolute(key, str(flat[key]), folder) for key in PATHS}
        return self.updated({key: p for key, p in places.items() if p != flat[key]})

    def to_toml(self) -> str:
        """Return the experiment as TOML text; ``from_toml`` is the inverse."""
        sections = {
            key: {k: _word(v) for k, v in value.items() if v != {}}
            if isinstance(value, dict)
            else value
            for key, value in self.model_dump().items()
        }
        return tomli_w.dumps(sections)

    def flat(self) -> dict[str, Scalar | dict[str, Any]]:
        """Return ``{"server.rounds": 50, ...}``; absent values are the word ``none``.

        The value of ``model.arguments`` is a dictionary.
        """
        flat: dict[str, Scalar | dict[str, Any]] = {}
        for key, value in self.model_dump().items():
            if isinstance(value, dict):
                flat |= {f"{key}.{k}": _word(v) for k, v in value.items()}
            else:
                flat[key] = value
        return flat

    def continues(self, other: Self) -> bool:
        """Whether a run of another experiment may be resumed as this one with the same bits."""
        return self == other.updated({key: self.flat()[key] for key in WAITING})

    def updated(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with the given dotted keys set.

        If the task, architecture, algorithm, mechanism or another choice changes, keys that the new
        one does not use and that are not given return to their defaults.

        Raises:
            UserError: An unknown key or an impossible value.
        """
        values = self.model_dump()
        for path, value in changes.items():
            *sections, key = path.split(".")
            table: Any = values
            for section in sections:
                table = table.get(section) if isinstance(table, dict) else None
            if not isinstance(table, dict):
                raise UserError(unknown_key(path, _known_keys()))
            table[key] = value
        for path in keys_losing_effect(values, changes):
            section, _, key = path.partition(".")
            if isinstance(values[section], dict):
                values[section].pop(key, None)
        return type(self)(**values)


def _word(value: Any) -> Any:
    return "none" if value is None else value


def _known_keys() -> list[str]:
    return sorted(Experiment().flat())
