"""A study as data: a base experiment, the varied axes, and their comparison.

A study is one immutable object, and a TOML file: ``Study.from_toml(study.to_toml()) == study``.
"""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, PositiveInt, ValidationError, model_validator

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.experiment.explanations import explain
from fedsi.experiment.field_types import PositiveNumber, Settings
from fedsi.experiment.toml_text import parsed_toml, toml_file
from fedsi.seeds import Purpose, generator
from simulations.presets import load_preset
from simulations.studies.axes import Axis, Point

STUDY = "study.toml"
"""The file of a study in its folder."""
RATE = "client.learning_rate"
"""The key that ``suggest`` is about."""

Combination = tuple[Point, ...]
"""One point of each of some axes, in their order."""


@dataclass(frozen=True)
class Trial:
    """One experiment of a study."""

    points: Combination
    """A point of each axis, in the study's order."""
    seed: int
    experiment: Experiment
    rounds: int | None = None
    """Number of rounds under ``halving``, if fewer than all."""

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        return name_of(self.points, self.seed, self.rounds)


@dataclass(frozen=True)
class Stage:
    """Trials that a study runs before it decides on the next ones; a grid has one stage."""

    rounds: int | None
    """Number of rounds; None for the experiment's."""
    seeds: range
    settings: int
    """Most tuned combinations of each compared combination and level."""


