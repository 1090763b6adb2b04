"""Data that can't be learned from: each case is one line naming file, row and column, and leaves nothing behind.

Not here, as no task reads such data yet: prompts without completions, conversations (roles, turns, tool calls), images,
control tokens of a template in a text, comparisons, thumbs, spans of entities, one label per token. Repeated rows,
leaks, conflicts, mojibake, over-long and near-empty texts are no errors but counted: tests/data/test_checking.py and
the tests of `data check`. Secrets in texts are not looked for.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests import whole
from tests.feeding import Case, call, feed, inside, jsonl, judge, names, rows, tree, write

GOOD = jsonl(good=24)
TABLE = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows(24))


def parquet(table: dict[str, object] | None = None) -> Callable[[Path], object]:
    """A Parquet file of good rows, or of these columns."""
    columns = table or {name: [row[name] for row in rows()] for name in ("text", "label")}
    return lambda path: pyarrow.parquet.write_table(pyarrow.table(columns), path)


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table({name: [r[name] for r in rows(200)] for name in ("text", "label")}), stream
    )
    return stream.getvalue()


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, GOOD)
    return stream.getvalue()


def tarred(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(GOOD)
        archive.addfile(member, io.BytesIO(GOOD.encode()))
    return stream.getvalue()


def bomb(one: bytes, times: int, start: bytes = b"") -> Callable[[Path], object]:
    """A small gzip file of many bytes."""

    def make(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as stream:
            stream.write(start)
            for _ in range(times):
                stream.write(one)

    return make


def listening(path: Path) -> None:
    """A socket, which nobody reads a table from."""
    with socket.socket(socket.AF_UNIX) as there, inside(path.parent):
        there.bind(path.name)


class Pickled:
    """Says so if anyone unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, ("unpickled",)


