"""Hugging Face ``datasets``: folders of ``save_to_disk`` and objects in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults
from fedsi.data.formats.rows import RowMaker
from fedsi.data.left_out_rows import LeftOut
from fedsi.extras import optional

MARKERS = ("dataset_dict.json", "state.json")
"""Files of a ``save_to_disk`` folder: one with several splits, or one with a single split."""

_BATCH = 1000


def read_hugging_face(part: Part, columns: Columns) -> Iterator[Row]:
    """Read all splits of a folder that ``save_to_disk`` wrote."""
    datasets = optional("datasets", "huggingface")
    place = Place()
    with faults(part, place):
        loaded = datasets.load_from_disk(str(part.path))
        splits = loaded if isinstance(loaded, dict) else {"": loaded}
        for dataset in splits.values():
            # Arrow trusts the offsets in a file. Without validation, damaged offsets crash the
            # process.
            dataset.data.validate(full=True)
    for split, dataset in splits.items():
        for row in dataset_rows(dataset, part, columns):
            yield row._replace(split=row.split or split)


def dataset_rows(dataset: Any, part: Part, columns: Columns) -> Iterator[Row]:
    """Read a ``datasets.Dataset`` or ``IterableDataset`` with a user and a text column."""
    place = Place("the first row")
    rows = RowMaker(part, columns)
    with faults(part, place):
        plain = dataset.with_format(None)
        names = plain.column_names or list(next(iter(plain), {}))
        needed = rows.present(names, place)
        classes = _class_names(dataset.features or {}, needed)
        place.what = "row"
        for batch in plain.select_columns(needed).iter(_BATCH):
            for values in zip(*(batch[name] for name in needed), strict=True):
                place.number += 1
                record = dict(zip(needed, values, strict=True))
                for name, named in classes.items():
                    if record[name] is not None and record[name] >= 0:  # -1: without a class
                        record[name] = named(record[name])
                yield from rows.rows(record, place)


def _class_names(features: Any, needed: list[str]) -> dict[str, Callable[[int], str]]:
    """Return, for columns of class numbers, the function that names a class."""
    return {
        name: features[name].int2str
        for name in needed
        if name in features and hasattr(features[name], "int2str")
    }


def in_memory(dataset: Any, left_out: LeftOut) -> Part:
    """Return a part that represents a dataset in memory in error messages and counts."""
    name = type(dataset).__name__
    return Part(Path(f"<{name}>"), name, left_out)
