"""The command that reproduces a run or a study, to be pasted into a shell.

It names the preset with the fewest differing keys, and sets those.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from fedsi.errors import UserError
from fedsi.experiment import Experiment, parse_overrides
from fedsi.experiment.model_arguments import KEY as ARGUMENTS
from fedsi.kernels.cpu.product_choice import usual_products
from simulations.presets import load_preset, preset_names
from simulations.studies.axes import Axis
from simulations.studies.privacy_levels import EPSILON, NOISE, NOISE_KEYS, without_noise
from simulations.studies.ready import ready_study
from simulations.studies.study import Study

_WIDTH = 80
"""Longest command on one line."""
_ARCHITECTURE, _POSITIONS = "model.architecture", "model.positions"

Option = list[str]
"""An option with its value."""


def run_command(experiment: Experiment) -> str:
    """Return the ``fedsi run`` of an experiment."""
    return _pasted("run", _experiment_words(_undecided(experiment)))


def audit_command(experiment: Experiment) -> str:
    """Return the ``fedsi audit`` that runs an experiment and audits it."""
    return _pasted("audit", _experiment_words(_undecided(experiment)))


def _undecided(experiment: Experiment) -> Experiment:
    """Return an experiment without the products that a run on such a processor has anyway."""
    usual = experiment.client.products == usual_products()
    return experiment.updated({"client.products": "auto"}) if usual else experiment


def study_command(study: Study) -> str:
    """Return the command of a study: a short one if there is one, or its file and ``fedsi study``.

    Args:
        study: The study; its paths are absolute.
    """
    seeds = [["--seeds", str(study.seeds)]]
    for name, words in (
        ("compare", _compare_words(study)),
        ("tradeoff", _tradeoff_words(study)),
        ("lengths", _lengths_words(study)),
        ("sweep", _sweep_words(study)),
    ):
        if words is not None:
            base = _experiment_words(study.experiment, is_tradeoff=name == "tradeoff")
            return _pasted(name, [*base, *words, *seeds])
    return f"cat > study.toml <<'END'\n{_study_text(study)}END\nfedsi study study.toml"


def _compare_words(study: Study) -> list[Option] | None:
    if not _is_ready(study, "compare") or len(study.axes) < 2 or not _tunes(study, study.axes[1:]):
        return None
    named, tuned = _named_words(study.axes[0]), _tuned_words(study.axes[1:])
    if named is None or not tuned or tuned[0][0] != "--client-learning-rates":
        return None
    return [named, *tuned]


def _tradeoff_words(study: Study) -> list[Option] | None:
    if not _is_ready(study, "tradeoff") or len(study.axes) < 2 or not _tunes(study, study.axes[2:]):
        return None
    levels, options = study.axes[1], {EPSILON: "--target-epsilons", NOISE: "--noise-multipliers"}
    named = _named_words(study.axes[0]) or _key_words(study.axes[0], "--compare")
    tuned = _tuned_words(study.axes[2:])
    if tuned == []:
        tuned = [["--quick"]]
    if named is None or tuned is None or levels.called not in options:
        return None
    if study.experiment != without_noise(study.experiment, {}):
        return None
    return [named, [options[levels.called], ",".join(map(str, levels.values))], *tuned]


def _named_words(axis: Axis) -> Option | None:
    """Return the option of the compared architectures; None for another axis."""
    if axis.key != _ARCHITECTURE or axis != Axis(key=axis.key, values=axis.values, label=""):
        return None
    return ["--architectures", _listed(_ARCHITECTURE, axis.values)]


def _tuned_words(axes: Sequence[Axis]) -> list[Option] | None:
    """Return the options of axes of learning rates, and of plain ones after them."""
    words, rest = [], list(axes)
    for side, label in (("client", "lr"), ("server", "server-lr")):
        key, axis = f"{side}.learning_rate", rest[0] if rest else None
        if axis and axis.key == key and axis.label == label and not axis.is_range:
            words.append([f"--{side}-learning-rates", _listed(key, rest.pop(0).values)])
    varied = _vary_words(rest)
    return None if varied is None else [*words, *varied]


def _lengths_words(study: Study) -> list[Option] | None:
    if len(study.axes) != 1:
        return None
    (positions,) = study.axes
    usual = ready_study("lengths").updated(
        experiment=study.experiment,
        axes=(Axis(key=_POSITIONS, values=positions.values, label=""),),
        lengths=study.lengths,
        seeds=study.seeds,
    )
    if study != usual:
        return None
    return [
        ["--positions", _listed(_POSITIONS, positions.values)],
        ["--lengths", ",".join(map(str, study.lengths))],
    ]


def _sweep_words(study: Study) -> list[Option] | None:
    words = _vary_words(study.axes)
    if not words:
        return None
    usual = Study(
        name="sweep",
        experiment=study.experiment,
        axes=study.axes,
        tune=tuple(axis.called for axis in study.axes),
        seeds=study.seeds,
    )
    return words if study == usual else None


def _is_ready(study: Study, name: str) -> bool:
    """Whether a study is a ready one, with its own experiment, axes and seeds."""
    own = {"experiment": study.experiment, "axes": study.axes, "tune": study.tune}
    if name == "tradeoff":
        own["compare"] = (study.axes[0].called,) if study.axes else ()
    try:
        return study == ready_study(name).updated(**own, seeds=study.seeds)
    except UserError:
        return False


def _tunes(study: Study, axes: Sequence[Axis]) -> bool:
    return study.tune == tuple(axis.called for axis in axes)


def _vary_words(axes: Sequence[Axis]) -> list[Option] | None:
    """Return the options of plain axes; None if one is not plain."""
    words = [_key_words(axis, "--vary") for axis in axes]
    return None if None in words else [one for one in words if one]


def _key_words(axis: Axis, option: str) -> Option | None:
    """Return the option of a plain axis; None for another."""
    if axis.key is None or axis.is_range or axis != Axis(key=axis.key, values=axis.values):
        return None
    listed = _listed(axis.key, axis.values)
    if listed.count(",") >= len(axis.values):  # a value has one itself
        return None
    return [option, f"{axis.key}={listed}"]


def _listed(key: str, values: Sequence[Any]) -> str:
    return ",".join("none" if value == "none" else _text(key, value) for value in values)


def _experiment_words(experiment: Experiment, *, is_tradeoff: bool = False) -> list[Option]:
    """Return the options that give an experiment; ``fedsi tradeoff`` sets the noise itself."""
    preset, changes = _shortest(experiment, is_tradeoff=is_tradeoff)
    words = [["--preset", preset]] if preset else []
    return [*words, *(["--set", f"{key}={_text(key, v)}"] for key, v in changes.items())]


def _shortest(experiment: Experiment, *, is_tradeoff: bool) -> tuple[str, dict[str, Any]]:
    """Return the preset with the fewest changes, or an empty name for the defaults."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for name in ("", *preset_names()):
        base = load_preset(name) if name else Experiment()
        changes = dict(_differences(base, experiment))
        if is_tradeoff:
            changes = {key: value for key, value in changes.items() if key not in NOISE_KEYS}
        update = without_noise if is_tradeoff else Experiment.updated
        try:
            if update(base, changes) == experiment:
                found.append((len(changes) + bool(name), name, changes))
        except UserError:  # such as a tradeoff from a preset without privacy
            continue
    _, name, changes = min(found, key=lambda one: one[:2])
    return name, changes


