"""Cells of every type become ids and texts, or an error; zero, false and empty are values."""

import datetime
import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import h5py
import msgpack
import numpy as np
import pandas
import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
import torch

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.formats.cells import CellError, id_of, texts_of
from fedsi.data.formats.files import Columns
from fedsi.data.formats.opening import open_corpus
from tests.fedsi.data.formats.writers import field, tf_example, varint


def rows_of(path: Path, *, skip_bad: bool = False, **columns: str) -> list[Row]:
    return list(open_corpus(path, columns=Columns(**columns), skip_bad=skip_bad).rows())


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann", "ann"), (" ann ", " ann "), (0, "0"), (False, "False"), (1.0, "1"), (1.5, "1.5"),
        (0.0, "0"), (1e300, str(int(1e300))), (None, ""), (float("nan"), ""), (pandas.NaT, ""),
        (pandas.NA, ""), (b"ann", "ann"), (b"\xff\x00", "ff00"), (b"\x00\x01", "0001"),
        (bytearray(b"ann"), "ann"), (memoryview(b"ann"), "ann"), (np.int64(0), "0"),
        (np.float32(2), "2"), (np.str_("ann"), "ann"), (np.bytes_(b"ann"), "ann"),
        (np.array(3), "3"), (torch.tensor(3), "3"), (torch.tensor(2.0), "2"),
        (pyarrow.scalar("ann"), "ann"), (pyarrow.scalar(None, pyarrow.int32()), ""),
        (Decimal("7.0"), "7"), (Decimal("7.5"), "7.5"), (UUID(int=1), str(UUID(int=1))),
        (datetime.date(2020, 1, 2), "2020-01-02"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_ids(value: object, expected: str) -> None:
    assert id_of(value) == expected


@pytest.mark.parametrize("value", [["a"], {"id": 1}, (1,), {}, object(), np.array([1, 2])])
def test_what_is_no_id_is_refused_with_its_type(value: object) -> None:
    with pytest.raises(CellError, match=r"^(a|an) \w+"):
        id_of(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("so it begins", ["so it begins"]), (None, [""]), ("", [""]), ([], [""]), (0, ["0"]),
        (["so", "it", "begins"], ["so it begins"]), ([b"so", b"it", b"", b""], ["so it"]),
        (["so", None, "it"], ["so it"]), (["so it", "begins"], ["so it", "begins"]),
        ([["so", "it"], ["begins"]], ["so it", "begins"]), (("so", "it"), ["so it"]),
        (np.array(["so", "it"]), ["so it"]), (np.array([b"so", b""]), ["so"]),
        (["chapter", 1], ["chapter 1"]), (b"caf\xc3\xa9", ["café"]),
    ],
)  # fmt: skip
def test_texts(value: object, expected: list[str]) -> None:
    assert texts_of(value) == expected


@pytest.mark.parametrize("value", [[1, 2], np.array([[1, 2], [3, 4]]), [1.5], {"a": "b"}])
def test_numbers_and_objects_are_no_texts(value: object) -> None:
    with pytest.raises(CellError, match=r"list of numbers|an object with 'a'"):
        texts_of(value)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("zero", [0, False])
def test_a_group_split_or_label_of_zero_is_one(tmp_path: Path, ending: str, zero: object) -> None:
    path = tmp_path / f"c.{ending}"
    if ending == "csv":
        path.write_text(f"user,group,split,label,text\nann,{zero},{zero},{zero},hi\n")
    else:
        record = {"user": "ann", "group": zero, "split": zero, "label": zero, "text": "hi"}
        jsonl(path, record)
    assert rows_of(path, label="label") == [Row("ann", str(zero), "hi", str(zero), str(zero))]


def test_a_hierarchy_of_zero_is_a_group(tmp_path: Path) -> None:
    users = ["0", "b"]
    data = {user: {"x": ["hi"], "y": [0]} for user in users}
    path = tmp_path / "leaf.json"
    path.write_text(json.dumps({"users": users, "hierarchies": [0, None], "user_data": data}))
    assert [(row.client, row.group) for row in rows_of(path)] == [("0", "0"), ("b", "b")]


def test_a_label_of_zero_in_an_example(tmp_path: Path) -> None:
    def integers(*values: int) -> bytes:
        return field(3, field(1, b"".join(map(varint, values))))

    def feature(key: bytes, value: bytes) -> bytes:
        return field(1, field(1, key) + field(2, value))

    tokens = field(1, field(1, b"so") + field(1, b"it"))
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as database, database:
        database.execute("CREATE TABLE examples (split_name, client_id, serialized_example_proto)")
        for label in (0, 7, 2**64 - 1):
            features = feature(b"tokens", tokens) + feature(b"label", integers(label))
            database.execute("INSERT INTO examples VALUES (0, 5, ?)", (field(1, features),))
    rows = rows_of(tmp_path / "c.sqlite", label="label")
    assert rows == [Row("5", "5", "so it", "0", label) for label in ("0", "7", "-1")]


