"""One sentence for what is wrong with an experiment's keys or values."""

import difflib
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails


def unknown_key(path: str, known: Sequence[str]) -> str:
    """Say that there is no such key among the known ones, and which was probably meant."""
    close = difflib.get_close_matches(path, known, n=1)
    if close:
        return f"there is no key {path}; did you mean {close[0]}?"
    section = path.partition(".")[0]
    siblings = [key for key in known if key.startswith(section + ".")]
    sections = sorted({f"{key.partition('.')[0]}.*" if "." in key else key for key in known})
    return f"there is no key {path}; allowed are {', '.join(siblings or sections)}"


def explain(error: ValidationError, known: Sequence[str]) -> str:
    """Describe the first mistake, and how many more there are.

    Args:
        error: Of building an experiment.
        known: All dotted keys.
    """
    details = error.errors()
    first = details[0]
    place = _place(first)
    path = ".".join(place)
    if first["type"] == "extra_forbidden":
        sentence = unknown_key(path, known)
    elif first["type"] == "value_error":
        sentence = first["msg"].removeprefix("Value error, ")
    else:
        sentence = f"{path} = {first['input']!r} is not allowed: {_lower(first['msg'])}"
    # A union reports each of its members; they are one mistake.
    others = {_place(detail) for detail in details} - {place}
    return sentence + (f" (and {len(others)} more)" if others else "")


_TYPE_TAGS = {
    "constrained-int", "constrained-float", "constrained-str", "none", "int", "float", "str",
}  # fmt: skip


def _place(detail: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that lead to a mistake, without the members of unions."""
    return tuple(str(part) for part in detail["loc"] if part not in _TYPE_TAGS)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
