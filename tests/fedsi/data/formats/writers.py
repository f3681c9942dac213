"""Writers of the same texts in every format, to test readers without a corpus."""

import csv
import json
import lzma
import sqlite3
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import datasets
import h5py
import msgpack
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

Texts = Mapping[str, list[str]]

TEXTS: Texts = {
    "ann/1": ["so it begins", "née ümlaut", 'she said "no", twice'],
    "bob": ["a b c d"],
    "carl": ["one two", "three", "four five six"],
}


def flat(texts: Texts) -> list[dict[str, str]]:
    return [{"user": user, "text": text} for user, lines in texts.items() for text in lines]


def write_jsonl(path: Path, texts: Texts) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in flat(texts)))


def write_csv(path: Path, texts: Texts) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["user", "text"])
        writer.writeheader()
        writer.writerows(flat(texts))


def write_json(path: Path, texts: Texts) -> None:
    path.write_text(json.dumps(flat(texts), indent=1))


def write_by_user(path: Path, texts: Texts) -> None:
    path.write_text(json.dumps(texts, indent=1))


def write_arrow(path: Path, texts: Texts) -> None:
    table = pyarrow.Table.from_pylist(flat(texts))
    with pyarrow.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def write_chat(path: Path, texts: Texts) -> None:
    lines = (f"12/31/20, 9:41 PM - {row['user']}: {row['text']}\n" for row in flat(texts))
    path.write_text("".join(lines), encoding="utf-8")


def write_parquet(path: Path, texts: Texts) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat(texts)), path)


def write_leaf(path: Path, texts: Texts) -> None:
    data = {user: {"x": lines, "y": ["" for _ in lines]} for user, lines in texts.items()}
    counts = [len(lines) for lines in texts.values()]
    path.write_text(json.dumps({"users": list(texts), "num_samples": counts, "user_data": data}))


def write_hdf5(path: Path, texts: Texts) -> None:
    with h5py.File(path, "w") as file:
        for user, lines in texts.items():
            # A slash in a name would create a group.
            group = file.create_group("examples/" + user.replace("/", "_"))
            group.create_dataset("tokens", data=[line.encode() for line in lines])
            group.create_dataset("score", data=list(range(len(lines))))


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tf_example(text: str) -> bytes:
    """Serialise a tf.train.Example with a text, an integer and a float."""
    integer = field(3, field(1, varint(7)))
    number = field(2, field(1, struct.pack("<f", 0.5)))
    entries = {b"tokens": field(1, field(1, text.encode())), b"score": integer, b"w": number}
    features = b"".join(field(1, field(1, key) + field(2, value)) for key, value in entries.items())
    return field(1, features)


def write_tff_sqlite(path: Path, texts: Texts) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
        )
        connection.executemany(
            "INSERT INTO examples VALUES ('train', ?, ?)",
            [(row["user"], tf_example(row["text"])) for row in flat(texts)],
        )


def write_tff_sqlite_lzma(path: Path, texts: Texts) -> None:
    plain = path.with_name("plain.sqlite")
    plain.unlink(missing_ok=True)
    write_tff_sqlite(plain, texts)
    path.write_bytes(lzma.compress(plain.read_bytes(), lzma.FORMAT_ALONE))
    plain.unlink()


def write_fedjax(path: Path, texts: Texts) -> None:
    def packed(lines: list[str]) -> bytes:
        strings = msgpack.packb([[len(lines)], [line.encode() for line in lines]])
        numbers = msgpack.packb([[len(lines)], b"int64", bytes(8 * len(lines))])
        features = {"tokens": msgpack.ExtType(4, strings), "score": msgpack.ExtType(1, numbers)}
        return zlib.compress(msgpack.packb(features))

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE federated_data (client_id BLOB PRIMARY KEY, data BLOB, num_examples INT)"
        )
        connection.executemany(
            "INSERT INTO federated_data VALUES (?, ?, ?)",
            [(user.encode(), packed(lines), len(lines)) for user, lines in texts.items()],
        )


def write_text_folder(path: Path, texts: Texts) -> None:
    for user, lines in texts.items():
        file = path / f"{user}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines), encoding="utf-8")


def write_hugging_face(path: Path, texts: Texts) -> None:
    datasets.Dataset.from_list(flat(texts)).save_to_disk(str(path))


WRITERS: dict[str, tuple[str, Callable[[Path, Texts], None]]] = {
    "jsonl": ("c.jsonl", write_jsonl),
    "csv": ("c.csv", write_csv),
    "json": ("c.json", write_json),
    "by_user": ("c.json", write_by_user),
    "arrow": ("c.arrow", write_arrow),
    "chat": ("c.txt", write_chat),
    "parquet": ("c.parquet", write_parquet),
    "leaf": ("c.json", write_leaf),
    "tff_hdf5": ("c.h5", write_hdf5),
    "tff_sqlite": ("c.sqlite", write_tff_sqlite),
    "tff_sqlite_lzma": ("c.sqlite.lzma", write_tff_sqlite_lzma),
    "fedjax_sqlite": ("f.sqlite", write_fedjax),
    "text": ("folder", write_text_folder),
    "hugging_face": ("saved", write_hugging_face),
}
"""By format: the name of a file or folder, and what writes it."""


def written(folder: Path, kind: str, texts: Texts = TEXTS) -> Path:
    """Write texts in a format and return their path."""
    name, write = WRITERS[kind]
    write(folder / name, texts)
    return folder / name