def _differences(base: Experiment, experiment: Experiment) -> Iterator[tuple[str, Any]]:
    before = base.flat()
    for key, value in experiment.flat().items():
        if key == ARGUMENTS and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        elif value != before[key]:
            yield key, value


def _text(key: str, value: Any) -> str:
    """Return a value as the command line reads it."""
    texts = [str(value), json.dumps(value, ensure_ascii=False)]
    if isinstance(value, bool):
        texts.reverse()
    elif isinstance(value, float) and value.is_integer():
        texts.insert(0, f"{value:g}")
    return next((t for t in texts if parse_overrides([f"{key}={t}"])[key] == value), texts[-1])


def _study_text(study: Study) -> str:
    """Return a study's file, with the keys that differ from a preset."""
    preset, changes = _shortest(study.experiment, is_tradeoff=False)
    values = study.model_dump(exclude={"experiment"}, exclude_none=True, exclude_defaults=True)
    tables: dict[str, Any] = {}
    for key, value in changes.items():
        *sections, name = key.split(".")
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = value
    named = {"preset": preset} if preset else {}
    text = tomli_w.dumps({**values, **named, "experiment": tables})
    return text if Study.from_toml(text) == study else study.to_toml()


def _pasted(command: str, words: Sequence[Option]) -> str:
    parts = [f"fedsi {command}", *(shlex.join(one) for one in words)]
    line = " ".join(parts)
    return line if len(line) <= _WIDTH else " \\\n  ".join(parts)
