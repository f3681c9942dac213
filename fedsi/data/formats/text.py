"""Folders of text files: one client per file; its id is the path below the folder."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath

from fedsi.data.corpus import Row
from fedsi.data.formats.files import COMPRESSIONS, Columns, Part, Place, faults, lines_of
from fedsi.data.formats.rows import USER_COLUMNS, folder_columns
from fedsi.data.left_out_rows import NO_USER

SUFFIXES = (".txt",)

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


def split_sentences(text: str) -> Iterator[str]:
    """Split text at line ends and after full stops, question marks and exclamation marks."""
    for line in text.splitlines():
        yield from filter(None, _SENTENCE_END.split(line))


def read_text_file(part: Part, _columns: Columns) -> Iterator[Row]:
    """Read one text file line by line; files of one sub-folder form a group.

    Below a folder called ``user=ann`` all files belong to that client.
    """
    name = PurePosixPath(part.name)
    named = folder_columns(part.name)
    client = next((named[c] or "" for c in USER_COLUMNS if c in named), _client(part.name))
    group = client if named or len(name.parts) == 1 else str(name.parent)
    place = Place()
    with faults(part, place), closing(lines_of(part, place)) as lines:
        for line in lines:
            for sentence in split_sentences(line):
                if client:
                    yield Row(client=client, group=group, text=sentence)
                else:
                    part.left_out.counts[NO_USER] += 1


def _client(name: str) -> str:
    """Return a file's path without its suffix; other dots are part of the name."""
    for endings in (COMPRESSIONS, SUFFIXES):
        ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
        name = name[: len(name) - len(ending)] or name
    return name
