"""A format is kept as JSON and reads the same rows in the same way where no training data is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.test_written import CHAT, PAIRS, SHARE, Rows, first, texts
from tunewright.data.row_reading import TalkReading
from tunewright.data.written import PROMPT_FORMAT, Format, as_it_is, as_messages, kept, kept_in, recognise
from tunewright.errors import DataError, ModelError, UsageError

TALKS = [
    {"messages": CHAT},
    {"conversations": SHARE, "system": "Be brief"},
    {"prompt": CHAT[:1], "completion": CHAT[1:]},
]
OTHERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"q": "Why?", "a": ["so", "thus"], "b": ["thus"]}, {"template": "Q: {q}\nA: {a}", "references": "b"}),
    ({"x": "1", "y": "2", "z": "3"}, {"template": "{{x}} {y} {x} {z}", "learn": "all"}),
    ({"prompt": "Hi", "reply": "Yo"}, {"template": "chatml"}),
    ({"messages": CHAT, "gold": ["Yo!", "Yo"]}, {"references": "gold", "learn": "completion"}),
]


def again(form: Format) -> Format:
    return kept(json.loads(json.dumps(form.to_json())))


@pytest.mark.parametrize(
    ("values", "asked"), [*((row, {}) for row, *_ in PAIRS), *((row, {}) for row in TALKS), *OTHERS]
)
def test_a_kept_format_is_the_same_format(values, asked):
    found, row = first(Rows(values), **asked)
    same = again(found)
    assert same == found and same.signature == found.signature
    assert same.segments(row) == found.segments(row)
    assert same.prompt(row) == found.prompt(row)
    assert same.references(row) == found.references(row)
    assert (same.talks, same.learn, same.said) == (found.talks, found.learn, found.said)


def test_signatures_tell_formats_apart():
    formats = [recognise(Rows(row)) for row, *_ in PAIRS] + [recognise(Rows(row)) for row in TALKS]
    formats += [recognise(Rows(row), **asked) for row, asked in OTHERS]
    different = {json.dumps(form.to_json() | {"said": []}, sort_keys=True) for form in formats}
    assert len({form.signature for form in formats}) == len(different)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"version": 2}, "expected 1"),
        ({"learn": "everything"}, "learn 'everything'"),
        ({"name": 3}, "name is 3"),
        ({"reading": {"kind": "code"}}, "kind is 'code'; expected one of template, talk"),
        ({"reading": None}, "kind is None"),
        ({"reading": {"kind": "text", "column": 3}}, "column"),
        (
            {
                "reading": {
                    "kind": "template",
                    "template": {"parts": [], "completion": "a"},
                    "answers": "a",
                    "several": "yes",
                }
            },
            "several",
        ),
        ({"reading": {"kind": "template", "template": {"parts": [["x"]], "completion": "a"}}}, "template"),
    ],
)
def test_a_damaged_format_is_one_sentence(damage, said):
    values = recognise(Rows({"question": "Why?", "answer": "so"})).to_json() | damage
    with pytest.raises(ModelError, match="the prompt format can't be used") as error:
        kept(values, "model/prompt_format.json")
    assert said in str(error.value) and error.value.where == "model/prompt_format.json"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b" " * (2**20 + 1)])
def test_a_file_that_is_no_format_is_one_sentence(content, tmp_path):
    (tmp_path / PROMPT_FORMAT).write_bytes(content)
    with pytest.raises(ModelError, match="the prompt format can't be"):
        kept_in(tmp_path)


def test_a_folder_with_and_without(tmp_path):
    assert kept_in(tmp_path) == (None, {})
    form = recognise(Rows({"text": "Once."}))
    (tmp_path / PROMPT_FORMAT).write_text(json.dumps(form.to_json() | {"max_new_tokens": 7}))
    found, values = kept_in(tmp_path)
    assert found == form and values["max_new_tokens"] == 7


def test_columns_and_what_a_lone_text_is():
    question = recognise(Rows({"context": "C", "question": "Why?", "answer": "so"}))
    assert (question.reading.columns, question.reading.optional) == (("context", "question"), ("context",))
    assert texts(question.prompt(question.row("Who?")))[0].endswith("question.\n\nQ: Who?\n\nA: ")
    several = recognise(Rows({"x": "1", "y": "2", "z": "3"}), template="{x} {y} {z}")
    with pytest.raises(UsageError, match=r"the template reads \{x\} and \{y\}, so one text is no row"):
        several.row("1")
    for talk in (recognise(Rows(row)) for row in TALKS):
        asked = talk.prompt(talk.row("Hi"))
        assert [(m.role, m.content) for m in asked.messages] == [("user", "Hi")]
    assert texts(as_it_is().prompt(as_it_is().row("Once")))[0] == "Once"
    assert as_messages().talks and as_messages().reading == TalkReading("messages")


def test_a_row_without_the_column_is_named():
    for form in (recognise(Rows(row)) for row in TALKS):
        with pytest.raises(DataError, match=f'no "{form.reading.columns[0]}" here; the row has other'):
            form.prompt(Rows({"other": 1}).rows().__next__())


def test_who_speaks_last_is_answered():
    """A talk that ends in a question is asked as it stands, however much was answered before it."""
    form = recognise(Rows({"messages": CHAT}))
    waiting = Rows({"messages": [*CHAT, {"role": "user", "content": "And you?"}]}).rows().__next__()
    asked = form.prompt(waiting)
    assert not isinstance(asked, tuple) and [m.content for m in asked.messages] == ["Hi", "Yo", "And you?"]
    assert form.references(waiting) == () and form.references(Rows({"messages": CHAT}).rows().__next__()) == ("Yo",)
