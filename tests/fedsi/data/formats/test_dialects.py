"""Real-world tables: delimiters, headers, malformed rows, arrays, archives, zstandard."""

import io
import json
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment, UserError
from fedsi.data.corpus import Row
from fedsi.data.formats import tabular as tables
from fedsi.data.formats.files import Columns
from fedsi.data.formats.opening import open_corpus
from fedsi.data.left_out_rows import LeftOut

TWO = [Row("ann", "ann", "so it begins"), Row("bob", "bob", "so, it; ends")]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path, columns: Columns = Columns(), *, skip: bool = False) -> list[Row]:  # noqa: B008
    return list(open_corpus(path, columns=columns, skip_bad=skip).rows())


def counted(path: Path) -> tuple[int, dict[str, int]]:
    corpus = open_corpus(path, skip_bad=True)
    return len(list(corpus.rows())), dict(corpus.left_out.counts)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("blank", ["", " "])
def test_the_delimiter_is_that_under_which_the_header_names_a_user_and_a_text(
    tmp_path: Path, delimiter: str, blank: str
) -> None:
    lines = [["user", "date", "text"], ["ann", "1", "so it begins"], ["bob", "2", '"so, it; ends"']]
    content = "".join((delimiter + blank).join(line) + "\n" for line in lines)
    assert rows_of(write(tmp_path / "t.csv", content)) == TWO


def test_endings_of_tabs_and_the_line_that_excel_writes(tmp_path: Path) -> None:
    content = "user\ttext\nann\tso it begins\nbob\tso, it; ends\n"
    assert rows_of(write(tmp_path / "t.tsv", content)) == TWO
    sep = 'sep=!\r\nuser!text\r\nann!so it begins\r\nbob!"so, it; ends"\r\n'
    assert rows_of(write(tmp_path / "t.csv", sep)) == TWO


def test_the_delimiter_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user:text\nann:so it begins\nbob:so, it; ends\n")
    assert rows_of(path, Columns(delimiter=":")) == TWO
    with pytest.raises(UserError, match=r"the header: no column 'user'.*there: user:text"):
        rows_of(path)
    tabs = write(tmp_path / "u.csv", "user\ttext\nann\thi\n")
    assert rows_of(tabs, Columns(delimiter="tab")) == [Row("ann", "ann", "hi")]


@pytest.mark.parametrize("delimiter", ["ab", '"', "\n"])
def test_other_delimiters_are_refused(delimiter: str) -> None:
    with pytest.raises(UserError, match=r"data.delimiter .* expected one character"):
        Experiment(data={"corpus": "t.csv", "delimiter": delimiter})


def test_columns_that_are_not_found_are_reported_at_the_header_as_they_are_cut(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "t.csv", "who;what\nann;hi, you\nbob;hi\n")
    with pytest.raises(UserError, match=r"the header: no column .*there: what, who;"):
        rows_of(path)


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=5))
def test_what_python_writes_is_read_under_the_right_delimiter(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]]
) -> None:
    import csv

    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=random.Random(len(records)).choice(",;\t|"))
    writer.writerows([("user", "text"), *records])
    try:
        content = buffer.getvalue().encode()
    except UnicodeEncodeError:
        return
    path = write(tmp_path_factory.mktemp("t") / "t.csv", content)
    assert [(r.client, r.text) for r in rows_of(path)] == [(u, t) for u, t in records if u]


def test_headers_with_blanks_and_twice_the_same_name(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ' user , "text"\nann , so it begins\n')
    assert [row.text for row in rows_of(path)] == ["so it begins"]
    path = write(tmp_path / "t.csv", "user,text,text\nann,a,b\n")
    with pytest.raises(UserError, match="the column 'text' is there twice; rename"):
        rows_of(path)
    path = write(tmp_path / "t.csv", "user,id,text,id\nann,1,so it begins,2\n")
    assert rows_of(path) == TWO[:1], "columns that are not read may have any names"


