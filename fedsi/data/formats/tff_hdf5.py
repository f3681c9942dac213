"""TensorFlow Federated's HDF5 files: ``/examples/<client id>/<feature>``."""

from collections.abc import Iterator
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, optional
from fedsi.data.formats.tables import TEXT_COLUMNS
from fedsi.errors import UserError


def read_tff_hdf5(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of every client."""
    h5py = optional("h5py", "hdf5")
    place = Place()
    with faults(part.path, place), h5py.File(part.path, "r") as file:
        if "examples" not in file:
            raise UserError(f"{part.path} has no group 'examples', which TFF's HDF5 files have")
        for client in file["examples"]:
            place.text = f"client {client!r}"
            features = file["examples"][client]
            texts = _strings(features[text_feature(features, columns, part)])
            labels = [""] * len(texts)
            if columns.label and columns.label in features:
                labels = _strings(features[columns.label])
            for text, label in zip(texts, labels, strict=True):
                yield Row(client=client, group=client, text=text, label=label)


def text_feature(features: Any, columns: Columns, part: Part) -> str:
    """Return which of a client's features holds the text.

    Raises:
        UserError: None of the usual ones is there, or not the one that was named.
    """
    candidates = (columns.text,) if columns.text else TEXT_COLUMNS
    found = next((name for name in candidates if name in features), None)
    if found is None:
        there = ", ".join(sorted(map(str, features)))
        raise UserError(
            f"{part.path}: no feature {' or '.join(map(repr, candidates))}; features there: "
            f"{there}; name yours with data.text_column"
        )
    return found


def _strings(feature: Any) -> list[str]:
    return [
        value.decode() if isinstance(value, bytes) else str(value) for value in feature[()].tolist()
    ]
