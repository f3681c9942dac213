"""Corpora in memory: Python mappings, Hugging Face datasets, partitioners."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from fedsi.data.corpus import Corpus, Row
from fedsi.data.formats.cells import CellError, id_of
from fedsi.data.formats.files import Columns
from fedsi.data.formats.hugging_face import dataset_rows, in_memory
from fedsi.data.left_out_rows import LeftOut
from fedsi.errors import UserError


def corpus_from_mapping(texts: Mapping[Any, Iterable[str]], name: str = "mapping") -> Corpus:
    """Make a corpus from the texts of each client.

    Args:
        texts: The texts of each client; each is an example. They are copied. Ids may be texts,
            numbers or bytes, including those of NumPy or PyTorch.
        name: Its name in results.

    Raises:
        UserError: A value is not text.
    """
    copied: dict[str, tuple[str, ...]] = {}
    for key, examples in texts.items():
        client = _client(key)
        if client in copied:
            raise UserError(f"two clients are called {client!r}; give each an id of its own")
        copied[client] = _strings(client, examples)

    def rows() -> Iterator[Row]:
        for client, examples in copied.items():
            for text in examples:
                yield Row(client=client, group=client, text=text)

    return _corpus(name, rows)


def _client(key: Any) -> str:
    try:
        client = id_of(key)
    except CellError as error:
        raise UserError(f"a client's id is {error}") from None
    if not client:
        raise UserError(f"{key!r} is no client's id; give every client a name")
    return client


def _strings(client: str, examples: Any) -> tuple[str, ...]:
    if isinstance(examples, str):
        raise UserError(f"client {client!r} has one string, expected a list of strings")
    if not isinstance(examples, Iterable):
        raise UserError(
            f"client {client!r} has a {type(examples).__name__}, expected a list of strings"
        )
    strings = tuple(examples)
    for text in strings:
        if not isinstance(text, str):
            raise UserError(
                f"client {client!r} has a {type(text).__name__} among its texts, expected "
                "strings only"
            )
    return strings


def corpus_from_dataset(
    dataset: Any,
    user_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = "label",
    name: str = "dataset",
) -> Corpus:
    """Make a corpus from a ``datasets.Dataset``, or from a ``DatasetDict`` with its splits.

    Args:
        dataset: Its rows have a user and a text column.
        user_column: The column that names the client; None for the usual names.
        text_column: The column with the text; None for the usual names.
        label_column: A column for re-partitioning.
        name: Its name in results.

    Raises:
        UserError: A column is missing or holds something that is not text.
    """
    if not hasattr(dataset, "with_format") and not isinstance(dataset, dict):
        raise UserError(
            f"a {type(dataset).__name__} is no data set; pass a datasets.Dataset, for example "
            "Dataset.from_list(rows), or use corpus_from_mapping"
        )
    columns = Columns(user_column, text_column, label_column)
    splits = dataset if isinstance(dataset, dict) else {"": dataset}
    left_out = LeftOut()

    def rows() -> Iterator[Row]:
        left_out.counts.clear()
        for split, part in splits.items():
            for row in dataset_rows(part, in_memory(part, left_out), columns):
                yield row._replace(split=row.split or split)

    return _corpus(name, rows, left_out)


def corpus_from_partitioner(
    partitioner: Any,
    text_column: str | None = None,
    label_column: str | None = "label",
    name: str = "partitioner",
) -> Corpus:
    """Make a corpus from a partitioner of ``flwr_datasets``: one client per partition.

    Args:
        partitioner: Its dataset is set; ``num_partitions`` and ``load_partition`` are used.
        text_column: The column with the text; None for the usual names.
        label_column: A column for re-partitioning.
        name: Its name in results.

    Raises:
        UserError: A column is missing or holds something that is not text, or the partitioner
            fails.
    """
    columns = Columns("client", text_column, label_column)
    left_out = LeftOut()

    def rows() -> Iterator[Row]:
        left_out.counts.clear()
        for number, part in enumerate(_partitions(partitioner)):
            client = [str(number)] * len(part)
            kept = part.remove_columns([c for c in ("client",) if c in part.column_names])
            named = kept.add_column("client", client)
            yield from dataset_rows(named, in_memory(part, left_out), columns)

    return _corpus(name, rows, left_out)


def _partitions(partitioner: Any) -> Iterator[Any]:
    try:
        for number in range(partitioner.num_partitions):
            yield partitioner.load_partition(number)
    except Exception as error:  # partitioners raise arbitrary types, for example for empty clients
        raise UserError(f"the {type(partitioner).__name__} fails: {error}") from None


def _corpus(
    name: str, rows: Callable[[], Iterator[Row]], left_out: LeftOut | None = None
) -> Corpus:
    digest = sha256(name.encode())
    for row in rows():
        digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    return Corpus(name, digest.hexdigest(), rows, left_out or LeftOut())
