"""Rows that are to be written: every question finds what was planted, says which rows, and agrees with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_examining import write
from tests.data.tiny_tokenizers import bert, gpt2, llama
from tunewright.data.examining import Examined, Tokens
from tunewright.data.findings import Finding
from tunewright.data.repairing import check_output, repair
from tunewright.data.sources import open_data
from tunewright.data.written_examining import examine_written
from tunewright.data.written_tokens import RowEncoder, tokenize_written
from tunewright.errors import DataError, RecipeError, UsageError
from tunewright.recipe_files import build_recipe


def pairs(count: int = 60) -> list[dict[str, Any]]:
    """Good data: nothing is found in it. Texts share no three words in a row."""
    return [
        {
            "question": " ".join(f"w{(i * 13 + k * (i % 7 + 1)) % 997}" for k in range(9)) + f" q{i}?",
            "answer": f"answer {i}",
        }
        for i in range(count)
    ]


def tokens(tokenizer: Any = None, max_length: int = 64) -> Tokens:
    return Tokens(tokenizer or gpt2(), lambda lengths, kind: (max_length, "given"))


def look(
    path: Path, validation: Path | None = None, counted: Tokens | None = None, task: str = "generate", **data: Any
) -> Examined:
    more = {"validation": str(validation)} if validation else {}
    return examine_written(build_recipe({"task": task, "data": {"train": str(path), **more, **data}}), counted)


def found(examined: Examined) -> dict[str, Finding]:
    return {finding.code: finding for finding in examined.report.findings}


@pytest.mark.parametrize("counted", [None, tokens(max_length=999)])
def test_good_data_says_nothing(tmp_path, counted):
    report = look(write(tmp_path / "a.jsonl", pairs()), counted=counted).report
    assert report.findings == ()
    assert report.usable and not report.repairable
    assert report.held_out == 6
    assert (report.format, report.learn, report.kind, report.task) == (
        "questions and answers", "completion", "text", "generate",
    )  # fmt: skip
    part = report.parts["train"]
    assert (part.rows, part.usable, part.empty, part.rejected) == (60, 60, 0, 0)
    assert set(report.clean) == set(report.looked_for)
    assert report.to_json()["format"] == "questions and answers"
    assert bool(report.written) == bool(counted)


def planted(rows: list[dict[str, Any]]) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """What is wrong after the changes made here: code -> (level, count, rows)."""
    rows[2]["answer"] = "  "
    rows[3]["answer"] = None
    rows[5] = dict(rows[0])
    rows[7] = {**rows[1], "answer": "another"}
    rows[9]["question"] = 3.5
    rows[11] = {"question": "no answer here"}
    rows[13]["question"] = ["a", "list"]
    rows[15]["answer"] = "FranÃ§ois le franÃ§ais"
    rows[17]["answer"] = "l\ufffdst"
    rows[19]["question"] = "So " + rows[18]["question"]
    rows[19]["answer"] = rows[18]["answer"]
    return {
        "no_target": ("unusable", 3, (3, 4, 12)),
        "rejected": ("unusable", 1, (14,)),
        "duplicates": ("warning", 1, (6,)),
        "conflicts": ("warning", 1, (2, 8)),
        "garbled": ("warning", 1, (16,)),
        "replaced": ("warning", 1, (18,)),
        "near_duplicates": ("note", 1, (20,)),
    }


@pytest.mark.parametrize("counted", [None, tokens(max_length=999)])
def test_everything_that_was_planted_is_found(tmp_path, counted):
    rows = pairs()
    expected = planted(rows)
    examined = look(write(tmp_path / "a.jsonl", rows), counted=counted)
    findings = found(examined)
    assert {code: (f.level, f.count, f.rows) for code, f in findings.items()} == expected
    assert not examined.report.usable
    assert '"question" is a list of 2' in findings["rejected"].sentence
    conflict = findings["conflicts"].examples[0]["rows"]
    assert [(row["label"], row["where"]) for row in conflict] == [("answer 1", "a.jsonl:2"), ("another", "a.jsonl:8")]
    assert conflict[0]["text"] == rows[1]["question"]


def test_problems_of_different_kinds_are_all_said(tmp_path):
    rows: list[dict[str, Any]] = [{"messages": talk("hi", "hello")} for _ in range(4)]
    rows += [{"messages": [{"role": "robot", "content": "x"}]}, {"messages": [{"role": "robot", "content": "y"}]}]
    rows += [{"messages": [{"role": "assistant", "content": "x"}]}]
    rows += [{"messages": [{"role": "user", "content": "alone"}]}]
    findings = found(look(write(tmp_path / "a.jsonl", rows)))
    assert findings["rejected"].rows == (5, 6, 7)
    for words in ("a.jsonl:5", "robot", "a.jsonl:7", "nobody has said anything"):
        assert words in findings["rejected"].sentence
    assert "a.jsonl:6" not in findings["rejected"].sentence
    assert findings["no_target"].rows == (8,)


def talk(*said: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def test_prompts_on_both_sides(tmp_path):
    rows, held_out = pairs(), pairs(90)[80:]
    held_out[0] = {**rows[4], "answer": "something else"}
    held_out[3] = {**rows[6], "question": "So " + rows[6]["question"], "answer": rows[6]["answer"]}
    examined = look(write(tmp_path / "a.jsonl", rows), write(tmp_path / "v.jsonl", held_out))
    findings = found(examined)
    assert {code: (f.part, f.rows) for code, f in findings.items()} == {
        "leaks": ("validation", (1,)),
        "near_leaks": ("validation", (4,)),
    }
    assert "a prompt that is in train as well" in findings["leaks"].sentence


def test_a_passage_that_many_questions_share_makes_no_rows_alike(tmp_path):
    passage = " ".join(f"p{k}" for k in range(200))
    rows = [{"context": passage, **row} for row in pairs()]
    held_out = [{"context": passage, **row} for row in pairs(90)[80:]]
    assert not found(look(write(tmp_path / "a.jsonl", rows), write(tmp_path / "v.jsonl", held_out)))
    assert not found(look(write(tmp_path / "a.jsonl", rows)))


def test_an_answer_out_of_the_passage_is_no_giveaway(tmp_path):
    rows = [{"context": f"The word of {i} is k{i}.", **row, "answer": f"k{i}"} for i, row in enumerate(pairs())]
    assert not found(look(write(tmp_path / "a.jsonl", rows)))


def test_answers_that_are_all_the_same(tmp_path):
    rows = [{**row, "answer": "yes"} for row in pairs()]
    assert 'every answer is "yes"' in found(look(write(tmp_path / "a.jsonl", rows)))["one_answer"].sentence
    for row in rows[:5]:
        row["answer"] = "no"
    assert '91.7 % of answers are "yes"' in found(look(write(tmp_path / "a.jsonl", rows)))["one_answer"].sentence
    for row in rows[:20]:
        row["answer"] = "no"
    assert not found(look(write(tmp_path / "a.jsonl", rows)))


@pytest.mark.parametrize(("count", "words"), [(1, "1 row can be used; expected at least 2"), (2, None)])
def test_too_few_rows(tmp_path, count, words):
    findings = found(look(write(tmp_path / "a.jsonl", pairs(count))))
    assert (findings["hopeless"].sentence if words else None) == words


def test_one_prompt_only_cant_be_split(tmp_path):
    rows = [{"question": "The same?", "answer": f"answer {i}"} for i in range(5)]
    assert "too few different prompts" in found(look(write(tmp_path / "a.jsonl", rows)))["hopeless"].sentence


# ---- tokens ----


@pytest.mark.parametrize("style", [gpt2, llama])
@pytest.mark.parametrize("max_length", [20, 60, 150])
def test_what_is_cut_is_what_a_run_cuts(tmp_path, style, max_length):
    rows = pairs(20)
    rows[3]["answer"] = "a very long answer " * 20
    path = write(tmp_path / "a.jsonl", rows)
    examined = look(path, counted=tokens(style(), max_length), validation=None, template="Q: {question} A: {answer}")
    assert examined.encoder is not None
    encoder = RowEncoder.of(examined.encoder.format, style(), max_length)
    run = tokenize_written(open_data(path).train, encoder, tmp_path / "cache")
    encoded = [encoder.encoder.encode(encoder.segments(row)) for row in open_data(path).train.rows()]
    of, lengths = examined.report.written["train"], examined.report.lengths["train"]
    assert lengths.tokens == int(run.full_lengths.sum())
    assert (of.context_cut, of.target_cut) == (
        sum(row.context_cut for row in encoded),
        sum(row.target_cut for row in encoded),
    )
    assert of.cut_rows == run.truncated_rows
    assert of.contexts.tokens + of.targets.tokens == lengths.tokens
    finding = found(examined).get("answers_cut")
    cut = [number for number, row in enumerate(encoded, 1) if row.target_cut]
    assert list(finding.rows if finding else ()) == cut
    assert bool(cut) == (of.target_cut_rows > 0) and 4 in cut


def test_many_rows_that_are_cut_are_worth_a_word(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs())
    finding = found(look(path, counted=tokens(max_length=40)))["many_cut"]
    assert (finding.level, finding.count) == ("warning", 60)
    assert "100.0 % of the rows are cut" in finding.sentence


def test_control_tokens_are_said_and_what_becomes_of_them(tmp_path):
    rows = pairs()
    rows[4]["question"] += " <|endoftext|>"
    finding = found(look(write(tmp_path / "a.jsonl", rows), counted=tokens(max_length=999)))["control_tokens"]
    assert finding.rows == (5,) and "read as plain text" in finding.sentence
    given = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
    finding = found(look(write(tmp_path / "a.jsonl", given), counted=tokens(max_length=999)))["control_tokens"]
    assert finding.rows == (5,) and "counts as such" in finding.sentence


def test_a_tokenizer_that_has_no_end(tmp_path):
    endless = bert()
    endless.eos_token = None
    assert (
        "can't learn to stop"
        in found(look(write(tmp_path / "a.jsonl", pairs()), counted=tokens(endless)))["no_end"].sentence
    )
    assert "no_end" not in found(look(write(tmp_path / "a.jsonl", pairs()), counted=tokens()))


def test_a_row_that_gives_no_token_is_refused_alone(tmp_path):
    """Rows are tokenised many at once: one that can't be must not take the others with it."""
    rows = pairs()
    rows[7]["answer"] = "\x7f\x01"
    words = bert()  # it drops control characters
    examined = look(write(tmp_path / "a.jsonl", rows), counted=tokens(words, 999))
    assert examined.report.parts["train"].usable == 59
    assert found(examined)["rejected"].rows == (8,)
    assert "a.jsonl:8: nothing to learn" in found(examined)["rejected"].sentence