def test_nested_users_and_texts_are_named_with_dots(tmp_path: Path) -> None:
    record = {"user": {"id": 7, "name": {"full": "ann"}}, "a.b": "x", "post": {"body": "hi"}}
    path = jsonl(tmp_path / "c.jsonl", record, {"user": None, "post": {"body": "ho"}}, record)
    assert rows_of(path, user="user.name.full", text="post.body") == [Row("ann", "ann", "hi")] * 2
    assert rows_of(path, user="user.id", text="a.b")[0] == Row("7", "7", "x")
    with pytest.raises(UserError, match=r"'user' holds an object with 'id', 'name'; .* user.id"):
        rows_of(path, text="a.b")
    with pytest.raises(UserError, match=r"no column 'author.id' ?; columns there"):
        rows_of(path, user="author.id", text="a.b")
    with pytest.raises(UserError, match="in which there is no 'deep'"):
        rows_of(path, user="user.id.deep", text="a.b")


def test_keys_that_later_records_leave_out_are_missing_values(tmp_path: Path) -> None:
    records = [
        {"user": "a", "text": "hi"},
        {"text": "ho"},
        {"user": "a"},
        {"user_id": 3, "text": "x"},
    ]
    corpus = open_corpus(jsonl(tmp_path / "c.jsonl", *records))
    assert [(r.client, r.text) for r in corpus.rows()] == [("a", "hi"), ("a", ""), ("3", "x")]
    assert corpus.left_out.counts == {"without a user": 1}


ARRAYS: dict[str, Callable[[], Any]] = {
    "floats": lambda: pyarrow.array([1.0, None, 2.0]),
    "dictionary": lambda: pyarrow.array(["1", None, "2"]).dictionary_encode(),
    "fixed bytes": lambda: pyarrow.array([b"1", None, b"2"], pyarrow.binary(1)),
    "large": lambda: pyarrow.array(["1", None, "2"], pyarrow.large_string()),
    "decimal": lambda: pyarrow.array([Decimal(1), None, Decimal(2)]),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "stream.arrow"])
def test_columns_of_arrow_s_types(tmp_path: Path, kind: str, ending: str) -> None:
    tokens = pyarrow.array([["so", "it"], ["is"], []])
    table = pyarrow.table({"user": ARRAYS[kind](), "tokens": tokens, "other": [1, 2, 3]})
    path = tmp_path / f"c.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif ending == "feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        new = pyarrow.ipc.new_stream if ending.startswith("stream") else pyarrow.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table)
    corpus = open_corpus(path)
    assert [(r.client, r.text) for r in corpus.rows()] == [("1", "so it"), ("2", "")]
    assert corpus.left_out.counts == {"without a user": 1}


def test_view_columns(tmp_path: Path) -> None:
    view = pyarrow.array(["so it"], pyarrow.string_view())
    table = pyarrow.table({"user": pyarrow.array([b"\xff"], pyarrow.binary_view()), "text": view})
    with pyarrow.ipc.new_file(tmp_path / "c.arrow", table.schema) as writer:
        writer.write_table(table)
    assert rows_of(tmp_path / "c.arrow") == [Row("ff", "ff", "so it")]


def test_folders_that_name_a_column(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["hi"]})
    for name in (
        "user=ann",
        "user=b%2Fc",
        "user=0",
        "user=test",
        "user=__HIVE_DEFAULT_PARTITION__",
    ):
        (tmp_path / name).mkdir()
        pyarrow.parquet.write_table(table, tmp_path / name / "part-0.parquet")
    corpus = open_corpus(tmp_path)
    rows = list(corpus.rows())
    assert {row.client for row in rows} == {"ann", "b/c", "0", "test"}
    assert {row.split for row in rows} == {""}
    assert corpus.left_out.counts == {"without a user": 1}


def test_folders_that_name_a_split(tmp_path: Path) -> None:
    (tmp_path / "split=train" / "lang=en").mkdir(parents=True)
    path = tmp_path / "split=train" / "lang=en" / "part-0.csv"
    path.write_text("user;text\nann;hi\n")
    assert rows_of(tmp_path, label="lang") == [Row("ann", "ann", "hi", "train", "en")]