class Study(Settings):
    """Several experiments that answer one question.

    Raises:
        UserError: An impossible value, or axes that do not fit together.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")] = "study"
    """Base name of its files."""
    question: Annotated[str, Field(max_length=300)] = ""
    """What it is to answer, in a sentence."""
    experiment: Experiment = Experiment()
    """The experiment that every trial changes."""
    axes: tuple[Axis, ...] = ()
    """The axes varied by the trials, besides the seed."""
    compare: tuple[str, ...] = ()
    """Axes whose combinations are compared; the others are compared with the first combination.
    Axes that are neither compared nor tuned are levels: results are given at each level."""
    tune: tuple[str, ...] = ()
    """Axes whose best combination is chosen on the validation clients, separately for each compared
    combination and level."""
    seeds: Annotated[PositiveInt, Field(le=1000)] = 1
    """Seeds of each combination, counting up from the experiment's; fewer than three allow no
    claim."""
    design: Literal["grid", "random", "halving"] = "grid"
    """All combinations (``grid``); ``draws`` random combinations of the tuned axes (``random``); or
    the same, started with few rounds, of which the best share is continued (``halving``)."""
    draws: PositiveInt | None = None
    """Combinations of the tuned axes drawn by ``random`` and ``halving``; None, for ``halving``
    only, takes all."""
    first_rounds: PositiveInt = 10
    """Rounds of the first stage of ``halving``."""
    factor: Annotated[int, Field(ge=2)] = 3
    """Factor of ``halving``: one in ``factor`` combinations is kept, for ``factor`` times the
    rounds."""
    finalists: PositiveInt | None = None
    """Combinations that ``halving`` runs for all rounds, for each compared combination and level;
    None for one in ``factor`` of those before."""
    final_seeds: Annotated[PositiveInt, Field(le=1000)] | None = None
    """Seeds of the runs with all rounds under ``halving``, counting up after ``seeds``, so that no
    result is of a seed on which it was chosen; None for the same seeds."""
    target: PositiveNumber | None = None
    """Held-out loss, in nats, up to which rounds are counted; None for the bigram model's."""
    lengths: tuple[PositiveInt, ...] = ()
    """Sequence lengths at which the trained models are evaluated in addition."""
    suggest: bool = False
    """Whether the client learning rate that ``fedsi suggest-lr`` gives for each combination is set
    beside the best one of the sweep."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(explain(error, _known_keys(values.get("axes", ())))) from None

    @model_validator(mode="after")
    def _axes_fit_together(self) -> Self:
        names = [axis.called for axis in self.axes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two axes are called {twice}; put their values into one")
        for number, axis in enumerate(self.axes):
            for other in self.axes[:number]:
                both = sorted(axis.keys & other.keys)
                if both:
                    raise ValueError(
                        f"the axes {other.called} and {axis.called} both set {both[0]}, so one "
                        "would override the other; let one axis vary it"
                    )
        for role, chosen in (("compare", self.compare), ("tune", self.tune)):
            missing = next((name for name in chosen if name not in names), None)
            if missing:
                raise ValueError(
                    f"{role} names {missing}, and the axes are {', '.join(names) or 'none'}"
                )
        shared = sorted({*self.compare} & {*self.tune})
        if shared:
            raise ValueError(f"{shared[0]} is both compared and tuned; it can only be one")
        return self

    @model_validator(mode="after")
    def _a_suggestion_has_a_sweep(self) -> Self:
        if self.suggest and (self.tune != (RATE,) or self.lengths):
            raise ValueError(
                f"suggest = true sets suggested rates beside those of a sweep, so tune must be "
                f"['{RATE}'], and lengths have no effect; tune that key alone"
            )
        return self

    @model_validator(mode="after")
    def _design_has_its_keys(self) -> Self:
        ranges = [axis.called for axis in self.axes if axis.is_range]
        if ranges and (self.draws is None or self.design == "grid"):
            raise ValueError(
                f"the axis {ranges[0]} is a range, which needs design = random or halving, and "
                "draws"
            )
        untuned = next((name for name in ranges if name not in self.tune), None)
        if untuned:
            raise ValueError(f"the axis {untuned} is a range and can only be tuned; add it to tune")
        if self.design == "random" and self.draws is None:
            raise ValueError("design = random needs draws, the number of combinations to draw")
        if self.design == "grid" and self.draws is not None:
            raise ValueError("draws has no effect with design = grid; set design = random")
        if self.design != "grid" and not self.tune:
            raise ValueError(f"design = {self.design} needs axes to tune; name them with tune")
        given = {
            key
            for key in ("first_rounds", "factor", "finalists", "final_seeds")
            if getattr(self, key) != type(self).model_fields[key].default
        }
        if self.design != "halving" and given:
            raise ValueError(f"{min(given)} has no effect with design = {self.design}")
        if self.design == "halving" and any("server.rounds" in a.keys for a in self.axes):
            raise ValueError("design = halving sets server.rounds itself; no axis can vary it too")
        if self.design == "halving" and self.first_rounds >= self.experiment.server.rounds:
            raise ValueError(
                f"first_rounds = {self.first_rounds} is not fewer than the experiment's "
                f"server.rounds = {self.experiment.server.rounds}"
            )
        return self

    @model_validator(mode="after")
    def _each_trial_has_a_folder(self) -> Self:
        known: dict[str, Combination] = {}
        for points in self.combinations():
            name = name_of(points, self.experiment.seed)
            other = known.setdefault(name, points)
            if other != points:
                both = " and ".join(
                    ", ".join(f"{point.axis} = {point.text}" for point in one)
                    for one in (other, points)
                )
                raise ValueError(
                    f"the trials of {both} would share the folder {name}; give an axis another "
                    "label, or its values other names"
                )
        return self

    @classmethod
    def from_toml(cls, text: str, source: str = "the study", folder: Path = Path()) -> Self:
        """Parse TOML text.

        ``experiment`` is a table of keys, or the path of an experiment's file; with ``preset`` the
        table changes that preset.

        Args:
            text: The TOML.
            source: Name of the source in errors.
            folder: The folder that paths are relative to.

        Raises:
            UserError: Malformed TOML, an unknown key, or an invalid study.
        """
        values = parsed_toml(text, source)
        sections = [key for key, value in values.items() if isinstance(value, Mapping)]
        if sections and values.keys() <= Experiment.model_fields.keys():
            raise UserError(f"{source} is an experiment; run it with: fedsi run {source}")
        if isinstance(values.get("axes"), Mapping):
            raise UserError(f"{source}: axes is a single table; head each axis with [[axes]]")
        try:
            experiment = _experiment(values, folder)
            study = cls(**{**values, "experiment": experiment})
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        return study.located(folder)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a TOML file; paths in it are relative to its folder.

        Raises:
            UserError: Same as ``from_toml``, or the file is missing or unreadable.
        """
        return cls.from_toml(toml_file(path, "study"), str(path), path.parent)

    def located(self, folder: Path) -> Self:
        """Return the study with absolute paths, for paths relative to a folder."""
        axes, experiment = (
            tuple(axis.located(folder) for axis in self.axes),
            self.experiment.located(folder),
        )
        if axes == self.axes and experiment == self.experiment:
            return self
        return self.updated(experiment=experiment, axes=axes)

    def to_toml(self) -> str:
        """Return the complete study as TOML text; ``from_toml`` is the inverse."""
        values = self.model_dump(exclude={"experiment"}, exclude_none=True, exclude_defaults=True)
        experiment = tomllib.loads(self.experiment.to_toml())
        return tomli_w.dumps({**values, "experiment": experiment})

    def updated(self, **changes: Any) -> Self:
        """Return a copy with other values.

        Raises:
            UserError: The values are invalid.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**kept, **changes})

    def combinations(self) -> list[Combination]:
        """Return the combinations of all axes, in order.

        Drawn combinations of the tuned axes are the same for all compared combinations and levels;
        increasing ``draws`` keeps the first ones.
        """
        fixed = [axis for axis in self.axes if axis.called not in self.tune]
        tuned = [axis for axis in self.axes if axis.called in self.tune]
        found = []
        for outer in product(*(axis.points() for axis in fixed)):
            for inner in self._tuned(tuned):
                by_name = {point.axis: point for point in (*outer, *inner)}
                found.append(tuple(by_name[axis.called] for axis in self.axes))
        return found

    def trials(self) -> list[Trial]:
        """Return a trial for each combination and seed, seed by seed.

        Raises:
            UserError: The experiment refuses some values, alone or together.
        """
        combinations = self.combinations()
        return [self.trial(points, seed) for seed in self.all_seeds for points in combinations]

    def trial(self, points: Combination, seed: int, rounds: int | None = None) -> Trial:
        """Return one trial.

        Args:
            points: A point of each axis.
            seed: The seed.
            rounds: Number of rounds, or None for the experiment's.

        Raises:
            UserError: The experiment refuses some values, alone or together.
        """
        changes = {key: value for point in points for key, value in point.changes}
        shorter = {} if rounds is None else {"server.rounds": rounds}
        try:
            experiment = self.experiment.updated({**changes, **shorter, "seed": seed})
        except UserError as error:
            raise UserError(f"the trial {name_of(points, seed)} cannot be run: {error}") from None
        return Trial(points, seed, experiment, rounds)

    def stage_trials(self, stage: Stage, combinations: Iterable[Combination]) -> list[Trial]:
        """Return the trials of some combinations in a stage, seed by seed.

        Raises:
            UserError: The experiment refuses some values, alone or together.
        """
        return [
            self.trial(points, seed, stage.rounds)
            for seed in stage.seeds
            for points in combinations
        ]

    @property
    def all_seeds(self) -> range:
        """The seeds, counting up from the experiment's."""
        return range(self.experiment.seed, self.experiment.seed + self.seeds)

    def stages(self) -> list[Stage]:
        """Return the stages, in order; only ``halving`` has several."""
        settings = len({self.part(points, "tune") for points in self.combinations()})
        if self.design != "halving":
            return [Stage(None, self.all_seeds, settings)]
        found: list[Stage] = []
        rounds = self.first_rounds
        while rounds < self.experiment.server.rounds:
            found.append(Stage(rounds, self.all_seeds, settings))
            settings = math.ceil(settings / self.factor)
            rounds *= self.factor
        seeds, end = self.all_seeds, self.all_seeds.stop
        if self.final_seeds is not None:
            seeds = range(end, end + self.final_seeds)
        if self.finalists is not None:
            settings = min(self.finalists, found[-1].settings)
        return [*found, Stage(None, seeds, settings)]

    def part(self, points: Combination, role: Literal["compare", "tune", "level"]) -> Combination:
        """Return the points of the axes that have a role."""
        return tuple(point for point in points if self._role(point.axis) == role)

    def _role(self, axis: str) -> str:
        if axis in self.compare:
            return "compare"
        return "tune" if axis in self.tune else "level"

    def _tuned(self, axes: list[Axis]) -> Iterator[Combination]:
        if self.draws is None:
            yield from product(*(axis.points() for axis in axes))
            return
        seen = set()
        for number in range(self.draws):
            rng = generator(self.experiment.seed, Purpose.STUDY_DRAW, number)
            drawn = tuple(axis.drawn(rng) for axis in axes)
            if drawn not in seen:
                seen.add(drawn)
                yield drawn