# ---- formats and settings ----


def test_recipe_mistakes_are_the_runs_own(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs())
    with pytest.raises(RecipeError, match="questoin"):
        look(path, template="{questoin} {answer}")
    with pytest.raises(RecipeError, match="learns from plain text, and these rows are questions and answers"):
        look(path, task="continue")
    with pytest.raises(DataError, match="are of no format we know"):
        look(write(tmp_path / "b.jsonl", [{"a": 1, "b": 2}] * 3))


def test_plain_text_is_cut_into_windows_and_loses_nothing(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(row["question"] for row in pairs()) + "\n\n" + pairs()[0]["question"])
    examined = look(path, counted=tokens(max_length=10), task="continue")
    of, lengths = examined.report.written["train"], examined.report.lengths["train"]
    assert (of.context_cut, of.target_cut, of.cut_rows) == (0, 0, 0)
    from tunewright.data.windows import windows

    assert examined.encoder is not None
    whole = tokenize_written(open_data(path).train, RowEncoder.of(examined.encoder.format, gpt2()), tmp_path / "cache")
    bos = examined.encoder.encoder.bos
    assert of.windows == len(windows(whole, 10, bos[0] if bos else None)) > len(whole)
    assert of.targets.tokens == lengths.tokens
    assert {code: f.repair for code, f in found(examined).items()} == {"duplicates": ""}  # --fix leaves texts alone
    with pytest.raises(UsageError, match="plain text"):
        check_output(path, tmp_path / "fixed.txt")


