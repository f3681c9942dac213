"""Refusal of keys that a choice does not use; for choices from tables see ``fedsi.tables``."""

from collections.abc import Mapping

from fedsi.experiment.field_types import Settings
from fedsi.tables import without_effect, written

_SCHEDULE = {
    "warm_up_rounds": ("warm_up", "cosine", "cooldown"),
    "final_fraction": ("cosine", "cooldown"),
}
USED_WITH: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "client.schedule": _SCHEDULE,
    "devices.availability": {"trace": ("trace",)},
    "model.positions": {
        "fire_layers": ("fire",),
        "max_distance": ("relative",),
        "random_start": ("learned",),
    },
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
                given = f"{section}.{key}={written(value)}"
                raise ValueError(without_effect(given, chooser, chosen, list(choices)))
