"""Formats are recognised by their columns, said, and read; text files become documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.whole import ROOT
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row
from tunewright.data.reading import open_file
from tunewright.data.segments import Segment
from tunewright.data.text_files import is_text, text_documents
from tunewright.data.written import recognise
from tunewright.errors import DataError, RecipeError

DATA = ROOT.parent / "shared" / "data"
SHARED = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not here")


class Rows:
    name = "rows.jsonl"

    def __init__(self, *rows: dict[str, Any]):
        self.given = rows

    def rows(self) -> Iterator[Row]:
        return (Row(values, f"{self.name}:{n + 1}", n) for n, values in enumerate(self.given))

    def fingerprint(self) -> str:
        return str(self.given)


def texts(segments):
    """What stands before the target, and the target."""
    return tuple("".join(s.text for s in segments if s.is_target == target) for target in (False, True))


def first(source, **settings):
    found = recognise(source, **settings)
    return found, next(iter(source.rows()))


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
SHARE = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]

PAIRS = [
    ({"prompt": "Hi ", "completion": "Yo"}, "prompt and completion", "Hi ", "Yo"),
    ({"input": "Hi\n", "output": "Yo", "id": 3}, "prompt and completion", "Hi\n", "Yo"),
    ({"prompt": "Hi ", "response": 4}, "prompt and completion", "Hi ", "4"),
    ({"instruction": "Add", "input": "1 2", "output": "3"}, "Alpaca", "### Input:\n1 2\n", "3"),
    ({"instruction": "Name one", "input": "", "output": "3"}, "Alpaca", "### Instruction:\nName one\n\n### Resp", "3"),
    ({"instruction": "Add", "context": "1 2", "response": "3"}, "Alpaca", "### Input:\n1 2\n", "3"),
    ({"question": "Who?", "answer": "Ada"}, "questions and answers", "question.\n\nQ: Who?\n\nA: ", "Ada"),
    ({"context": "C.", "question": "Who?", "answers": ["Ada", "A"]}, "questions and answers", "C.\n\nQ: Who?", "Ada"),
    ({"context": "C.", "question": "Who?", "answers": {"text": ["Ada"], "answer_start": [0]}}, "questions and answers",
     "C.\n\nQ: Who?", "Ada"),
    ({"document": "Long.", "summary": "Short", "id": 1}, "documents and summaries", "Long.\n\nSummary: ", "Short"),
    ({"article": "Long.", "highlights": "Short"}, "documents and summaries", "Long.", "Short"),
    ({"text": "Long.", "summary": "Short"}, "documents and summaries", "Long.", "Short"),
    ({"text": "Once.", "label": "x"}, "plain text", "", "Once."),
]  # fmt: skip


@pytest.mark.parametrize(("values", "name", "prompt", "target"), PAIRS)
def test_formats(values, name, prompt, target):
    found, row = first(Rows(values))
    assert found.name == name and found.said[0].startswith(f"format: {name}")
    before, after = texts(found.segments(row))
    assert prompt in before and after == target
    if name == "plain text":
        assert (found.learn, found.references(row)) == ("all", ())
    else:
        assert found.learn == "completion" and found.references(row)[0] == target
        assert texts(found.prompt(row)) == (before, "")


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"messages": CHAT}, "OpenAI messages"),
        ({"id": 3, "chat": CHAT}, "OpenAI messages"),
        ({"conversations": CHAT}, "OpenAI messages"),
        ({"conversations": SHARE}, "ShareGPT"),
        ({"anything": SHARE}, "ShareGPT"),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, "messages in pairs"),
        ({"prompt": [*CHAT, CHAT[0]], "completion": CHAT[1:]}, "messages in pairs"),
    ],
)
def test_conversations(values, name):
    found, row = first(Rows(values))
    assert (found.name, found.learn) == (name, "assistant") and "each answer" in found.said[1]
    talk = found.segments(row)
    assert isinstance(talk, Conversation) and talk.answer == "Yo" and found.references(row) == ("Yo",)
    assert sum(message.is_learned for message in talk.messages) == 1
    asked = found.prompt(row)
    assert isinstance(asked, Conversation) and asked.messages == talk.messages[:-1]
    assert recognise(Rows(values), learn="completion").learn == "completion"


def test_sharegpt_with_system_tools_and_calls():
    calls = [SHARE[0], {"from": "function_call", "value": '{"name": "sum", "arguments": {"a": 1}}'},
             {"from": "observation", "value": "3"}, SHARE[1]]  # fmt: skip
    found, row = first(Rows({"conversations": calls, "system": "Be brief", "tools": '[{"name": "sum"}]'}))
    talk = found.segments(row)
    assert isinstance(talk, Conversation)
    assert [message.role for message in talk.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert talk.messages[2].extra["tool_calls"][0]["function"] == {"name": "sum", "arguments": {"a": 1}}
    assert talk.tools == ({"name": "sum"},) and not any("not used" in said for said in found.said)


@pytest.mark.parametrize(
    ("row", "fragments"),
    [
        ({"conversations": [{"from": "humn", "value": "Hi"}]}, ["message 1", '"humn"', 'Did you mean "human"?']),
        ({"conversations": [{"from": "human"}]}, ["message 1", 'no "value"']),
        ({"conversations": [SHARE[0], {"from": "function_call", "value": "{"}]}, ["message 2", "not JSON"]),
        ({"conversations": [SHARE[0], {"from": "function_call", "value": "3"}]}, ["message 2", 'without a "name"']),
        ({"conversations": "Hi"}, ["str Hi"]),
        ({"conversations": None}, ["is null"]),
        ({"other": 1}, ['no "conversations" here', "other"]),
    ],
)
def test_bad_conversations_name_the_row(row, fragments):
    source = Rows({"conversations": SHARE}, row)
    found = recognise(source)
    with pytest.raises(DataError) as caught:
        found.segments(list(source.rows())[1])
    assert caught.value.where == "rows.jsonl:2" and caught.value.field == "conversations"
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_template_of_ones_own():
    source = Rows({"q": "Who?", "gold": "Ada", "others": ["Ada L.", "Ada"], "id": 1})
    found, row = first(source, template="Q: {q} A: {gold}", completion="gold", references="others")
    assert found.said == ('template: "Q: {q} A: {gold}"', "accepted answers: others", "not used: id")
    assert texts(found.segments(row)) == ("Q: Who? A: ", "Ada") and found.references(row) == ("Ada L.", "Ada")
    assert all(s.is_value for s in found.segments(row) if s.text in ("Who?", "Ada"))
    without = Row({"q": "Why?"}, "in.jsonl:1", 0)
    assert texts(found.prompt(without)) == ("Q: Why? A: ", "") and found.references(without) == ()


def test_a_completion_of_several_answers_teaches_the_first():
    source = Rows({"q": "Who?", "gold": ["Ada", "Ada L."]}, {"q": "Why?", "gold": []})
    found = recognise(source, template="Q: {q} A: {gold}")
    rows = list(source.rows())
    assert texts(found.segments(rows[0])) == ("Q: Who? A: ", "Ada") and found.references(rows[0]) == ("Ada", "Ada L.")
    assert "gold holds several answers: the first is learned" in found.said
    with pytest.raises(DataError, match=r'rows.jsonl:2: "gold" holds no answer'):
        found.segments(rows[1])


def test_pairs_are_taken_as_they_are_and_what_glues_is_said():
    found, row = first(Rows({"prompt": "<s>Hi", "completion": "Yo</s>"}))
    assert found.segments(row) == (Segment("<s>Hi", False), Segment("Yo</s>", True))
    assert "nothing stands between prompt and completion" in found.said[-1]
    assert not any("nothing stands" in said for said in recognise(Rows({"prompt": "Hi", "completion": " Yo"})).said)


@pytest.mark.parametrize("values", [{"prompt": "Hi", "completion": ""}, {"question": "Hi", "answer": " "},
                                    {"text": " "}, {"document": "Hi", "summary": None},
                                    {"question": "Hi", "answers": {"text": []}}])  # fmt: skip
def test_rows_with_nothing_to_learn_are_named(values):
    found, row = first(Rows(values))
    with pytest.raises(DataError) as caught:
        found.segments(row)
    assert caught.value.where == "rows.jsonl:1" and caught.value.field in values


def test_comparisons_are_another_task():
    with pytest.raises(DataError, match="comparisons"):
        recognise(Rows({"conversations": SHARE[:1], "chosen": SHARE[1], "rejected": SHARE[1]}))
    found = recognise(Rows({"prompt": "a", "chosen": "b", "rejected": "c"}), template="{prompt} {chosen}")
    assert found.name == "template"


def test_what_no_format_fits():
    with pytest.raises(DataError, match=r"rows.jsonl: the columns \(a, b\) are of no format.*data.template"):
        recognise(Rows({"a": 1, "b": 2}))


@pytest.mark.parametrize("role", ["completion", "references"])
def test_columns_that_arent_there(role):
    with pytest.raises(RecipeError, match=r'no column "anwser".*Did you mean "answer"') as caught:
        recognise(Rows({"question": "Hi", "answer": "Yo"}), **{role: "anwser"})
    assert caught.value.field == f"data.{role}"


def test_completion_named_without_a_template():
    found, row = first(Rows({"question": "Who?", "answer": "x", "gold": "Ada"}), completion="gold")
    assert texts(found.segments(row))[1] == "Ada" and "not used: answer" in found.said


def test_later_rows_show_what_the_first_leave_null():
    source = Rows({"question": "Hi", "answers": None}, {"question": "Hi", "answers": ["Yo"]})
    found = recognise(source)
    assert texts(found.segments(list(source.rows())[1]))[1] == "Yo"


def test_signatures_tell_formats_apart():
    sources = [Rows(values) for values, *_ in PAIRS[:2]] + [Rows({"messages": CHAT}), Rows({"conversations": SHARE})]
    assert len({recognise(source).signature for source in sources}) == 4


# ---- real files ----


@SHARED
@pytest.mark.parametrize(
    ("name", "expected"),
    [("squad", "questions and answers"), ("summaries", "documents and summaries"), ("instructions", "Alpaca"),
     ("imdb", "plain text")],
)  # fmt: skip
@pytest.mark.parametrize("split", ["train", "validation"])
def test_real_files_are_read_to_the_end(name, expected, split):
    source = open_file(DATA / f"{name}_{split}.jsonl")
    found = recognise(source)
    assert found.name == expected
    for row in source.rows():
        before, target = texts(found.segments(row))
        assert target and texts(found.prompt(row))[0] == (before or target)  # a plain text is gone on from
        if expected != "plain text":
            assert target in found.references(row)


# ---- text files ----


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("One.\nStill one.\n\n \nTwo.\n", [("One.\nStill one.", 1), ("Two.", 5)]),
        ("\n\nOne.\r\n\r\nTwo.\r\n", [("One.", 3), ("Two.", 5)]),
        ("One.\nTwo.\n", [("One.", 1), ("Two.", 2)]),
        ("One.\nTwo.\n\n\n", [("One.", 1), ("Two.", 2)]),
        ("\ufeff  One.", [("  One.", 1)]),
    ],
)
def test_a_text_file(tmp_path, content, expected):
    path = tmp_path / "book.txt"
    path.write_text(content, encoding="utf-8", newline="")
    source = text_documents(path)
    rows = list(source.rows())
    assert [(row.values["text"], row.where) for row in rows] == [(text, f"book.txt:{n}") for text, n in expected]
    assert [row.number for row in rows] == list(range(len(rows))) and is_text(path)
    assert recognise(source).name == "plain text"


def test_a_folder_of_text_files(tmp_path):
    for name, text in {"b.txt": "Two.\n\nMore.", "a.TXT": "One.\n", "c.md": "no", "d.txt": "\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / "d.txt").write_text("x\n")
    (tmp_path / "link.txt").symlink_to(tmp_path / "c.md")
    source = text_documents(tmp_path)
    assert [row.values["text"] for row in source.rows()] == ["One.", "Two.\n\nMore.", "x"]
    before = source.fingerprint()
    (tmp_path / "b.txt").write_text("Three.")
    with pytest.raises(DataError, match="changed while"):
        list(source.rows())
    assert text_documents(tmp_path).fingerprint() != before


def test_text_that_is_none(tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name, fragment in {"blank": "blank lines", "latin": "latin.txt:1: byte 0xe9", "nul": "NUL"}.items():
        with pytest.raises(DataError, match=fragment):
            list(text_documents(tmp_path / f"{name}.txt").rows())
    for path in (tmp_path / "empty.txt", tmp_path / "missing.txt"):
        with pytest.raises(DataError):
            text_documents(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"no \.txt file"):
        text_documents(tmp_path / "folder")
    assert not is_text(tmp_path / "folder") and not is_text(tmp_path / "rows.jsonl")
