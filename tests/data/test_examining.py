"""The whole examination: every question finds what was planted, says which rows, and agrees with what a run does."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.tiny_tokenizers import bert
from tunewright.data.examining import Examined, Tokens, examine
from tunewright.data.findings import Finding
from tunewright.data.preparing import read
from tunewright.data.sources import open_data
from tunewright.errors import DataError
from tunewright.recipe_files import build_recipe


def balanced(count: int = 60) -> list[dict[str, Any]]:
    """Good data: nothing is found in it. Texts share no three words in a row."""
    return [
        {"text": " ".join(f"w{(i * 13 + k * (i % 7 + 1)) % 997}" for k in range(12)), "label": ("bad", "good")[i % 2]}
        for i in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def look(path: Path, validation: Path | None = None, tokens: Tokens | None = None, **data: Any) -> Examined:
    more = {"validation": str(validation)} if validation else {}
    return examine(build_recipe({"data": {"train": str(path), **more, **data}}).data, 42, tokens)


def found(examined: Examined) -> dict[str, Finding]:
    return {finding.code: finding for finding in examined.report.findings}


def test_good_data_says_nothing(tmp_path):
    report = look(write(tmp_path / "a.jsonl", balanced())).report
    assert report.findings == ()
    assert report.usable
    assert not report.repairable
    assert report.held_out == 6
    part = report.parts["train"]
    assert (part.name, part.rows, part.usable, part.empty, part.rejected) == ("a.jsonl", 60, 60, 0, 0)
    assert part.label_counts == {"bad": 30, "good": 30}
    assert set(report.clean) == set(report.looked_for)


def planted(rows: list[dict[str, Any]]) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """What is wrong after the changes made here: code -> (level, count, rows)."""
    rows[2]["text"] = "  "
    rows[4] = dict(rows[0])
    rows[7] = {"text": rows[6]["text"].upper(), "label": "good"}
    rows[9]["text"] = rows[8]["text"].replace("w", "w", 1) + " end"
    rows[11] = {"text": "CafÃ© " + rows[11]["text"], "label": "good"}
    rows[13]["text"] += " \ufffd"
    rows[15]["label"] = " good"
    rows[16]["label"] = "goood"
    rows[18]["label"] = None
    rows[20]["label"] = "Good"
    return {
        "rejected": ("unusable", 1, (19,)),
        "empty": ("warning", 1, (3,)),
        "duplicates": ("warning", 2, (5, 8)),
        "conflicts": ("warning", 1, (7, 8)),
        "near_duplicates": ("note", 1, (10,)),
        "near_conflicts": ("warning", 1, (9, 10)),
        "garbled": ("warning", 1, (12,)),
        "replaced": ("warning", 1, (14,)),
        "padded_labels": ("note", 1, (16,)),
        "small_classes": ("warning", 2, ()),
    }


def test_everything_planted_is_found(tmp_path):
    rows = balanced()
    expected = planted(rows)
    examined = look(write(tmp_path / "a.jsonl", rows))
    answers = found(examined)
    assert {code: (f.level, f.count, f.rows) for code, f in answers.items() if code in expected} == expected
    spelt = [f.sentence for f in examined.report.findings if f.code == "label_spelling"]
    assert [sentence.split(" is perhaps ")[0] for sentence in spelt] == [
        'label "Good" (1 row)',
        'label "goood" (1 row)',
    ]
    assert answers.keys() - expected.keys() <= {"label_spelling", "held_out_near_leaks"}
    assert [row["where"] for row in answers["conflicts"].examples[0]["rows"]] == ["a.jsonl:7", "a.jsonl:8"]
    part = examined.report.parts["train"]
    assert part.rows == part.usable + part.empty + part.rejected
    assert not examined.report.usable
    json.dumps(examined.report.to_json())


def test_leaks_exact_and_near(tmp_path):
    rows = balanced()
    held_out = [
        {"text": rows[3]["text"].title(), "label": "good"},
        {"text": rows[5]["text"] + " more", "label": "good"},
        {"text": "nothing of this is known", "label": "bad"},
    ]
    answers = found(look(write(tmp_path / "a.jsonl", rows), write(tmp_path / "v.jsonl", held_out)))
    assert (answers["leaks"].part, answers["leaks"].rows) == ("validation", (1,))
    assert answers["near_leaks"].rows == (2,)
    assert [row["where"] for row in answers["near_leaks"].examples[0]["rows"]] == ["v.jsonl:2", "a.jsonl:6"]


def test_near_duplicates_across_the_split_that_a_run_makes(tmp_path):
    rows = balanced(40)
    rows += [{"text": row["text"] + " end", "label": row["label"]} for row in rows]
    examined = look(write(tmp_path / "a.jsonl", rows))
    finding = found(examined)["held_out_near_leaks"]
    data = read(open_data(str(tmp_path / "a.jsonl")), build_recipe({"data": {"train": "x"}}).data, 42)
    held_out = set((data.validation_rows + 1).tolist())
    assert set(finding.rows) <= held_out
    trained = set(data.train_rows.tolist())
    assert finding.count == sum((row - 1 + 40) % 80 in trained for row in held_out)


def test_a_validation_label_that_train_does_not_know(tmp_path):
    examined = look(
        write(tmp_path / "a.jsonl", balanced()), write(tmp_path / "v.jsonl", [{"text": "x", "label": "odd"}])
    )
    answers = {(f.code, f.part): f for f in examined.report.findings}
    assert answers["rejected", "validation"].rows == (1,)
    assert ("hopeless", "validation") in answers


def test_giveaways(tmp_path):
    rows = balanced(100)
    for i, row in enumerate(rows):
        row["file"] = f"{row['label']}/{i * 7919 % 1000}.txt"
        row["text"] += " zebra!" if row["label"] == "good" else " ox"
    answers = found(look(write(tmp_path / "a.jsonl", rows)))
    words = [f.sentence for f in look(tmp_path / "a.jsonl").report.findings if f.code == "giveaway_word"]
    assert any(s.startswith('the word "zebra" stands in 100.0 % of the rows of "good"') for s in words)
    assert any(s.startswith('the sign "!" at the end') for s in words)
    assert 'column "file"' in answers["giveaway_column"].sentence
    assert answers["giveaway_column"].level == "note"


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([{"text": "a", "label": "x"}], "hopeless"),
        ([{"text": f"t{i}", "label": "x"} for i in range(9)], "hopeless"),
        ([{"text": f"t{i}", "label": f"l{i}"} for i in range(9)], "hopeless"),
        ([{"text": f"t{i}", "label": ["x"] if i else "x"} for i in range(9)], "labels"),
        ([{"text": "same", "label": "ab"[i % 2]} for i in range(9)], "hopeless"),
    ],
)
def test_hopeless_data_is_reported_whole(tmp_path, rows, code):
    examined = look(write(tmp_path / "a.jsonl", rows), text="text", label="label")
    assert found(examined)[code].level == "unusable"


BROKEN = [
    b'{"text": "a", "label": \n',
    b'{"text": "caf\xe9", "label": "good"}\n',
    b'{"text": "a"}\n',
    b'{"text": "a", "label": ""}\n',
    b'{"text": ["a"], "label": "good"}\n',
    b'{"text": "a", "label": {"a": 1}}\n',
    b'{"text": "\\ud83d", "label": "good"}\n',
    b"7\n",
    b"",
    b'{"text": "", "label": "good"}\n',
    b'{"text": "fine", "label": "good", "more": 1}\n',
]


@pytest.mark.parametrize("line", BROKEN)
def test_usable_is_what_a_run_accepts(tmp_path, line):
    path = write(tmp_path / "a.jsonl", balanced())
    path.write_bytes(path.read_bytes() * 5 + line)  # beyond the rows that columns are guessed from
    recipe = build_recipe({"data": {"train": str(path)}}).data
    try:
        read(open_data(str(path)), recipe, 42)
        accepted = True
    except DataError:
        accepted = False
    assert look(path).report.usable == accepted


def test_numbers_and_several_labels(tmp_path):
    rows = balanced()
    for i, row in enumerate(rows):
        row["label"] = i / 10
    assert look(write(tmp_path / "n.jsonl", rows)).report.kind == "number"
    rows[3]["label"] = "n/a"
    stray = found(look(write(tmp_path / "n.jsonl", rows)))["stray_label"]
    assert stray.rows == (4,)
    for i, row in enumerate(rows):
        row["label"] = ["x", "y"] if i % 2 else ["x"]
    report = look(write(tmp_path / "m.jsonl", rows)).report
    assert (report.kind, report.parts["train"].label_counts) == ("multi", {"x": 60, "y": 30})


def test_lengths(tmp_path):
    tokenizer = bert()
    texts = ["the film", "the film was good " * 4, "zzz 文"]
    rows = [{"text": text + f" {i}", "label": "ab"[i % 2]} for i, text in enumerate(texts * 4)]
    asked: list[Any] = []

    def decide(lengths: np.ndarray, kind: str) -> tuple[int, str]:
        asked.append((lengths.tolist(), kind))
        return 10, "because"

    report = look(write(tmp_path / "a.jsonl", rows), tokens=Tokens(tokenizer, decide)).report
    expected = [len(tokenizer(row["text"])["input_ids"]) for row in rows]
    assert asked == [(expected, "single")]
    lengths = report.lengths["train"]
    assert lengths.tokens == sum(expected)
    assert lengths.cut_rows == sum(n > 10 for n in expected)
    assert lengths.cut_tokens == sum(max(0, n - 10) for n in expected)
    assert lengths.unknown_tokens == sum(
        ids.count(tokenizer.unk_token_id) for ids in tokenizer([r["text"] for r in rows])["input_ids"]
    )
    edges = (0, *lengths.edges)
    assert lengths.counts == tuple(sum(a < n <= b for n in expected) for a, b in itertools.pairwise(edges))
    assert 10 in lengths.edges
    assert report.length_reason == "because"


def test_csv_lines_are_physical(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerow(["two\nlines", "bad"])
        writer.writerows([row["text"], row["label"]] for row in balanced())
        writer.writerow(["", "bad"])
    assert found(look(path))["empty"].rows == (64,)
