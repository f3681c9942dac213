"""Properties of every format: the same clients, no crash on damage, one sentence per error."""

import bz2
import gzip
import lzma
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.formats.files import COMPRESSIONS, Columns
from fedsi.data.formats.listing import parts_of
from fedsi.data.formats.opening import open_corpus
from fedsi.data.formats.recognition import recognise
from fedsi.data.formats.table import FORMATS
from fedsi.data.left_out_rows import LeftOut
from fedsi.data.prepare import open_population, prepare
from fedsi.data.words import split_words
from fedsi.experiment import DataSettings
from tests.conftest import shared_file
from tests.fedsi.data.formats.writers import TEXTS, WRITERS, tf_example, written

Clients = dict[str, list[list[str]]]


def words(text: str) -> list[str]:
    return split_words(text, "letters")


def clients_of(path: Path, **options: Any) -> Clients:
    """Return the words of every client's rows in order, by a name comparable between formats."""
    clients: Clients = {}
    for row in open_corpus(path, **options).rows():
        clients.setdefault(row.client.replace("/", "_"), []).append(words(row.text))
    return clients


EXPECTED = {u.replace("/", "_"): [words(t) for t in lines] for u, lines in TEXTS.items()}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_recognised_and_gives_the_same_clients(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    assert recognise(path, parts_of(path, LeftOut()))[0] == kind.removesuffix("_lzma")
    assert clients_of(path) == EXPECTED


def test_there_is_a_writer_for_every_format() -> None:
    assert set(FORMATS) <= set(WRITERS)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "leaf", "parquet", "tff_hdf5", "tff_sqlite"])
