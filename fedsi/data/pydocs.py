"""The ``pydocs`` corpus: docstrings of the installed Python packages, one client per module.

It is real text that needs no download. Sources are parsed with ``ast``; nothing is imported or run.
Prose is kept; doctests, tables, field lists and code are dropped. Repeated sentences (about a
quarter) are dropped too, because they would leak from training to held-out clients. Modules of a
package form a group and are held out together.

The corpus depends on the installed versions: it is suitable for demonstrations, not for benchmarks.
Results include its hash.
"""

import ast
import hashlib
import importlib.util
import json
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from fedsi.data.corpus import Progress
from fedsi.data.words import WORD_RULE, split_words
from fedsi.files import write_atomically

NAME = "pydocs"
EXTRACTION = 2
"""Version of the rules below; part of the cache key."""

PACKAGES = ("torch", "numpy", "pandas", "matplotlib", "flwr", "pydantic", "rich", "typer")
FEWEST_CLIENTS = 100
"""With fewer modules than this, the sources are considered missing."""

FEWEST_SENTENCES = 5
"""A module with fewer sentences of its own is not a client."""

_FEWEST_WORDS = 3
_FEWEST_LETTERS = 0.7
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "lib2to3", "idlelib"}
_TEST_FOLDERS = {"test", "tests", "testing", "_testing"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(])")
_MARKUP = re.compile(r":[a-z:]+:`~?([^`]*)`|`+|\*\*|<[^>\s]*>_?")
_NOT_PROSE = re.compile(
    r"\s*(?:"
    r">>>|\.\.\.|\.\. |:\w[\w ]*:"  # doctests, directives, field lists
    r"|[-=~^+*#|]{3,}|[-+]--|\|"  # rules and tables
    r"|[*@$] |@|[\w.]+ *= *|[\w*, ]+ : "  # bullets, code, numpy parameters
    r"|[A-Z]\w+:$|\w+ \([^)]*\): "  # section headers and parameters in Google's style
    r")"
)
_COLUMN_GAP = "   "
"""Three spaces inside a line indicate a table."""


class Module(NamedTuple):
    """A source file: its dotted name, the package it is held out with, and its path."""

    name: str
    package: str
    path: Path


def find_modules() -> list[Module]:
    """List the modules of the standard library and of ``PACKAGES``, sorted by name."""
    library = Path(sysconfig.get_path("stdlib"))
    found = [_module(path, library, None) for path in _sources(library)]
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations if spec else None) or ():
            root = Path(place)
            found += [_module(path, root.parent, package) for path in _sources(root)]
    return sorted(found)


def cache_key() -> str:
    """Return a name that changes with the interpreter, the packages and the extraction."""
    versions = [f"{EXTRACTION}", WORD_RULE, sys.version]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} -")
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:16]


def extract(path: Path, progress: Progress) -> int:
    """Write the corpus as JSONL with the columns user, group and text.

    Args:
        path: The file to write; it appears only when it is complete.
        progress: Called with the number of modules read.

    Returns:
        The number of clients. Below ``FEWEST_CLIENTS`` nothing is written.
    """
    modules = find_modules()
    seen: set[tuple[str, ...]] = set()
    lines: list[str] = []
    clients = 0
    for done, module in enumerate(modules):
        if done % 50 == 0:
            progress("reading docstrings", done, len(modules))
        own = list(_new_sentences(module.path, seen))
        if len(own) < FEWEST_SENTENCES:
            continue
        clients += 1
        lines += (
            json.dumps({"user": module.name, "group": module.package, "text": text}) for text in own
        )
    progress("reading docstrings", len(modules), len(modules))
    if clients >= FEWEST_CLIENTS:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, ("\n".join(lines) + "\n").encode())
    return clients


def _sources(root: Path) -> Iterator[Path]:
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts[:-1]
        if not _SKIPPED_FOLDERS.intersection(parts) and not _TEST_FOLDERS.intersection(parts):
            yield path


def _module(path: Path, root: Path, package: str | None) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__") or "__init__"
    # The standard library is many packages; a large third-party one is grouped at its second level.
    group = name.split(".")[0] if package is None else ".".join(name.split(".")[:2])
    return Module(name, group, path)


def _new_sentences(path: Path, seen: set[tuple[str, ...]]) -> Iterator[str]:
    """Yield the sentences of a file's docstrings that were not seen before."""
    for docstring in docstrings_of(path):
        for sentence in docstring_sentences(docstring):
            key = tuple(split_words(sentence, "letters"))
            if key not in seen:
                seen.add(key)
                yield sentence


def parsed_source(path: Path) -> ast.Module | None:
    """Return the syntax tree of a source file; None if it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return None


def docstrings_of(path: Path) -> Iterator[str]:
    """Yield the docstrings of a source file; none if it cannot be parsed."""
    tree = parsed_source(path)
    if tree is None:
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring
        # Expressions hold no docstrings; skipping them halves the time.
        for block in ("handlers", "finalbody", "orelse", "body"):
            children = getattr(node, block, None)
            if isinstance(children, list):
                waiting += reversed(children)


def docstring_sentences(docstring: str) -> Iterator[str]:
    """Yield the sentences of prose in a docstring, each on one line, without markup."""
    for paragraph in re.split(r"\n\s*\n", docstring):
        lines = paragraph.splitlines()
        if any(_NOT_PROSE.match(line) or _COLUMN_GAP in line.strip() for line in lines):
            continue
        text = _MARKUP.sub(r"\1", " ".join(line.strip() for line in lines))
        yield from filter(_is_prose, _SENTENCE_END.split(text))


def _is_prose(sentence: str) -> bool:
    found = split_words(sentence, "letters")
    letters = sum(map(len, found))
    return len(found) >= _FEWEST_WORDS and letters >= _FEWEST_LETTERS * len(
        sentence.replace(" ", "")
    )
