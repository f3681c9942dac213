"""Files of labels with their texts, ``task.label_file``."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from fedsi.data.labels import LabelSet
from fedsi.errors import UserError
from fedsi.files import read_text

LABEL, TEXT = "label", "text"


def read_labels(path: Path, most: int) -> LabelSet:
    """Read labels and texts from a CSV file or JSON lines with the columns label and text.

    Args:
        path: The file.
        most: Most labels that are allowed.

    Raises:
        UserError: The file cannot be read, lacks a column, or has a label twice, without text, or
            too many of them.
    """
    texts: dict[str, str] = {}
    try:
        for place, name, text in _rows(path, read_text(path)):
            if name in texts:
                raise UserError(f"{path}, {place}: the label {name!r} is there twice; keep one")
            if not name or not text.strip():
                raise UserError(
                    f"{path}, {place}: the label {name!r} has no text; write one into the column "
                    f"{TEXT!r}"
                )
            texts[name] = text
    except OSError as error:
        raise UserError(f"cannot read the labels {path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"cannot read the labels {path}: {error}") from None
    if len(texts) > most:
        raise UserError(
            f"{path} has {len(texts):,} labels, more than task.labels = {most:,}; raise it"
        )
    return LabelSet(tuple(texts), tuple(texts.values()))


def _rows(path: Path, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the label and the text of each line."""
    lines = text.splitlines()
    if path.suffix == ".csv":
        reader = csv.DictReader(lines, strict=True)
        records = ((reader.line_num, record) for record in reader)
    else:
        records = (
            (number, json.loads(line)) for number, line in enumerate(lines, start=1) if line.strip()
        )
    for number, record in records:
        place = f"line {number}"
        if not isinstance(record, dict) or not {LABEL, TEXT} <= record.keys():
            raise UserError(
                f"{path}, {place}: no columns {LABEL!r} and {TEXT!r}; write a .csv file with this "
                "header, or JSON lines with these keys"
            )
        yield place, str(record[LABEL] or ""), str(record[TEXT] or "")
