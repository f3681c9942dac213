"""Refusal of keys that the chosen entry of a table, or another choice, does not use."""

from collections.abc import Collection, Mapping

from fedsi.experiment.field_types import Settings
from fedsi.tables import without_effect

_SCHEDULE = {
    "warm_up_rounds": ("warm_up", "cosine", "cooldown"),
    "final_fraction": ("cosine", "cooldown"),
}
USED_WITH: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "client.schedule": _SCHEDULE,
    "devices.availability": {"trace": ("trace",)},
    "model.positions": {"max_distance": ("relative",), "random_start": ("learned",)},
    "server.sampling": {
        "cohort_cap": ("poisson",),
        "groups": ("cyclic",),
        "min_separation": ("shuffled",),
    },
    "server.schedule": _SCHEDULE,
    "task.law": {"exponent": ("zipf",)},
    "task.loss": {"k": ("soft_top_k",)},
    "task.operation": {"operands": ("addition",)},
}
"""By key that makes a choice outside of the tables: the keys of its section that some choices use,
and these choices."""


def refuse_without_effect(
    settings: Settings, section: str, used: Collection[str], chooser: str
) -> None:
    """Refuse keys that differ from their defaults but have no effect.

    Args:
        settings: A section of an experiment.
        section: Its name.
        used: Names of the keys that the chosen entry uses.
        chooser: Name of the key that chooses the entry; it has an effect.

    Raises:
        ValueError: An unused key differs from its default.
    """
    for key, value in unused(settings, used, chooser).items():
        if value != type(settings).model_fields[key].default:
            raise ValueError(
                f"{section}.{key}={_written(value)} has no effect with "
                f"{section}.{chooser}={getattr(settings, chooser)}, which does not use it; leave "
                "it out"
            )


def refuse_unfitting(settings: Settings, section: str) -> None:
    """Refuse keys that differ from their defaults, if a choice in their section does not use them.

    Args:
        settings: A section of an experiment.
        section: Its name.

    Raises:
        ValueError: There is such a key.
    """
    for chooser, keys in USED_WITH.items():
        of, _, name = chooser.partition(".")
        if of != section:
            continue
        chosen = getattr(settings, name)
        for key, choices in keys.items():
            value = getattr(settings, key)
            if chosen not in choices and value != type(settings).model_fields[key].default:
                given = f"{section}.{key}={_written(value)}"
                raise ValueError(without_effect(given, chooser, chosen, list(choices)))


def _written(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def unused(settings: Settings, used: Collection[str], chooser: str) -> dict[str, object]:
    """Return the values of the keys that the chosen entry does not use."""
    return {
        key: getattr(settings, key)
        for key in type(settings).model_fields
        if key != chooser and key not in used
    }
