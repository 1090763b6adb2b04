"""Which task rows are for: labels win where they are few, and nobody is second-guessed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.test_examining import write
from tunewright.data.purpose import purpose_of
from tunewright.data.sources import open_data
from tunewright.errors import DataError


def of(rows: list[dict[str, Any]], tmp_path) -> str:
    return purpose_of(open_data(write(tmp_path / "a.jsonl", rows)).train).task


def many(make, count: int = 40) -> list[dict[str, Any]]:
    return [make(i) for i in range(count)]


TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        (many(lambda i: {"text": f"text {i}", "label": i % 2}), "classify"),
        (many(lambda i: {"text": f"text {i}", "stars": i % 5}), "classify"),
        (many(lambda i: {"text": f"text {i}", "id": i}), "classify"),  # whose error names the columns
        (many(lambda i: {"prompt": f"text {i}", "completion": f"c {i}", "label": i % 2}), "classify"),
        (many(lambda i: {"input": f"text {i}", "target": ("good", "bad")[i % 2]}), "classify"),
        (many(lambda i: {"question": f"Is {i}?", "answer": ("yes", "no")[i % 2]}), "classify"),
        (many(lambda i: {"a": i, "b": i}), "classify"),
        (many(lambda i: {"question": f"Is {i}?", "answer": f"answer {i}"}), "generate"),
        (many(lambda i: {"question": f"Is {i}?", "answer": ("yes", "no")[i % 2]}, 4), "generate"),
        (many(lambda i: {"title": f"t{i % 2}", "question": f"q {i}", "answers": [f"a {i}"]}), "generate"),
        (many(lambda i: {"prompt": f"text {i}", "completion": f"completion {i}"}), "generate"),
        (many(lambda i: {"instruction": f"do {i}", "output": f"done {i}", "category": f"k{i % 3}"}), "generate"),
        (many(lambda i: {"document": f"long {i}", "summary": f"short {i}"}), "generate"),
        (many(lambda i: {"messages": TALK, "label": i % 2}), "generate"),  # there is no text to classify
        (many(lambda i: {"messages": TALK, "topic": i % 2}), "generate"),
        (many(lambda i: {"text": f"text {i}"}), "continue"),
    ],
)  # fmt: skip
def test_the_task_that_rows_are_for(rows, task, tmp_path):
    assert of(rows, tmp_path) == task


def test_a_book_is_gone_on_with(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("One.\n\nTwo.\n")
    found = purpose_of(open_data(path).train)
    assert (found.task, found.said) == ("continue", "task: continue, as there is text and no label")


def test_what_is_guessed_is_said_and_what_is_usual_is_not(tmp_path):
    rows = many(lambda i: {"question": f"Is {i}?", "answer": f"answer {i}"})
    assert "--task classify" in purpose_of(open_data(write(tmp_path / "a.jsonl", rows)).train).said
    rows = many(lambda i: {"text": f"text {i}", "label": i % 2})
    assert purpose_of(open_data(write(tmp_path / "a.jsonl", rows)).train).said == ""


def test_comparisons_are_for_neither(tmp_path):
    with pytest.raises(DataError, match="are comparisons"):
        of(many(lambda i: {"prompt": f"p {i}", "chosen": "a", "rejected": "b"}), tmp_path)