CSV = ("train", "data.csv")
FILES = [
    # ---- what is no file ----
    Case("missing", 3, ("data.jsonl", "no such file", 'Did you mean "dat.jsonl"?'), {"dat.jsonl": GOOD}),
    Case("missing folder", 3, ("no such file", 'folder "nowhere" does not exist'), run=("train", "nowhere/data.jsonl")),
    Case("missing validation", 3, ("v.jsonl", "no such file"), {"data.jsonl": GOOD},
         ("train", "data.jsonl", "--validation", "v.jsonl")),
    Case("an empty folder", 3, ("here", "holds no data file", "train"), {"here": Path.mkdir}, ("train", "./here")),
    Case("a folder without train", 3, ("here", "no train file", "tran.csv", 'Did you mean "tran"'),
         {"here/tran.csv": TABLE}, ("train", "./here")),
    Case("a folder with two train files", 3, ("here", "two files for train", "train.csv", "train.jsonl"),
         {"here/train.csv": TABLE, "here/train.jsonl": GOOD}, ("train", "./here")),
    Case("a folder called like a file", 3, ("data.jsonl", "holds no data file"), {"data.jsonl": Path.mkdir}),
    Case("a link to nowhere", 3, ("data.jsonl", "no such file"), {"data.jsonl": lambda p: p.symlink_to("gone")}),
    Case("a link to itself", 3, ("data.jsonl", "can't be opened"), {"data.jsonl": lambda p: p.symlink_to(p)}),
    Case("a pipe", 3, ("data.jsonl", "a pipe or a device", "regular file"), {"data.jsonl": os.mkfifo}),
    Case("a socket", 3, ("data.jsonl", "a pipe or a device"), {"data.jsonl": listening}),
    Case("an endless device", 3, ("/dev/zero", "a pipe or a device"), run=("train", "/dev/zero")),
    Case("a name with a NUL", 3, ("a\\x00b.jsonl", "can't be opened"), run=("train", "a\0b.jsonl")),
    Case("a name too long", 3, ("can't be opened", "name too long"), run=("train", "x" * 300 + ".jsonl")),
    Case("no name", 2, ("name of the data is empty", "a file, a folder or a Hub id"), run=("train", "")),
    # ---- nothing in it ----
    Case("empty", 3, ("data.jsonl", "0 bytes", "at least one row"), {"data.jsonl": b""}),
    Case("only blank lines", 3, ("data.jsonl", "only blank lines"), {"data.jsonl": "\n \n\t\n"}),
    Case("only a byte order mark", 3, ("data.jsonl", "only blank lines"), {"data.jsonl": b"\xef\xbb\xbf"}),
    Case("a header alone", 3, ("data.csv", "no rows but a header"), {"data.csv": "text,label\n"}, CSV),
    Case("an empty array", 3, ("data.json", "no rows"), {"data.json": "[]"}, ("train", "data.json")),
    Case("empty once unpacked", 3, ("data.jsonl.gz", "empty once unpacked"), {"data.jsonl.gz": gzip.compress(b"")},
         ("train", "data.jsonl.gz")),
    Case("Parquet without rows", 3, ("data.parquet", "no rows"),
         {"data.parquet": parquet({name: pyarrow.array([], "string") for name in ("text", "label")})},
         ("train", "data.parquet")),
    Case("one row", 3, ("data.jsonl", "1 row", "at least 2"), {"data.jsonl": jsonl(good=1)}),
    # ---- bytes ----
    Case("UTF-16", 3, ("data.jsonl", "UTF-16", "save it as UTF-8"), {"data.jsonl": GOOD.encode("utf-16")}),
    Case("UTF-16 without a mark", 3, ("data.jsonl", "UTF-16", "UTF-8"), {"data.jsonl": GOOD.encode("utf-16-le")}),
    Case("UTF-32", 3, ("data.jsonl", "UTF-8"), {"data.jsonl": GOOD.encode("utf-32")}),
    Case("Latin-1", 3, ("data.jsonl:25", "0xe9 at offset", "UTF-8", "Latin-1"),
         {"data.jsonl": GOOD.encode() + '{"text": "café", "label": "positive"}\n'.encode("latin-1")}),
    Case("a NUL", 3, ("data.jsonl", "NUL"), {"data.jsonl": jsonl('{"text": "a\0b", "label": "x"}', good=2)}),
    Case("a NUL far down", 3, ("data.jsonl:3001", "NUL"),
         {"data.jsonl": jsonl('{"text": "a\0b", "label": "x"}', good=3000)}),
    Case("a binary file", 3, ("data.jsonl", "binary"), {"data.jsonl": bytes(range(256)) * 9}),
    Case("a picture", 3, ("data.jsonl", "a PNG image"), {"data.jsonl": b"\x89PNG\r\n\x1a\n" + bytes(60)}),
    Case("an Excel workbook", 3, ("data.csv", "Excel", "CSV"), {"data.csv": zipped("xl/workbook.xml")}, CSV),
    Case("an old Excel workbook", 3, ("data.csv", "Excel", "CSV"),
         {"data.csv": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99},
         CSV),
    Case("a web page", 3, ("data.csv", "a web page"), {"data.csv": "\n<!DOCTYPE html><html><body>404"}, CSV),
    Case("an LFS pointer", 3, ("data.csv", "Git LFS", "git lfs pull"),
         {"data.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}, CSV),
    Case("a pickle", 3, ("data.jsonl", "pickle"), {"data.jsonl": pickle.dumps(Pickled())}),
    Case("a pickle by name", 3, ("data.pkl", "pickle"), {"data.pkl": pickle.dumps(Pickled())}, ("train", "data.pkl")),
    # ---- compressed ----
    Case("zip", 3, ("data.jsonl", "zip", "unpack"), {"data.jsonl": zipped("data.jsonl")}),
    Case("zip that climbs out", 3, ("data.zip", "zip"), {"data.zip": zipped("../../evil")}, ("train", "data.zip")),
    Case("tar.gz", 3, ("data.jsonl", "tar archive", "unpack"), {"data.jsonl": tarred("data.jsonl")}),
    Case("tar.gz that climbs out", 3, ("data.tar.gz", "tar archive"), {"data.tar.gz": tarred("../../evil")},
         ("train", "data.tar.gz")),
    Case("zst", 3, ("data.jsonl.zst", "Zstandard", "unzstd"), {"data.jsonl.zst": b"\x28\xb5\x2f\xfd" + GOOD.encode()},
         ("train", "data.jsonl.zst")),
    Case("bzip2", 3, ("data.jsonl", "bzip2", "bunzip2"), {"data.jsonl": bz2.compress(GOOD.encode())}),
    Case("xz", 3, ("data.jsonl", "xz", "unxz"), {"data.jsonl": lzma.compress(GOOD.encode())}),
    Case("gzip twice", 3, ("data.jsonl", "twice"), {"data.jsonl": gzip.compress(gzip.compress(GOOD.encode()))}),
    Case("gzip cut off", 3, ("data.jsonl", "gzip", "damaged or cut off"),
         {"data.jsonl": gzip.compress(jsonl(good=3000).encode())[:-900]}),
    Case("gzip damaged", 3, ("data.jsonl", "gzip", "damaged"),
         {"data.jsonl": gzip.compress(GOOD.encode())[:60] + b"xxxx" + gzip.compress(GOOD.encode())[64:]}),
    Case("a bomb in one line", 3, ("data.jsonl:1", "longer than 16 MB"),
         {"data.jsonl": bomb(b"a" * 2**20, 40, b'{"text": "')}),
    Case("a bomb in an array", 3, ("data.json", "more than 512 MB", "JSON Lines"),
         {"data.json.gz": bomb(b" " * 2**23, 66, b"[\n")}, ("train", "data.json.gz")),
    # ---- JSON ----
    Case("a comma too many", 3, ("data.jsonl:25", "column", "comma"), {"data.jsonl": jsonl('{"text": "a",}', good=24)}),
    Case("single quotes", 3, ("data.jsonl:25", "single quotes", "double"),
         {"data.jsonl": jsonl("{'text': 'a'}", good=24)}),
    Case("NaN", 3, ("data.jsonl:25", "NaN is not JSON", "null"), {"data.jsonl": jsonl('{"text": NaN}', good=24)}),
    Case("Infinity", 3, ("data.jsonl:25", "Infinity is not JSON"),
         {"data.jsonl": jsonl('{"label": Infinity}', good=24)}),
    Case("cut off", 3, ("data.jsonl:25", "cut off"), {"data.jsonl": GOOD + '{"text": "a good fi'}),
    Case("an array cut off", 3, ("data.json:25", "cut off"),
         {"data.json": "[\n" + GOOD.replace("\n", ",\n").rstrip(",\n")}, ("train", "data.json")),
    Case("two on a line", 3, ("data.jsonl:25", "more than one JSON value", "own line"),
         {"data.jsonl": jsonl('{"text": "a"} {"text": "b"}', good=24)}),
    Case("on many lines", 3, ("data.jsonl:1", "one line"),
         {"data.jsonl": "\n".join(json.dumps(row, indent=2) for row in rows())}),
    Case("text after the array", 3, ("data.json:3", "after the end of the JSON array"), {"data.json": "[\n{}]\n{}"},
         ("train", "data.json")),
    Case("an object that holds the rows", 3, ("data.json", 'inside "data"', "array"),
         {"data.json": json.dumps({"data": rows()})}, ("train", "data.json")),
    Case("the same on many lines", 3, ("data.json:1", "one array"),
         {"data.json": json.dumps({"data": rows()}, indent=1)}, ("train", "data.json")),
    Case("a text", 3, ("data.jsonl:25", "found text", "expected an object"), {"data.jsonl": jsonl('"a"', good=24)}),
    Case("a number", 3, ("data.jsonl:25", "found a number", "expected an object"), {"data.jsonl": jsonl("7", good=24)}),
    Case("a list", 3, ("data.jsonl:25", "found a list", "expected an object"), {"data.jsonl": jsonl("[7]", good=24)}),
    Case("null", 3, ("data.jsonl:25", "found null", "expected an object"), {"data.jsonl": jsonl("null", good=24)}),
    Case("a key twice", 3, ("data.jsonl:25", '"text" stands twice'),
         {"data.jsonl": jsonl('{"text": "a", "text": "b", "label": "x"}', good=24)}),
    Case("nested without end", 3, ("data.jsonl:25", "nested more than 100 deep"),
         {"data.jsonl": jsonl('{"text": ' + "[" * 10_000 + "]" * 10_000 + "}", good=24)}),
    Case("ten thousand digits", 3, ("data.jsonl:25", "10000 digits"),
         {"data.jsonl": jsonl('{"text": "a", "label": ' + "9" * 10_000 + "}", good=24)}),
    Case("half a character", 3, ("data.jsonl:25", '"text"', "ud83d", "surrogate"),
         {"data.jsonl": jsonl('{"text": "a\\ud83d", "label": "positive"}', good=24)}),
    Case("a table called jsonl", 3, ("data.jsonl", "looks like a table", ".csv"), {"data.jsonl": TABLE}),
    Case("a table called parquet", 3, ("data.parquet", "not Parquet"), {"data.parquet": TABLE},
         ("train", "data.parquet")),
    Case("an unknown name", 3, ("data.md", "no kind of data file", ".jsonl"), {"data.md": "hello\nworld\n"},
         ("train", "data.md")),
    # ---- tables ----
    Case("a field too many", 3, ("data.csv:26", "3 fields where the header names 2", "double quotes"),
         {"data.csv": TABLE + "well, well,positive\n"}, CSV),
    Case("a field too few", 3, ("data.csv:26", "1 field where the header names 2"), {"data.csv": TABLE + "well\n"},
         CSV),
    Case("an open quote", 3, ("data.csv:26", "never closed"), {"data.csv": TABLE + '"well,positive\na,b\n'}, CSV),
    Case("a quote in a field", 3, ("data.csv:26", "double quote"), {"data.csv": TABLE + '"a "b" c",positive\n'}, CSV),
    Case("a column twice", 3, ("data.csv:1", '"text" twice'), {"data.csv": "text,text,label\na,b,c\n"}, CSV),
    Case("no header", 3, ("data.csv", 'calls a column "1"', "header line such as text,label"),
         {"data.csv": TABLE.split("\n", 1)[1].replace("positive", "1")}, CSV),
    Case("a delimiter unknown", 3, ("data.csv", "label"), {"data.csv": TABLE.replace(",", "^")}, CSV),
    # ---- Parquet ----
    Case("Parquet cut off", 3, ("data.parquet", "damaged"), {"data.parquet": parquet_bytes()[:-40]},
         ("train", "data.parquet")),
    Case("Parquet without a footer", 3, ("data.parquet", "damaged"), {"data.parquet": b"PAR1" + bytes(40)},
         ("train", "data.parquet")),
    Case("Parquet with a damaged page", 3, ("data.parquet", "damaged"),
         {"data.parquet": parquet_bytes()[:9] + b"\xff" * 40 + parquet_bytes()[49:]}, ("train", "data.parquet")),
    Case("Parquet of pickles", 3, ("data.parquet", "no column holds text"),
         {"data.parquet": parquet({"text": [pickle.dumps(Pickled())] * 9, "label": [1] * 9})},
         ("train", "data.parquet")),
]  # fmt: skip


def labelled(*labels: object, **more: object) -> str:
    """A row per label, each with a text of its own."""
    return jsonl(*({"text": f"some film {i}", "label": label, **more} for i, label in enumerate(labels)))


TRAIN = ("train", "data.jsonl")
ROWS = [
    # ---- columns ----
    Case("text column misspelt", 3, ("data.jsonl", 'no column "txt"', "text, label", 'Did you mean "text"?'),
         {"data.jsonl": GOOD}, (*TRAIN, "--text", "txt")),
    Case("label column misspelt", 3, ("data.jsonl", 'no column "Lable"', 'Did you mean "label"?'), {"data.jsonl": GOOD},
         (*TRAIN, "--label", "Lable")),
    Case("one column for both", 3, ("data.jsonl", '"label"', "two columns"), {"data.jsonl": GOOD},
         (*TRAIN, "--text", "label", "--label", "label")),
    Case("no text", 3, ("data.jsonl", "no column holds text", "a, b"), {"data.jsonl": jsonl(*[{"a": 1, "b": 2}] * 9)}),
    Case("no label", 3, ("data.jsonl", "looks like a label", "data.label"),
         {"data.jsonl": jsonl(*({"text": f"film {i}"} for i in range(9)))}),
    Case("text column missing in a row", 3, ("data.jsonl:25", 'no "text"', 'Did you mean "test"?'),
         {"data.jsonl": jsonl({"test": "a", "label": "positive"}, good=24)}),
    Case("label column missing in a row", 3, ("data.jsonl:25", 'no "label"', 'Did you mean "lable"?'),
         {"data.jsonl": jsonl({"text": "a", "lable": "positive"}, good=24)}),
    Case("columns of validation", 3, ("v.jsonl", 'no column "label"', 'Did you mean "lable"?'),
         {"data.jsonl": GOOD, "v.jsonl": jsonl({"text": "a", "lable": "positive"})},
         (*TRAIN, "--validation", "v.jsonl")),
    # ---- texts ----
    Case("a number for a text", 3, ("data.jsonl:25", '"text"', "number 7", "expected text"),
         {"data.jsonl": jsonl({"text": 7, "label": "positive"}, good=24)}),
    Case("a number for a text far down", 3, ("data.jsonl:301", '"text"', "int 7", "data.text"),
         {"data.jsonl": jsonl({"text": 7, "label": "positive"}, good=300)}),
    Case("a list for a text", 3, ("data.jsonl:25", '"text"', "a list", "expected text"),
         {"data.jsonl": jsonl({"text": ["a"], "label": "positive"}, good=24)}),
    Case("an object for a text", 3, ("data.jsonl:301", '"text"', "dict", "expected a text"),
         {"data.jsonl": jsonl({"text": {"a": 1}, "label": "positive"}, good=300)}),
    Case("every text empty", 3, ("data.jsonl", "24 rows, 0 with a text"), {"data.jsonl": jsonl(*rows(text=" \t"))}),
    Case("every text null", 3, ("data.jsonl", "text"), {"data.jsonl": jsonl(*rows(text=None))}),
    Case("every text of validation empty", 3, ("v.jsonl", "no row of 24 rows has a text"),
         {"data.jsonl": GOOD, "v.jsonl": jsonl(*rows(text=""))}, (*TRAIN, "--validation", "v.jsonl")),
    # ---- labels ----
    Case("no label in a row", 3, ("data.jsonl:25", '"label" is empty', "remove the row"),
         {"data.jsonl": jsonl({"text": "a", "label": None}, good=24)}),
    Case("a blank label", 3, ("data.jsonl:25", '"label" is empty'),
         {"data.jsonl": jsonl({"text": "a", "label": " "}, good=24)}),
    Case("an object for a label", 3, ("data.jsonl:25", '"label" is', "expected a label"),
         {"data.jsonl": jsonl({"text": "a", "label": {"a": 1}}, good=24)}),
    Case("a list among single labels", 3, ("data.jsonl:25", '"label" is a list', "data.jsonl:1"),
         {"data.jsonl": jsonl({"text": "a", "label": ["positive"]}, good=24)}),
    Case("a novel for a label", 3, ("data.jsonl:25", "2,000 characters", "data.label"),
         {"data.jsonl": jsonl({"text": "a", "label": "x" * 2000}, good=24)}),
    Case("one class", 3, ("data.jsonl", 'every "label" is "positive"', "two classes"),
         {"data.jsonl": jsonl(*rows(label="positive"))}),
    Case("one number", 3, ("data.jsonl", 'every "label" is 0.5', "different numbers"),
         {"data.jsonl": jsonl(*rows(label=0.5))}),
    Case("an id for a label", 3, ("data.jsonl", 'each of 24 rows has a "label" of its own', "data.label"),
         {"data.jsonl": labelled(*(f"id-{i}" for i in range(24)))}),
    Case("no label in any list", 3, ("data.jsonl", 'no row has a label in "label"'),
         {"data.jsonl": labelled(*[[]] * 9)}),
    Case("a label that isn't on the list", 3, ("data.jsonl:1", '"label" is "positive"', 'Did you mean "postive"?'),
         {"data.jsonl": GOOD}, (*TRAIN, "-s", "data.labels=[negative, postive]")),
    Case("a value that isn't on the map", 3, ("data.jsonl:3", '"label" is "2"', "one of 0, 1"),
         {"data.jsonl": labelled(0, 1, 2)}, (*TRAIN, "-s", "data.labels={0: bad, 1: good}")),
    Case("a word among numbers", 3, ("data.jsonl:3", '"label" is a text', "expected a number"),
         {"data.jsonl": labelled(0.5, 1, "x")}, (*TRAIN, "-s", "data.labels=number")),
    Case("a number out of bounds", 3, ("data.jsonl:3", "1e+16", "expected a number between"),
         {"data.jsonl": labelled(0.5, 1, 1e16, *(i / 7 for i in range(20)))}),
    Case("not a number in a table", 3, ("data.csv:26", '"label"', "expected a number"),
         {"data.csv": TABLE.replace("positive", "0.5").replace("negative", "1.5") + "well,inf\n"},
         (*CSV, "-s", "data.labels=number")),
    Case("a class of validation alone", 3, ("v.jsonl:2", '"label" is "neutral"', "expected one of negative, positive"),
         {"data.jsonl": GOOD, "v.jsonl": labelled("positive", "neutral")}, (*TRAIN, "--validation", "v.jsonl")),
    Case("a class of validation misspelt", 3, ("v.jsonl:2", '"postive"', 'Did you mean "positive"?'),
         {"data.jsonl": GOOD, "v.jsonl": labelled("positive", "postive")}, (*TRAIN, "--validation", "v.jsonl")),
    Case("too few to split", 3, ("data.jsonl", "can't be split", "data.validation"),
         {"data.jsonl": jsonl(*rows(9, text="one"))}),
    Case("a label name twice", 2, ("data.labels", '"good" twice'), {"data.jsonl": labelled(0, 1, 0, 1)},
         (*TRAIN, "-s", "data.labels={0: good, 1: good}")),
]  # fmt: skip


@pytest.mark.parametrize("case", FILES + ROWS, ids=names(FILES + ROWS))
def test_bad_data(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Bad data is found before the model is loaded; a case that isn't found trains for a minute otherwise.
    monkeypatch.setattr("tunewright.stages.load_base", lambda *_: pytest.fail("the data passed"))
    feed(case, tmp_path)


# ---- the same, wherever data is taken ----

DOORS: dict[str, tuple[str, ...]] = {
    "validation": ("train", "good.jsonl", "--validation", "{}"),
    "init": ("init", "made", "--data", "{}"),
    "evaluate": ("evaluate", "{run}", "--data", "{}"),
    "predict": ("predict", "{run}", "-i", "{}", "-o", "out.jsonl"),
    "recipe": ("train", "job.yaml"),
}
BEHIND = [
    case for case in FILES
    if case.name in (
        "missing", "empty", "a pipe", "UTF-16", "Latin-1", "a binary file", "zip", "cut off", "NaN", "a text",
        "a key twice", "nested without end", "half a character", "an open quote", "a field too many",
    )
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_bad_files_at_every_door(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is no data is refused alike by every command that takes data: the same exit code and the same words."""
    run = str(whole.finished().folder)
    monkeypatch.setattr("tunewright.stages.load_base", lambda *_: pytest.fail("the data passed"))
    assert len(BEHIND) == 15
    for number, case in enumerate(BEHIND):
        here, file = tmp_path / str(number), case.run[1]
        here.mkdir()
        write(here, {**case.files, "good.jsonl": GOOD, "job.yaml": f"data: {{train: {file}}}\n"})
        before = tree(here)
        with inside(here):
            outcome = call(*(part.format(file, run=run) for part in DOORS[door]))
        assert outcome.code == 3, (case.name, outcome)
        judge(outcome, 3)
        assert tree(here) == before, case.name
