"""The repaired copy: every repair counted, the rest byte for byte, the original untouched, nothing half-written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.data.test_examining import balanced, look, planted, write
from tunewright.data.preparing import read
from tunewright.data.repairing import Repaired, check_output, repair
from tunewright.data.sources import open_data
from tunewright.errors import DataError, MachineError, UsageError
from tunewright.recipe_files import build_recipe


def by_kind(repaired: Repaired) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {each.what: (each.count, each.rows) for each in repaired.repairs}


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_lines(tmp_path):
    rows = balanced()
    planted(rows)
    path = write(tmp_path / "a.jsonl", rows)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[30] = b'{ "text":"caf\xe9",  "label":"bad" }\n'
    lines[32] = b"{broken\n"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(lines))
    before = path.read_bytes()
    repaired = repair(look(path), tmp_path / "b.jsonl")
    assert by_kind(repaired) == {
        "byte-order mark removed": (1, ()),
        "left out: the text is empty": (1, (3,)),
        "left out: a text seen before": (1, (5,)),
        "left out: equal texts with different labels": (2, (7, 8)),
        "text put right that was decoded wrongly once": (1, (12,)),
        "spaces around the label removed": (1, (16,)),
        "left out: can't be used": (2, (19, 33)),
        "written as UTF-8 instead of Windows-1252": (1, (31,)),
    }
    assert (repaired.rows_read, repaired.rows_written) == (60, 54)
    assert path.read_bytes() == before
    after = (tmp_path / "b.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[0] == after[0]
    assert '{ "text":"café",  "label":"bad" }\n'.encode() in after  # not a byte more than needed
    written = read_lines(tmp_path / "b.jsonl")
    assert len(written) == 54
    assert sum(row["text"].startswith("Café ") for row in written) == 1
    read(open_data(str(tmp_path / "b.jsonl")), build_recipe({"data": {"train": "x"}}).data, 42)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.jsonl", "b.jsonl"]


def test_a_second_repair_has_nothing_to_do(tmp_path):
    rows = balanced()
    planted(rows)
    repair(look(write(tmp_path / "a.jsonl", rows)), tmp_path / "b.jsonl")
    again = repair(look(tmp_path / "b.jsonl"), tmp_path / "c.jsonl")
    assert again.repairs == ()
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_texts_of_validation_leave_train(tmp_path):
    rows = balanced()
    path, held_out = write(tmp_path / "a.jsonl", rows), write(tmp_path / "v.jsonl", [rows[3], rows[8]])
    repaired = repair(look(path, held_out), tmp_path / "b.jsonl")
    assert by_kind(repaired) == {"left out: the text is in v.jsonl as well": (2, (4, 9))}
    assert read_lines(held_out) == [rows[3], rows[8]]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_tables(tmp_path, name):
    delimiter = "\t" if ".tsv" in name else ";"
    lines = [delimiter.join(['"te""xt"' if delimiter == ";" else "text", "label"])]
    lines += [delimiter.join([row["text"], row["label"]]) for row in balanced()]
    lines[5] = lines[5].replace("good", " good ").replace("bad", " bad ")
    lines[9] = lines[9] + delimiter + "more"
    content = "\r\n".join(lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    target = tmp_path / name.replace("a.", "b.")
    repaired = repair(look(path, text='te"xt' if delimiter == ";" else "text", label="label"), target)
    assert by_kind(repaired) == {"spaces around the label removed": (1, (6,)), "left out: can't be used": (1, (10,))}
    written = gzip.decompress(target.read_bytes()) if name.endswith(".gz") else target.read_bytes()
    assert written.startswith((lines[0] + "\r\n" + lines[1] + "\r\n").encode())
    assert len(written.splitlines()) == 60
    assert not [
        row for row in open_data(str(target)).train.rows() if row.values["label"] != row.values["label"].strip()
    ]


def test_utf_16(tmp_path):
    path = tmp_path / "a.csv"
    lines = ["text,label", *(f"{row['text']} é,{row['label']}" for row in balanced())]
    path.write_bytes("\n".join(lines).encode("utf-16"))
    examined = look(path)
    assert not examined.report.usable
    repaired = repair(examined, tmp_path / "b.csv")
    assert by_kind(repaired) == {"written as UTF-8 instead of UTF-16": (1, ())}
    assert (tmp_path / "b.csv").read_text(encoding="utf-8").splitlines() == lines


def test_json_array(tmp_path):
    rows = balanced()
    rows[4] = dict(rows[0])
    (tmp_path / "a.json").write_text(json.dumps(rows))
    repair(look(tmp_path / "a.json"), tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == rows[:4] + rows[5:]


def test_parquet_keeps_its_schema(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = balanced(2_500)
    rows[1_700]["text"] = ""
    rows[2_300]["label"] = "good "
    rows[3] = dict(rows[1])
    table = pyarrow.Table.from_pylist([row | {"n": i} for i, row in enumerate(rows)])
    table = table.replace_schema_metadata({"mine": "kept"})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    repaired = repair(look(tmp_path / "a.parquet"), tmp_path / "b.parquet")
    assert by_kind(repaired)["left out: the text is empty"] == (1, (1_701,))
    written = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    assert written.schema.equals(table.schema, check_metadata=True)
    assert written.num_rows == repaired.rows_written
    numbers = written.column("n").to_pylist()
    assert not {3, 1_700} & set(numbers)
    assert written.column("label").to_pylist()[numbers.index(2_300)] == "good"


def test_what_can_not_be_the_copy(tmp_path):
    path = write(tmp_path / "a.jsonl", balanced())
    (tmp_path / "link.jsonl").symlink_to(path)
    for target, message in [
        ("a.jsonl", "never changed"), ("link.jsonl", "never changed"), ("b.csv", "a.fixed.jsonl"),
        ("b.jsonl.gz", "a.fixed.jsonl"), ("b", "a.fixed.jsonl"), (".", "no regular file"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            check_output(path, tmp_path / target)
    with pytest.raises(UsageError, match="one data file"):
        check_output(tmp_path, tmp_path / "b.jsonl")


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    same = write(tmp_path / "a.jsonl", [{"text": "same", "label": "ab"[i % 2]} for i in range(9)])
    with pytest.raises(DataError, match="no row would be left"):
        repair(look(same, text="text", label="label"), tmp_path / "b.jsonl")
    examined = look(write(tmp_path / "a.jsonl", balanced()))

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunewright.data.repairing._write_lines", full)
    (tmp_path / "b.jsonl").write_text("old")
    with pytest.raises(MachineError, match="No space left"):
        repair(examined, tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text() == "old"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.jsonl", "b.jsonl"]