def _known_keys(axes: Any) -> list[str]:
    count = len(axes) if isinstance(axes, Sequence) else 0
    inner = [f"axes.{place}.{key}" for place in range(count) for key in Axis.model_fields]
    return [*Study.model_fields, *inner]


def name_of(points: Combination, seed: int, rounds: int | None = None) -> str:
    """Return a trial's name; keys that differ only in their section have it too.

    Args:
        points: A point of each axis.
        seed: The seed.
        rounds: Number of rounds under ``halving``, if fewer than all.
    """
    keys = [point.axis.rpartition(".")[2] for point in points]
    words = [
        f"{point.axis.removesuffix(key)}{point.short}"
        if keys.count(key) > 1 and point.short.startswith(key)
        else point.short
        for key, point in zip(keys, points, strict=True)
    ]
    return "-".join([*words, f"seed{seed}", *([] if rounds is None else [f"rounds{rounds}"])])


def _experiment(values: dict[str, Any], folder: Path) -> Experiment:
    """Return a study file's experiment, removing ``preset`` from its values."""
    preset, given = values.pop("preset", None), values.get("experiment", {})
    if isinstance(given, str):
        if preset is not None:
            raise UserError("give either preset or the file of an experiment, not both")
        return Experiment.from_file(folder / given)
    if not isinstance(given, Mapping):
        raise UserError(f"experiment = {given!r} is neither a table of keys nor a path")
    if preset is None:
        return Experiment(**given).located(folder)
    return load_preset(str(preset)).updated(_flat(given)).located(folder)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat
