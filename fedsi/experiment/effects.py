"""Refusal of keys that the chosen entry of a table does not use."""

from collections.abc import Collection

from fedsi.experiment.field_types import Settings


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
            written = str(value).lower() if isinstance(value, bool) else value
            raise ValueError(
                f"{section}.{key}={written} has no effect with "
                f"{section}.{chooser}={getattr(settings, chooser)}, which does not use it; leave "
                "it out"
            )


def unused(settings: Settings, used: Collection[str], chooser: str) -> dict[str, object]:
    """Return the values of the keys that the chosen entry does not use."""
    return {
        key: getattr(settings, key)
        for key in type(settings).model_fields
        if key != chooser and key not in used
    }