_GOOD = '{"user":"ann","text":"so it begins"}\n'
BAD_ROWS: dict[str, tuple[str, str | bytes, str]] = {
    "too few": ("t.csv", "user,date,text\nann,1,so it begins\nbob,hi\n", "line 3: too few fields"),
    "too many": ("t.csv", "user,text\nann,so it begins\nbob,hi,x\n", "line 3: more fields"),
    "csv": ("t.csv", 'user,text\nann,so it begins\nbob,"hi" x\n', "line 3: not valid CSV"),
    "json": ("t.jsonl", _GOOD + '{"user":\n', "line 2: not valid JSON"),
    "key twice": ("t.jsonl", _GOOD + '{"user":"b","text":1,"text":2}\n', "'text' is there twice"),
    "no object": ("t.jsonl", _GOOD + '[1]\n', "line 2: expected a JSON"),
    "no text": (
        "t.jsonl",
        _GOOD + '{"user":"bob","text":[1]}\n',
        "line 2: column 'text' holds a list of numbers",
    ),
    "no column": ("t.jsonl", '{"delete":1}\n' + _GOOD, "line 1: no column"),
    "no utf-8": ("t.csv", b"user,text\nann,so it begins\nbob,\xff\n", "not valid UTF-8"),
    "no utf-8 either": ("t.txt", b"so it begins\n\xff\n", "not valid UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows_are_refused_with_a_way_out_or_left_out_and_counted(
    tmp_path: Path, kind: str
) -> None:
    name, content, expected = BAD_ROWS[kind]
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=rf"{expected}.*data.bad_rows=skip"):
        rows_of(path)
    corpus = open_corpus(path, skip_bad=True)
    for _ in range(2):
        assert [row.text for row in corpus.rows()] == ["so it begins"]
        assert corpus.left_out.counts.total() == 1


def test_names_of_columns_may_occur_in_texts_and_inside_objects(tmp_path: Path) -> None:
    record = {"user": "ann", "text": 'the "text"', "more": {"text": "user", "user": 1}}
    path = write(tmp_path / "t.jsonl", json.dumps(record) + "\n")
    assert rows_of(path) == [Row("ann", "ann", 'the "text"')]


def test_lines_that_an_open_quotation_mark_swallows_are_counted(tmp_path: Path) -> None:
    content = "user,text\nann,so it begins\n" + 'bob,"open\n' + "cid,hi\n" * 7
    rows, left_out = counted(write(tmp_path / "t.csv", content))
    assert (rows, left_out) == (1, {"not valid CSV": 8})


def test_fields_beyond_the_header_that_are_empty_and_blank_lines_are_nothing(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "t.csv", "user,text\n\nann,so it begins,,\n,,\n\n")
    assert rows_of(path) == TWO[:1]


def test_trailing_columns_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "user,text,likes\nann,so it begins\n")
    assert rows_of(path) == TWO[:1]


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_arrays_of_objects_and_objects_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, indent: int | None
) -> None:
    monkeypatch.setattr(tables, "_CHUNK", size)
    records = [{"user": row.client, "text": row.text} for row in TWO]
    path = write(tmp_path / "t.json", "\n " + json.dumps(records, indent=indent) + "\n")
    assert rows_of(path) == TWO
    path = write(tmp_path / "u.json", "\n".join(json.dumps(r, indent=indent) for r in records))
    assert list(open_corpus(path, "json").rows()) == TWO
    path = write(tmp_path / "t.json", json.dumps(records, indent=indent)[:-1])
    with pytest.raises(UserError, match="is damaged"):
        rows_of(path)


def test_json_lines_named_json_are_recognised(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"user": r.client, "text": r.text}) + "\n" for r in TWO)
    assert rows_of(write(tmp_path / "part-0.json", lines)) == TWO
    assert rows_of(tmp_path) == TWO


