"""Explanations of invalid keys and values, one sentence each."""

import difflib
import re
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_NEAR = 0.8
"""Smallest similarity of a suggested name, from 0 to 1."""
_SHORTEST = 4
"""Smallest number of letters that are completed to a key."""

_OTHER_NAMES = {
    "clientlr": ("client.learning_rate",),
    "clientsperround": ("server.cohort_size",),
    "clipnorm": ("privacy.clip_norm",),
    "dataset": ("data.corpus",),
    "decay": ("client.weight_decay", "server.weight_decay"),
    "dmodel": ("model.embedding_size",),
    "epsilon": ("privacy.target_epsilon",),
    "gradclip": ("client.gradient_clip",),
    "localepochs": ("client.epochs",),
    "localsteps": ("client.max_steps",),
    "lr": ("client.learning_rate", "server.learning_rate"),
    "maxgradnorm": ("client.gradient_clip", "privacy.clip_norm"),
    "maxseqlen": ("data.sequence_length",),
    "nclients": ("server.cohort_size", "data.population"),
    "nlayers": ("model.layers",),
    "nheads": ("model.heads",),
    "numclients": ("server.cohort_size", "data.population"),
    "numrounds": ("server.rounds",),
    "serverlr": ("server.learning_rate",),
    "proximalmu": ("algorithm.mu",),
    "sigma": ("privacy.noise_multiplier",),
    "vocabsize": ("data.vocabulary_size",),
}
"""Names of keys in other programs, normalised by ``_plain``."""

_SOMETHING_ELSE = {"dropout"}
"""Names that mean something else in other programs, so that no key is suggested for them."""


def unknown_key(path: str, known: Sequence[str]) -> str:
    """Return the sentence that a key does not exist, with the key that was probably meant."""
    near = nearest_keys(path, known)
    if near:
        return f"there is no key {path}; did you mean {' or '.join(near)}?"
    section = path.partition(".")[0]
    siblings = [key for key in known if key.startswith(section + ".")]
    sections = sorted({f"{key.partition('.')[0]}.*" if "." in key else key for key in known})
    return f"there is no key {path}; allowed are {', '.join(siblings or sections)}"


def nearest_keys(path: str, known: Sequence[str]) -> list[str]:
    """Return the known keys that a key may have been meant to be; empty if none is similar.

    A key in the same section is preferred to one with the same name elsewhere.
    """
    section, _, name = path.rpartition(".")
    if _plain(name) in _SOMETHING_ELSE:
        return []
    names = {key: _plain(key.rpartition(".")[2]) for key in known}
    siblings = [key for key in known if section and key.startswith(f"{section}.")]
    for keys in (siblings, known):
        same = [key for key in keys if names[key] == _plain(name)]
        others = [key for key in _OTHER_NAMES.get(_plain(name), ()) if key in keys]
        longer = [key for key in keys if names[key].startswith(_plain(name))]
        if same or others or (len(name) >= _SHORTEST and longer):
            return same or others or longer
        near = difflib.get_close_matches(
            _plain(name), [names[key] for key in keys], n=1, cutoff=_NEAR
        )
        if near:
            return [key for key in keys if names[key] == near[0]]
    return difflib.get_close_matches(path, known, n=1, cutoff=_NEAR)


def _plain(name: str) -> str:
    """Return a name without differences of spelling such as case and separators."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def explain(error: ValidationError, known: Sequence[str]) -> str:
    """Describe the first mistake in a sentence, and name the keys of all others.

    Args:
        error: The error from building an experiment.
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
    elif first["type"] == "model_type":
        one = next(key for key in known if key.startswith(f"{path}."))
        sentence = f"{path} is a section of keys, not a key; give one of them, such as {one}"
    else:
        expected = _EXPECTED.get(first["type"], _lower(first["msg"]))
        sentence = f"{path} = {_short(first['input'])} is not allowed: {expected}"
    # A union reports each of its members, but they are a single mistake.
    others = dict.fromkeys(".".join(_place(detail)) for detail in details)
    others.pop(path)
    return sentence + (f" (also wrong: {', '.join(others)})" if others else "")


_EXPECTED = {
    "bool_type": "expected true or false",
    "string_type": "expected text, which TOML has in quotes",
}
"""Plain words for the expected value by type of error, where Pydantic's are too technical."""
_LONGEST_VALUE = 200
_TYPE_TAGS = {
    "constrained-int", "constrained-float", "constrained-str", "none", "int", "float", "str",
}  # fmt: skip


def not_toml(error: ValueError, text: str) -> str:
    """Describe a syntax error in TOML, with its line.

    Args:
        error: The parser's error.
        text: The parsed text.
    """
    found = re.search(r"\(at line (\d+), column \d+\)", str(error))
    if not found:
        return str(error)
    line = text.splitlines()[int(found[1]) - 1].strip()
    values = ' (values are as 0.3, true, "text")' if "Invalid value" in str(error) else ""
    return f"{error}: {_short(line)}{values}"


def _place(detail: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that lead to a mistake, without the members of unions."""
    return tuple(str(part) for part in detail["loc"] if part not in _TYPE_TAGS)


def _short(value: object) -> str:
    """Return a value as written, without the middle of a long one."""
    written = repr(value)
    return written if len(written) <= _LONGEST_VALUE else f"{written[:60]}...{written[-30:]}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