def test_a_column_named_for_plain_text(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"title": f"t{i}", **row} for i, row in enumerate(pairs())])
    report = look(path, task="continue", text="question").report
    assert (report.format, report.text_column, report.usable) == ("plain text", "question", True)
    with pytest.raises(DataError, match=r'no column "qestion".* Did you mean "question"'):
        look(path, task="continue", text="qestion")


def test_the_rows_held_out_are_a_runs_own(tmp_path):
    from tunewright.tasks.write import Write

    rows = pairs()
    rows[5]["question"] = rows[6]["question"] = rows[4]["question"]
    path = write(tmp_path / "a.jsonl", rows)
    recipe = build_recipe({"task": "generate", "data": {"train": str(path)}})
    task = Write.of(recipe, open_data(path))
    assert examine_written(recipe).report.held_out == len(task.validation_rows)


# ---- repairs ----


def test_the_repaired_copy_is_what_a_run_accepts(tmp_path):
    rows = pairs()
    planted(rows)
    held_out = [{**rows[20], "answer": "other"}, *pairs(90)[80:]]
    validation = write(tmp_path / "v.jsonl", held_out)
    done = repair(look(write(tmp_path / "a.jsonl", rows), validation), tmp_path / "b.jsonl")
    said = {each.what: (each.count, each.rows) for each in done.repairs}
    assert said == {
        "left out: there is nothing to learn": (3, (3, 4, 12)),
        "left out: can't be used": (1, (14,)),
        "left out: a row seen before": (1, (6,)),
        "left out: the prompt is in v.jsonl as well": (1, (21,)),
        "text put right that was decoded wrongly once": (1, (16,)),
    }
    assert done.rows_written == 54
    assert "François le français" in (tmp_path / "b.jsonl").read_text()
    left = look(tmp_path / "b.jsonl", validation).report
    assert left.usable and {f.code for f in left.findings} == {"conflicts", "near_duplicates", "replaced"}


def test_rows_of_numbers_are_as_many_as_rows(tmp_path):
    rows = pairs()
    planted(rows)
    examined = look(write(tmp_path / "a.jsonl", rows), counted=tokens(max_length=50))
    exchanges = examined.train.exchanges
    assert exchanges is not None
    sizes = {len(each) for each in (exchanges.prompts, exchanges.answers, exchanges.targets, examined.train.tokens)}
    assert sizes == {len(examined.train.survey)} == {56}
    assert np.all(exchanges.targets <= examined.train.tokens)
