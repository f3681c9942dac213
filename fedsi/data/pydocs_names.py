"""The ``pydocs`` corpus for retrieval: a docstring's first sentence, and the names it documents.

A function's docstring has the function's name as a right label, a class's docstring the class's; a
method's has both its own name and that of its class. Clients, groups and the treatment of prose and
of repeated sentences are those of ``pydocs``.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fedsi.data.corpus import Progress
from fedsi.data.pydocs import (
    FEWEST_CLIENTS,
    FEWEST_SENTENCES,
    Module,
    docstring_sentences,
    find_modules,
    parsed_source,
)
from fedsi.data.words import split_words
from fedsi.files import write_atomically

NAME = "pydocs names"
BETWEEN = "|"
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")
_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Documented(NamedTuple):
    """A sentence and the names that it documents."""

    sentence: str
    names: tuple[str, ...]


def words_of_name(name: str) -> str:
    """Return the words of a name in Python, as in ``drop duplicates`` or ``Data Frame``."""
    return " ".join(filter(None, _WORDS.split(name)))


def extract_names(path: Path, progress: Progress) -> int:
    """Write the corpus as JSONL with the columns user, group, text and label.

    Args:
        path: The file to write; it appears only when it is complete.
        progress: Called with the number of modules read.

    Returns:
        The number of clients. Below ``pydocs.FEWEST_CLIENTS`` nothing is written.
    """
    modules, seen = find_modules(), set[tuple[str, ...]]()
    lines: list[str] = []
    clients = 0
    for done, module in enumerate(modules):
        if done % 50 == 0:
            progress("reading docstrings", done, len(modules))
        own = [one for one in documented(module.path) if _is_new(one, seen)]
        if len(own) >= FEWEST_SENTENCES:
            clients += 1
            lines += (_line(module, one) for one in own)
    progress("reading docstrings", len(modules), len(modules))
    if clients >= FEWEST_CLIENTS:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, ("\n".join(lines) + "\n").encode())
    return clients


def documented(path: Path) -> Iterator[Documented]:
    """Yield the first sentence of each docstring of a source file; none if it cannot be parsed."""
    tree = parsed_source(path)
    if tree is None:
        return
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, inside = waiting.pop()
        own = ""
        if isinstance(node, _Definition):
            first = next(docstring_sentences(ast.get_docstring(node) or ""), None)
            names = tuple(name for name in (node.name, inside) if words_of_name(name))
            if first and names:
                yield Documented(first, names)
            own = node.name if isinstance(node, ast.ClassDef) else ""
        for block in ("handlers", "finalbody", "orelse", "body"):
            children = getattr(node, block, None)
            if isinstance(children, list):
                waiting += ((child, own) for child in reversed(children))


def _is_new(one: Documented, seen: set[tuple[str, ...]]) -> bool:
    key = tuple(split_words(one.sentence, "letters"))
    new = key not in seen
    seen.add(key)
    return new


def _line(module: Module, one: Documented) -> str:
    label = BETWEEN.join(one.names)
    values = {"user": module.name, "group": module.package, "text": one.sentence, "label": label}
    return json.dumps(values)