def zipped(path: Path, members: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


CSV = 'user,text\nann,so it begins\nbob,"so, it; ends"\n'


def test_archives_are_folders(tmp_path: Path) -> None:
    left: dict[str, str | bytes] = {
        "__MACOSX/._t.csv": b"\xb0",
        "data/.DS_Store": b"\x00",
        "data/README.md": "About",
    }
    assert rows_of(zipped(tmp_path / "t.csv.zip", {"t.csv": CSV, **left})) == TWO
    path = zipped(tmp_path / "d.zip", {"d/train/a.csv": CSV, "d/test/b.csv": CSV, **left})
    assert [row.split for row in rows_of(path)] == ["test", "test", "train", "train"]
    texts = zipped(tmp_path / "diaries.zip", {"ann.txt": "so it begins", "x/bob.txt": "it ends"})
    assert [(r.client, r.group) for r in rows_of(texts)] == [("ann", "ann"), ("x/bob", "x")]


def test_what_needs_random_access_is_unpacked_from_an_archive(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"user": ["ann"], "text": ["so it begins"]}), buffer)
    path = zipped(tmp_path / "p.zip", {"in/a.parquet": buffer.getvalue()})
    assert list(open_corpus(path, cache=tmp_path).rows()) == TWO[:1]
    assert list(tmp_path.iterdir()) == [path]
    broken = zipped(tmp_path / "q.zip", {"in/a.parquet": buffer.getvalue()[:-9]})
    with pytest.raises(UserError, match=r"q.zip \(in/a.parquet\) is damaged"):
        list(open_corpus(broken).rows())


def test_a_folder_of_archives_is_one_corpus_but_copies_are_refused(tmp_path: Path) -> None:
    for year in ("2020", "2021"):
        zipped(tmp_path / f"{year}.zip", {"t.csv": CSV})
    assert rows_of(tmp_path) == TWO * 2
    write(tmp_path / "t.csv", CSV)
    with pytest.raises(UserError, match=r"the archive .*\.zip lies beside files such as .*t.csv"):
        rows_of(tmp_path)


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path: Path) -> None:
    import gzip

    write(tmp_path / "t.csv", CSV)
    write(tmp_path / "t.csv.gz", gzip.compress(CSV.encode()))
    with pytest.raises(UserError, match=r"t.csv and .*t.csv.gz may be copies of each other"):
        rows_of(tmp_path)
    assert rows_of(tmp_path / "t.csv.gz") == TWO


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tgz", "t.7z"])
def test_other_archives_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is an archive of a kind that is not read; unpack it"):
        rows_of(write(tmp_path / name, b"x"))


def test_damaged_archives_are_one_sentence(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.zip", {"t.csv": CSV * 9})
    content = path.read_bytes()
    for damage in (content[:-5], content[:40] + b"\xff" * 9 + content[49:]):
        with pytest.raises(UserError, match="is damaged"):
            rows_of(write(tmp_path / "u.zip", damage))


def test_zstandard_with_a_long_window(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=31, enable_ldm=True)
    # Of a stream whose size is not known, the frame asks for the whole window.
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = stream.compress(CSV.encode()) + stream.flush()
    assert rows_of(write(tmp_path / "t.csv.zst", packed)) == TWO


def test_left_out_counts_what_it_is_told() -> None:
    left_out = LeftOut(skip_bad=True)
    left_out.bad(UserError("a"), "odd", 3)
    assert left_out.counts == {"odd": 3}


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
def test_encodings_of_unicode_are_recognised(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-32-le" else ""
    content = f'{mark}user,text\nann,so it begins\nbob,"so, it; ends"\n'.encode(encoding)
    assert rows_of(write(tmp_path / "t.csv", content)) == TWO


def test_the_line_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    lines = [b"user,text", *[b"ann,so it begins"] * 3, "bob,gr\xfcn".encode("latin-1"), b"bob,x"]
    path = write(tmp_path / "t.csv", b"\n".join(lines))
    with pytest.raises(UserError, match=r"is not valid UTF-8 \(at line 5: byte 0xfc\)"):
        rows_of(path)
    assert counted(path) == (4, {"not valid UTF-8": 1})
    odd = write(tmp_path / "odd.csv", "user,text\n".encode("utf-16") + b"\x00\xd8a\x00")
    with pytest.raises(UserError, match=r"is not valid UTF-16.* \(at line \d: byte"):
        rows_of(odd)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"data": [{"user": "ann", "text": "a"}]}, "is a JSON object with 'data', not a LEAF file"),
        ({"user": {"0": "ann"}, "text": {"0": "a"}}, "is a JSON object with 'user', 'text', not"),
        ({}, "is an empty JSON object"),
        (None, "is neither an object nor an array of objects"),
    ],
)
def test_json_of_another_shape_is_described(tmp_path: Path, content: object, sentence: str) -> None:
    with pytest.raises(UserError, match=f"{sentence}.*an array of objects with a user and a text"):
        rows_of(write(tmp_path / "t.json", json.dumps(content)))
