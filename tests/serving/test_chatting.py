"""A talk: prompts as training made them, pieces that add up to the answer, history, another try, Ctrl-C."""

from __future__ import annotations

import pytest

from tests.data.test_written import Rows
from tests.serving.small_writer import QUESTIONS, TALKS, TEMPLATE, encoder, run
from tunewright.data.examples import Row
from tunewright.errors import UsageError
from tunewright.serving.chatting import Chat, _Shown
from tunewright.serving.writer import Writer


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    folder = run(tmp_path_factory.mktemp("talk"), TALKS, max_length=160, positions=640, max_new_tokens=8)
    return Writer.load(folder / "model", "cpu")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return Writer.load(run(tmp_path_factory.mktemp("answers"), template=TEMPLATE) / "model", "cpu")


def asked(chat, question, **settings):
    pieces: list[str] = []
    answer = chat.answer(question, pieces.append, **settings)
    assert "".join(pieces) == answer.text
    return answer


def fed(monkeypatch, writer) -> list[list[int]]:
    """The prompts that reach the model."""
    seen: list[list[int]] = []
    own = Writer.write
    monkeypatch.setattr(Writer, "write", lambda self, ids, *a, **k: (seen.extend(ids), own(self, ids, *a, **k))[1])
    return seen


def test_pieces_add_up_to_what_predict_gives(talker, answerer):
    for writer, question in ((talker, "Hi a"), (answerer, "what is tea?")):
        assert asked(Chat(writer, writer.sampling()), question).text == writer.predict([question])[0].prediction


def test_a_talk_is_fed_as_training_would_write_it(talker, monkeypatch):
    seen, chat = fed(monkeypatch, talker), Chat(talker, talker.sampling(temperature=1.0), system="Be brief")
    first = asked(chat, "Hi")
    second = asked(chat, "And you?")
    assert first.text and second.text
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": first.text}, {"role": "user", "content": "And you?"}]  # fmt: skip
    whole = talker.encoder.without_limit()
    trained = whole.segments(Row({"messages": [*messages, {"role": "assistant", "content": "x"}]}, "", 0))
    tokens = whole.encoder.encode(trained)
    last = len(tokens.is_target) - tokens.is_target[::-1].index(False)  # where the last answer begins
    assert seen[1] == tokens.ids[:last]
    assert seen[0] == talker.prompt(Row({"messages": messages[:2]}, "", 0)).ids
    assert chat.exchanges == [("Hi", first.text), ("And you?", second.text)]


def test_questions_of_a_template_stand_alone(answerer, monkeypatch):
    seen, chat = fed(monkeypatch, answerer), Chat(answerer, answerer.sampling())
    asked(chat, "what is tea?")
    asked(chat, "what is rain?")
    trained = encoder_ids(answerer, "what is rain?")
    assert seen[1] == trained and chat.exchanges == []
    with pytest.raises(UsageError, match="this model reads no conversation"):
        Chat(answerer, answerer.sampling(), system="Be brief")


def encoder_ids(writer, question):
    tokens = writer.encoder.encoder.encode(writer.encoder.segments(Row({"question": question, "answer": "x"}, "", 0)))
    return tokens.ids[: tokens.is_target.index(True)]


def test_several_columns_are_asked_by_name(tmp_path):
    rows = [{**row, "context": "a film"} for row in QUESTIONS]
    writer = Writer.load(run(tmp_path, rows, max_length=200, positions=256) / "model", "cpu")
    chat = Chat(writer, writer.sampling())
    assert (chat.columns, chat.optional) == (("context", "question"), ("context",))
    row = {"context": "a film", "question": "what is tea?"}
    assert asked(chat, row).text == writer.predict([row])[0].prediction
    made = encoder(tmp_path, writer.format, 200)
    assert writer.prompt(next(iter(Rows(row).rows()))).ids == made.prompt_ids(Row(row, "", 0))


def test_another_try_differs_and_replaces(talker):
    chat = Chat(talker, talker.sampling())
    with pytest.raises(UsageError, match="nothing was asked yet"):
        chat.retry(print)
    first = asked(chat, "Hi")
    tries = {chat.retry(lambda piece: None).text for _ in range(4)}
    assert tries - {first.text} and len(chat.exchanges) == 1 and chat.exchanges[0][0] == "Hi"
    assert asked(Chat(talker, talker.sampling()), "Hi") == first  # greedy again
    chat.clear()
    assert chat.exchanges == [] and chat.last is None


@pytest.mark.parametrize("by", ["asking", "interrupt"])
def test_a_stopped_answer_ends_itself_and_not_the_talk(talker, by):
    chat, shown = Chat(talker, talker.sampling(temperature=1.0)), list[str]()

    def show(piece):
        shown.append(piece)
        if by == "interrupt":
            raise KeyboardInterrupt

    whole = asked(Chat(talker, talker.sampling(temperature=1.0)), "Hi")
    answer = chat.answer("Hi", show, lambda: by == "asking" and bool(shown))
    assert answer.was_stopped and whole.text.startswith(answer.text) and 0 < len(answer.text) < len(whole.text)
    assert chat.exchanges == [("Hi", answer.text)]
    assert not asked(chat, "And you?").was_stopped


def test_a_long_talk_forgets_its_beginning(talker, monkeypatch):
    chat, forgotten = Chat(talker, talker.sampling()), list[int]()
    chat.exchanges = [(f"question {n} " + "very " * 10, "good film " * 3) for n in range(12)]
    seen = fed(monkeypatch, talker)
    forgotten.append(asked(chat, "And now?").forgotten)
    text = talker.tokenizer.decode(seen[0])
    assert 0 < forgotten[0] < 12 and len(seen[0]) + 8 <= 640
    assert text.startswith(f"<|im_start|>user\nquestion {forgotten[0]} ") and "And now?" in text


@pytest.mark.parametrize("kind", ["template", "text"])
def test_what_is_shown_is_what_predict_would_say(kind, answerer, tmp_path):
    """White space around an answer is no part of it; of a plain text it is what joins the two."""
    rows = [{"text": "the film"}]
    writer = answerer if kind == "template" else Writer.load(run(tmp_path, rows) / "model", "cpu")
    ids = writer.tokenizer("  \n a good  film \n\n")["input_ids"]
    pieces: list[str] = []
    shown = _Shown(writer, writer.sampling(), pieces.append)
    for token in ids:
        shown.push(token)
    shown.end()
    assert "".join(pieces) == shown.text == writer.encoder.text(ids)
    assert shown.text == ("a good  film" if kind == "template" else "  \n a good  film \n\n")
