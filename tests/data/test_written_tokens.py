"""Rows become ids and masks: prompts equal in training and answering, nothing lost unseen, made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.data import tiny_tokenizers
from tests.data.test_written import Rows
from tunewright.data import written_tokens
from tunewright.data.examples import Row
from tunewright.data.written import recognise
from tunewright.data.written_tokens import RowEncoder, tokenize_written
from tunewright.errors import DataError

ROWS = [{"question": f"what is {word}?", "answer": f"a {word}"} for word in ("tea", "rain", "a long road", "salt")]
TALKS = [{"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Yo"}]} for n in "ab"]
TEMPLATE = "Q: {question}\nA: {answer}"
KINDS = {name: getattr(tiny_tokenizers, name) for name in ("gpt2", "llama")}


def made(kind="gpt2", rows=ROWS, max_length=None, **asked):
    source = Rows(*rows)
    return source, RowEncoder.of(recognise(source, **asked), KINDS[kind](), max_length)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [None, 14])
@pytest.mark.parametrize("rows, asked", [(ROWS, {"template": TEMPLATE}), (TALKS, {})], ids=["template", "talk"])
def test_a_prompt_has_the_same_ids_in_training_and_when_answering(kind, max_length, rows, asked, tmp_path):
    source, encoder = made(kind, rows, max_length if rows is ROWS else None, **asked)
    dataset = tokenize_written(source, encoder, tmp_path)
    for i, row in enumerate(source.rows()):
        tokens, counts = dataset.tokens(i).tolist(), dataset.is_target(i)
        first = int(np.argmax(counts))
        room = len(tokens) - first
        asked_ids = encoder.prompt_ids(replace_answer(row), room=room if max_length else 0)
        assert counts[first:].all() and not counts[:first].any()
        assert asked_ids == tokens[:first]


def replace_answer(row: Row) -> Row:
    """As when answering: what should be written isn't there."""
    if "answer" in row.values:
        return replace(row, values={"question": row.values["question"]})
    return replace(row, values={"messages": row.values["messages"][:1]})


def test_what_was_cut_is_counted_and_no_answer_is_eaten(tmp_path):
    source, whole = made(template=TEMPLATE)
    _, short = made(template=TEMPLATE, max_length=14)
    all_of_it, cut = (tokenize_written(source, encoder, tmp_path) for encoder in (whole, short))
    assert cut.lengths.max() == 14 and cut.truncated_rows > 0
    assert all_of_it.num_tokens - cut.num_tokens == cut.truncated_tokens > 0 == all_of_it.truncated_tokens
    assert cut.num_targets == all_of_it.num_targets


def test_made_once_and_again_when_anything_that_decides_it_changes(tmp_path, monkeypatch):
    source, encoder = made(template=TEMPLATE)
    first = tokenize_written(source, encoder, tmp_path)
    folders = {path.name for path in tmp_path.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(written_tokens, "_parts", lambda *_: pytest.fail("made again"))
        again = tokenize_written(source, encoder, tmp_path)
    assert np.array_equal(first.targets, again.targets) and first.fingerprint == again.fingerprint
    others = [
        made(template="A: {answer}")[1],
        made(template=TEMPLATE, learn="all")[1],
        made("llama", template=TEMPLATE)[1],
    ]
    for other in others:
        tokenize_written(source, other, tmp_path)
    assert len({path.name for path in tmp_path.iterdir()} - folders) == 3


def test_a_subset_keeps_its_masks(tmp_path):
    source, encoder = made(template=TEMPLATE)
    dataset = tokenize_written(source, encoder, tmp_path)
    part = dataset.subset([2, 0])
    assert part.tokens(0).tolist() == dataset.tokens(2).tolist()
    assert part.is_target(1).tolist() == dataset.is_target(0).tolist()
    assert part.num_targets == sum(int(dataset.is_target(i)[1:].sum()) for i in (0, 2))


def test_a_row_without_an_answer_is_named(tmp_path):
    source, encoder = made(rows=[*ROWS, {"question": "what?", "answer": ""}], template=TEMPLATE)
    with pytest.raises(DataError, match=r"rows\.jsonl:5"):
        tokenize_written(source, encoder, tmp_path)


def test_answers_as_text_end_where_the_template_ends():
    rows = [{"prompt": row["question"], "reply": row["answer"]} for row in ROWS]
    _, encoder = made(rows=rows, template="chatml")
    ids = encoder.encoder.tokenizer(" a tea <|im_end|>\n and more")["input_ids"]
    assert encoder.stop == ("<|im_end|>",) and encoder.text(ids) == "a tea"
    _, plain = made(rows=[{"text": "a tea"}])
    assert plain.stop == () and plain.text(ids) == " a tea <|im_end|>\n and more"
    assert made(template=TEMPLATE)[1].stop == ()


@pytest.mark.parametrize(
    ("max_length", "context", "new", "room"),
    [(None, 96, 10, 0), (48, None, 10, 0), (48, 96, 10, 0), (90, 96, 10, 4), (96, 96, 10, 10), (96, 96, 90, 24)],
)
def test_room_is_kept_only_where_positions_end(max_length, context, new, room):
    assert made(template=TEMPLATE, max_length=max_length)[1].room_for(new, context) == room