HDF5: dict[str, tuple[Any, list[str]]] = {
    "rows of tokens": (np.array([[b"so", b"it"], [b"is", b""]]), ["so it", "is"]),
    "variable-length": (np.array(["so it", "is"], dtype=h5py.string_dtype()), ["so it", "is"]),
    "scalar": (b"so it is", ["so it is"]),
    "without examples": (np.zeros(0), []),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5_files_as_people_write_them(tmp_path: Path, kind: str) -> None:
    values, texts = HDF5[kind]
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("examples/ann/tokens", data=values)
        file.create_dataset("examples/b/c/tokens", data=np.array([b"hi"]))
    rows = rows_of(tmp_path / "c.h5")
    assert [row.text for row in rows if row.client == "ann"] == texts
    assert [row.text for row in rows if row.client == "b/c"] == ["hi"]


def test_hdf5_numbers_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("examples/ann/tokens", data=np.array([[1, 2], [3, 4]]))
    with pytest.raises(UserError, match="client 'ann': an example is a list of numbers"):
        rows_of(tmp_path / "c.h5")


def test_fedjax_rows_of_tokens_and_ids_of_bytes(tmp_path: Path) -> None:
    strings = msgpack.packb([[2, 3], [b"so", b"it", b"", b"is", b"", b""]])
    labels = msgpack.packb([[2], b"int64", np.array([0, 1]).tobytes()])
    features = {"tokens": msgpack.ExtType(4, strings), "label": msgpack.ExtType(1, labels)}
    with closing(sqlite3.connect(tmp_path / "c.sqlite")) as database, database:
        database.execute("CREATE TABLE federated_data (client_id, data, num_examples)")
        packed = zlib.compress(msgpack.packb(features))
        database.execute("INSERT INTO federated_data VALUES (?, ?, 2)", (b"\xfe\xed", packed))
    rows = rows_of(tmp_path / "c.sqlite", label="label")
    assert rows == [Row("feed", "feed", "so it", label="0"), Row("feed", "feed", "is", label="1")]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_rows_in_a_log_beside_a_database_are_read_and_hashed(tmp_path: Path, mode: str) -> None:
    path, here = tmp_path / "db.sqlite", tmp_path / "here"
    here.mkdir()
    insert = "INSERT INTO examples VALUES ('train', ?, ?)"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA cache_size=1")
        database.execute("CREATE TABLE examples (split_name, client_id, serialized_example_proto)")
        database.execute(insert, ("ann", tf_example("so it begins")))
        if mode == "wal":
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute(insert, ("bob", tf_example("so it ends")))
        else:  # a transaction that never ended, half of it in the database
            database.execute("BEGIN")
            for _ in range(2000):
                database.execute(insert, ("bob", tf_example("so it ends")))
        for file in tmp_path.glob("db.sqlite*"):
            (here / file.name).write_bytes(file.read_bytes())
    clients = [row.client for row in rows_of(here / "db.sqlite")]
    assert clients == (["ann", "bob"] if mode == "wal" else ["ann"])
    assert {file.name for file in here.iterdir()} <= {
        f"db.sqlite{e}" for e in ("", "-wal", "-shm", "-journal")
    }
    with_log = open_corpus(here / "db.sqlite").sha256
    ending = "-wal" if mode == "wal" else "-journal"
    (here / f"db.sqlite{ending}").unlink()
    assert open_corpus(here / "db.sqlite").sha256 != with_log


def test_text_files_below_a_folder_that_names_a_user_are_that_client_s(tmp_path: Path) -> None:
    for name in ("user=ann/a.txt", "user=ann/b.txt", "user=bob/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("hi\n")
    rows = rows_of(tmp_path)
    assert [(row.client, row.group) for row in rows] == [("ann", "ann")] * 2 + [("bob", "bob")]


def test_lists_of_objects_are_refused_as_such() -> None:
    with pytest.raises(CellError, match=r"a list of objects with 'role', 'content'; write a text"):
        texts_of([{"role": "user", "content": "so it begins"}])


def test_maps_are_refused_with_their_type(tmp_path: Path) -> None:
    maps = pyarrow.array(
        [[("a", "so it begins")]], pyarrow.map_(pyarrow.string(), pyarrow.string())
    )
    table = pyarrow.table({"user": ["ann"], "text": maps})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "t.feather")
    for name in ("t.parquet", "t.feather"):
        with pytest.raises(
            UserError, match=r"column .text. holds a map<string, string.*>, expected"
        ):
            list(open_corpus(tmp_path / name).rows())


def test_the_tables_of_another_database_are_named(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "own.db")) as connection:
        connection.execute("CREATE TABLE posts (user TEXT, text TEXT)")
    with pytest.raises(UserError, match=r"\(tables there: 'posts'\); export one with a user and a"):
        list(open_corpus(tmp_path / "own.db").rows())
