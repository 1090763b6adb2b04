"""Completions drawn for people to rank: every draw once whatever interrupts, and all models asked the same."""

from __future__ import annotations

import json

import pytest

from tests.data.test_written import Rows
from tests.serving import small_writer
from tests.serving.small_writer import QUESTIONS, TALKS, TEMPLATE
from tunewright.data.judgements import Judgements
from tunewright.errors import DataError, UsageError
from tunewright.serving import drawing
from tunewright.serving.writer import Writer

HOT = {"temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("drawing")
    small_writer.run(made / "questions", template=TEMPLATE)
    small_writer.run(made / "talks", TALKS, max_length=160, positions=640)
    return made


@pytest.fixture(scope="module")
def tuned(folder):
    return Writer.load(folder / "questions" / "model", "cpu")


@pytest.fixture(scope="module")
def base(folder):
    return Writer.load(folder / "questions" / "base", "cpu")


@pytest.fixture
def store(tmp_path):
    with Judgements.open(tmp_path / "j.db") as opened:
        yield opened


def asked(store, writer, rows=QUESTIONS, **settings):
    return drawing.ask(store, Rows(*rows), kept=writer.format, **settings)


def texts(store):
    """(prompt, text, names of those who wrote it)."""
    names = {}
    for one in store.origins():
        names.setdefault(one.completion_id, set()).add(one.name)
    prompts = {one.id: one.text for one in store.prompts()}
    return {(prompts[one.prompt_id], str(one.text), *sorted(names[one.id])) for one in store.completions()}


def test_prompts_are_what_the_model_reads(store, tuned):
    found = asked(store, tuned)
    assert store.prompts()[0].text == "Q: what is tea?\nA: "
    assert store.prompts()[0].values == QUESTIONS[0]
    assert [row.values for _, row in found.prompts] == QUESTIONS


def test_prompts_of_a_talk_are_messages_and_answers_are_the_assistants(store, folder):
    writer = Writer.load(folder / "talks" / "model", "cpu")
    found = asked(store, writer, TALKS[:1])
    assert store.prompts()[0].text == [{"role": "user", "content": "Hi a"}]
    drawing.draw(store, writer, "run:talks", found, 2, HOT)
    assert all(one.text[0]["role"] == "assistant" and len(one.text) == 1 for one in store.completions())


def test_a_template_a_limit_and_equal_prompts(store):
    rows = [{"word": "tea"}, {"word": "tea"}, {"word": "rain"}, {"word": "salt"}]
    found = drawing.ask(store, Rows(*rows), template="Say {word}:", limit=3)
    assert [prompt.text for prompt in store.prompts()] == ["Say tea:", "Say rain:"]
    assert len(found.prompts) == 2


def test_rows_of_training_are_read_as_training_reads_them(store):
    """The answer is no part of the prompt, and the instruction is."""
    rows = [{"instruction": "Add.", "input": "1 and 2", "output": "3"}]
    found = drawing.ask(store, Rows(*rows))
    assert found.form.name == "Alpaca"
    text = store.prompts()[0].text
    assert "Add." in text and "1 and 2" in text and "3" not in text
    drawing.ask(store, Rows({"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}))
    assert store.prompts()[1].text == "Tea?"


def test_k_draws_of_each_prompt_with_their_settings(store, tuned):
    found = asked(store, tuned)
    told = drawing.draw(store, tuned, "run:questions", found, 3, HOT)
    assert (told.drawn, told.known, told.empty) == (15, 0, 0)
    assert told.repeated == 15 - len(store.completions())
    origins = store.origins()
    assert len(origins) == 15
    expected = {"temperature": 1.0, "top_p": 1.0, "seed": 3, "max_new_tokens": 6}
    assert all({**one.settings, "draw": None} == {**expected, "draw": None} for one in origins)
    assert sorted(one.settings["draw"] for one in origins) == sorted([0, 1, 2] * 5)


def test_drawn_again_there_is_nothing_new(store, tuned):
    found = asked(store, tuned)
    drawing.draw(store, tuned, "run:questions", found, 2, HOT)
    before = texts(store)
    told = drawing.draw(store, tuned, "run:questions", asked(store, tuned), 2, HOT)
    assert (told.drawn, told.known, texts(store)) == (0, 10, before)
    told = drawing.draw(store, tuned, "run:questions", found, 3, HOT)
    assert (told.drawn, told.known) == (5, 10)


def test_an_interruption_changes_nothing_of_what_is_drawn(tmp_path, tuned, monkeypatch):
    """Stopped in the third block of seven and started again: the same texts as never stopped."""
    with Judgements.open(tmp_path / "whole.db") as whole:
        drawing.draw(whole, tuned, "m", asked(whole, tuned), 4, HOT)
        expected = texts(whole)
    monkeypatch.setattr(drawing, "BLOCK", 3)
    writes, real = [], Writer.write

    def write(self, prompts, *arguments, **more):
        writes.append(len(prompts))
        if len(writes) == 3:
            raise KeyboardInterrupt
        return real(self, prompts, *arguments, **more)

    with Judgements.open(tmp_path / "cut.db") as cut:
        monkeypatch.setattr(Writer, "write", write)
        with pytest.raises(KeyboardInterrupt):
            drawing.draw(cut, tuned, "m", asked(cut, tuned), 4, HOT)
        assert 0 < len(cut.origins()) == 6
        told = drawing.draw(cut, tuned, "m", asked(cut, tuned), 4, HOT)
        assert (told.known, told.drawn, sum(writes)) == (6, 14, 23)
        assert texts(cut) == expected


def test_a_text_hangs_on_its_own_prompt_and_number_alone(tmp_path, tuned):
    """Not on the other rows, nor on their order."""
    with Judgements.open(tmp_path / "a.db") as one, Judgements.open(tmp_path / "b.db") as other:
        drawing.draw(one, tuned, "m", asked(one, tuned), 2, HOT)
        drawing.draw(other, tuned, "m", asked(other, tuned, QUESTIONS[:1:-1]), 2, HOT)
        assert texts(other) < texts(one)


def test_draws_and_seeds_differ(store, tuned):
    found = asked(store, tuned)
    drawing.draw(store, tuned, "m", found, 6, {"temperature": 1.5, "seed": 0})
    for prompt, _ in found.prompts:
        assert len(store.completions(prompt)) > 3
    before = texts(store)
    drawing.draw(store, tuned, "m", found, 6, {"temperature": 1.5, "seed": 1})
    assert len(texts(store)) > len(before) + 10


def test_a_base_is_asked_in_the_format_of_the_tuned_one(store, tuned, base):
    assert not base.has_own_format
    found = asked(store, tuned)
    told = drawing.draw(store, base, "base", found, 1, {"temperature": 0.0})
    assert told.drawn + told.empty == 5
    ids = drawing.in_format(base, tuned.format).prompt(found.prompts[0][1]).ids
    assert ids == tuned.prompt(found.prompts[0][1]).ids
    assert drawing.in_format(tuned, tuned.format) is tuned


def test_two_models_on_one_store_keep_their_names(store, tuned, base):
    found = asked(store, tuned)
    for name, writer in (("base", base), ("run:questions", tuned)):
        drawing.draw(store, writer, name, found, 2, HOT)
    assert {one.name for one in store.origins()} == {"base", "run:questions"}


def test_greedy_draws_are_all_the_same(store, tuned):
    with pytest.raises(UsageError, match="at temperature 0 every completion is the same"):
        drawing.draw(store, tuned, "m", asked(store, tuned), 2, {"temperature": 0.0})


def test_empty_completions_are_counted_and_not_kept(store, tuned, monkeypatch):
    real = Writer.write
    monkeypatch.setattr(Writer, "write", lambda *a, **k: [type(w)(" \n", w.stopped, w.ids) for w in real(*a, **k)])
    told = drawing.draw(store, tuned, "m", asked(store, tuned), 1, HOT)
    assert (told.drawn, told.empty, store.completions()) == (0, 5, [])


def test_prompts_that_are_too_long_are_counted(store, tuned):
    rows = [{"question": "what " * 60, "answer": "x"}, QUESTIONS[0]]
    told = drawing.draw(store, tuned, "m", asked(store, tuned, rows), 1, HOT)
    assert told.cut == 1


def test_what_people_wrote_stands_beside(store, tuned):
    found = asked(store, tuned)
    told = drawing.take(store, found)
    assert told.drawn == 5
    assert ("Q: what is tea?\nA: ", "a tea", "human") in texts(store)
    assert drawing.take(store, found).known == 5
    drawing.take(store, found, "question")
    assert len(store.origins()) == 5, "the same draw: the first completion of a person stays"


def test_a_column_of_the_persons_own(store):
    found = drawing.ask(store, Rows({"prompt": "Tea?", "gold": "Yes."}))
    drawing.take(store, found, "gold")
    assert {one.text for one in store.completions()} == {"Yes."}
    with pytest.raises(DataError, match="mine"):
        drawing.take(store, drawing.ask(store, Rows({"prompt": "Rain?"})), "mine")
    with pytest.raises(DataError, match="hold no completion of their own; name their column with human:COLUMN"):
        drawing.take(store, drawing.ask(store, Rows({"prompt": "Rain?"})))


def test_progress_is_told_and_settings_are_json(store, tuned, monkeypatch):
    monkeypatch.setattr(drawing, "BLOCK", 4)
    heard: list[tuple[int, int]] = []
    drawing.draw(store, tuned, "m", asked(store, tuned), 2, HOT, lambda done, total: heard.append((done, total)))
    assert heard == [(4, 10), (8, 10), (10, 10)]
    json.dumps([one.settings for one in store.origins()])