@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_every_file_may_be_compressed(tmp_path: Path, kind: str, ending: str) -> None:
    path = written(tmp_path, kind)
    packed = path.with_name(path.name + ending)
    packed.write_bytes(COMPRESS[ending](path.read_bytes()))
    assert clients_of(packed) == EXPECTED


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in {"text", "hugging_face"}])
def test_a_folder_of_files_is_one_corpus_and_paths_name_splits(tmp_path: Path, kind: str) -> None:
    for split in ("train", "test"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        written(tmp_path / "corpus" / split, kind)
    rows = list(open_corpus(tmp_path / "corpus").rows())
    own = {"train"} if kind.startswith("tff_sqlite") else {"train", "test"}
    assert {row.split for row in rows} == own
    assert len(rows) == 2 * sum(map(len, TEXTS.values()))


SAMPLES = {
    "flat.csv": (12, 182),
    "flat.jsonl": (12, 182),
    "flat.parquet": (12, 182),
    "leaf_shakespeare": (2, 15),
    "stackoverflow_train.h5": (12, 182),
    "shakespeare_train.h5": (12, 182),
    "stackoverflow.sqlite": (12, 182),
    "stackoverflow.sqlite.lzma": (12, 182),
    "fedjax_stackoverflow_train.sqlite": (12, 182),
}
"""Clients and rows; the LEAF sample holds two of the clients, cut into sentences."""


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_hold_the_same_clients(name: str, cache: Path) -> None:
    path = shared_file(f"format-samples/{name}")
    found = sorted(clients_of(path, cache=cache).values())
    assert (len(found), sum(map(len, found))) == SAMPLES[name]
    reference = sorted(clients_of(shared_file("format-samples/flat.jsonl")).values())
    if name == "leaf_shakespeare":
        beginnings = {speeches[0][0] for speeches in reference}
        assert all(sentences[0][0] in beginnings for sentences in found)
    else:
        # Client ids and the order of a client's rows differ between the sources of the samples.
        assert sorted(map(sorted, found)) == sorted(map(sorted, reference))
    settings = DataSettings(corpus=str(path))
    description = open_population(prepare(settings, cache)).description
    assert description.training_clients + description.heldout_clients == SAMPLES[name][0]


def damageable(path: Path) -> Path:
    """Return a corpus's file, or the largest file of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return max(files, key=lambda file: file.stat().st_size)


def replace(file: Path, content: bytes | bytearray) -> None:
    """Replace a file that may still be mapped into memory."""
    file.unlink()
    file.write_bytes(content)


def read_or_complain(path: Path) -> None:
    try:
        rows = list(open_corpus(path).rows())
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 600  # noqa: PT017
        return
    assert all(isinstance(row, Row) and {type(field) for field in row} == {str} for row in rows)


@pytest.mark.parametrize("kind", WRITERS)
def test_truncated_files_never_crash(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    file = damageable(path)
    content = file.read_bytes()
    for size in {0, 1, len(content) - 1, *range(0, len(content), max(1, len(content) // 60))}:
        replace(file, content[:size])
        read_or_complain(path)


@pytest.mark.parametrize("kind", WRITERS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=40,
)
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_never_crash(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: list[tuple[float, int]]
) -> None:
    path, pristine = _pristine(tmp_path_factory, kind)
    content = bytearray(pristine)
    for place, value in damage:
        content[int(place * (len(content) - 1))] = value
    replace(damageable(path), content)
    read_or_complain(path)


_PRISTINE: dict[str, tuple[Path, bytes]] = {}


def _pristine(factory: pytest.TempPathFactory, kind: str) -> tuple[Path, bytes]:
    """Return a damaged corpus and the original content of its file."""
    if kind not in _PRISTINE:
        path = written(factory.mktemp(kind), kind)
        _PRISTINE[kind] = path, damageable(path).read_bytes()
    return _PRISTINE[kind]


def test_places_of_texts_in_an_arrow_file_are_checked(tmp_path: Path) -> None:
    # Followed unchecked, they end the process.
    path = written(tmp_path, "hugging_face")
    file = damageable(path)
    content = file.read_bytes()
    first = content.index(b"ann/1ann/1")
    for place in range(first - 64, first):
        replace(file, content[:place] + b"\x7f" + content[place + 1 :])
        read_or_complain(path)


CUT = "user,text\n" + "".join(f"u{k % 9},some words {k * 7919 % 1000}\n" for k in range(1000))


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_a_compressed_file_that_was_cut_off_is_never_a_shorter_corpus(
    tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"c.csv{ending}"
    packed = COMPRESS[ending](CUT.encode())
    path.write_bytes(packed)
    assert len(list(open_corpus(path).rows())) == 1000
    for size in {*range(1, len(packed), 97), len(packed) - 1}:
        path.write_bytes(packed[:size])
        with pytest.raises(UserError, match="is damaged"):
            list(open_corpus(path).rows())


@pytest.mark.parametrize("ending", [".gz", ".xz", ".bz2", ".zst"])
def test_files_that_were_compressed_apart_may_be_joined(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c.csv{ending}"
    # The middle is large enough to be unpacked in several steps.
    parts = (CUT.encode(), CUT.partition("\n")[2].encode() * 20, b"ann,the end\n")
    path.write_bytes(b"".join(map(COMPRESS[ending], parts)))
    rows = list(open_corpus(path).rows())
    assert len(rows) == 21_001
    assert rows[-1] == Row("ann", "ann", "the end")


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_leaves_no_partial_store(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    file = damageable(path)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    replace(file, content)
    cache = tmp_path / "cache"
    with pytest.raises(UserError):
        prepare(DataSettings(corpus=str(path)), cache)
    assert [p for p in cache.rglob("*") if p.name != "populations"] == []


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("parquet", "pyarrow.parquet", "parquet"),
        ("tff_hdf5", "h5py", "hdf5"),
        ("fedjax_sqlite", "msgpack", "fedjax"),
        ("hugging_face", "datasets", "huggingface"),
    ],
)
def test_a_missing_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, extra: str
) -> None:
    path = written(tmp_path, kind)

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    package = module.partition(".")[0]
    with pytest.raises(UserError, match=rf"package {package} .*pip install 'fedsi\[{extra}\]'"):
        list(open_corpus(path).rows())


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no corpus .*none.jsonl"):
        open_corpus(tmp_path / "none.jsonl")
    (tmp_path / "x.unknown").write_text("hello")
    with pytest.raises(UserError, match=r"cannot tell the format .*no known ending.*data.format"):
        open_corpus(tmp_path / "x.unknown")
    with pytest.raises(UserError, match="'word' is not allowed: expected auto or jsonl, csv"):
        open_corpus(tmp_path / "x.unknown", "word")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no file of the format csv"):
        open_corpus(tmp_path / "empty", "csv")
    shutil.copytree(written(tmp_path, "text"), tmp_path / "mixed")
    written(tmp_path / "mixed", "csv")
    with pytest.raises(UserError, match="could be csv or text"):
        open_corpus(tmp_path / "mixed")
    assert {row.client for row in open_corpus(tmp_path / "mixed", "text").rows()} == set(TEXTS)


def test_data_format_overrides_the_ending(tmp_path: Path) -> None:
    path = written(tmp_path, "csv").rename(tmp_path / "c.dat")
    assert clients_of(path, kind="csv") == EXPECTED


@pytest.mark.parametrize("kind", ["tff_sqlite", "fedjax_sqlite"])
def test_a_database_of_another_kind(tmp_path: Path, kind: str) -> None:
    other = {"tff_sqlite": "fedjax_sqlite", "fedjax_sqlite": "tff_sqlite"}[kind]
    path = written(tmp_path, other)
    with pytest.raises(UserError, match=r"has no table .* name its kind with data.format"):
        list(open_corpus(path, kind).rows())


@pytest.mark.parametrize("kind", ["tff_hdf5", "tff_sqlite", "fedjax_sqlite", "parquet", "csv"])
def test_a_text_column_that_is_not_there(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    with pytest.raises(UserError, match=r"no (column|feature) 'words'.*data.text_column"):
        list(open_corpus(path, columns=Columns(text="words")).rows())


def _write_client(path: Path, kind: str, client: object) -> None:
    """Write a database with one client, whose id may be of any type."""
    columns = {
        "tff_sqlite": ("examples", "client_id, split_name, serialized_example_proto"),
        "fedjax_sqlite": ("federated_data", "client_id, num_examples, data"),
    }
    packed = zlib.compress(msgpack.packb({"tokens": ["some text"]}))
    values = {
        "tff_sqlite": (client, None, tf_example("some text")),
        "fedjax_sqlite": (client, 1, packed),
    }
    table, names = columns[kind]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {table} ({names})")
        connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", values[kind])


@pytest.mark.parametrize("kind", ["tff_sqlite", "fedjax_sqlite"])
@pytest.mark.parametrize(("client", "expected"), [(7, "7"), (b"ann", "ann"), ("ann", "ann")])
def test_ids_in_a_database_may_be_numbers_or_bytes(
    tmp_path: Path, kind: str, client: object, expected: str
) -> None:
    _write_client(tmp_path / "c.sqlite", kind, client)
    assert list(open_corpus(tmp_path / "c.sqlite").rows()) == [Row(expected, expected, "some text")]


@pytest.mark.parametrize("kind", ["tff_sqlite", "fedjax_sqlite"])
def test_rows_of_a_database_without_a_client_are_counted(tmp_path: Path, kind: str) -> None:
    _write_client(tmp_path / "c.sqlite", kind, None)
    corpus = open_corpus(tmp_path / "c.sqlite")
    for _ in range(2):
        assert list(corpus.rows()) == []
        assert corpus.left_out.counts == {"without a user": 1}
