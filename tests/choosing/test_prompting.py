"""Examples in the prompt are what training would have read, and an answer ends where a training answer would have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import tiny, writing
from tunewright.choosing import prompting as p
from tunewright.data.conversations import conversation
from tunewright.data.examples import Row
from tunewright.data.objects import from_records
from tunewright.data.written import recognise
from tunewright.data.written_tokens import RowEncoder
from tunewright.models.sampling import Sampling


def _encoder(rows: list[dict[str, Any]], template: str | None = None) -> tuple[RowEncoder, list[Row]]:
    source = from_records(rows, "train")
    form = recognise(source, template=template)
    return RowEncoder.of(form, tiny.tokenizer("llama"), None, "left"), list(source.rows())


def _text(encoder: RowEncoder, ids: list[int]) -> str:
    return encoder.encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _asker(encoder: RowEncoder, rows: list[Row], longest: int = 60, model: Any = None) -> p.Asker:
    sampling = Sampling(max_new_tokens=4, eos_ids=encoder.encoder.ends)
    return p.Asker(model, encoder, rows, sampling, longest, p.end_of_answers(encoder, rows))


def test_examples_come_whole_before_the_row():
    encoder, rows = _encoder(writing.rows(6), writing.TEMPLATE)
    ids, count = _asker(encoder, rows)._ids(rows[5], rows[:2])
    text = _text(encoder, ids)
    assert count == 2
    assert text.count("<bos>") == 1 and text.startswith("<bos>")
    for row in rows[:2]:
        assert f"a story {row.values['verdict']}" in text
    assert text.rstrip().endswith("a story") and not text.rstrip().endswith(rows[5].values["verdict"])
    plain = encoder.prompt_ids(rows[5])
    assert ids[-(len(plain) - 1) :] == plain[1:], "what is asked has the ids that training saw"


def test_as_many_as_fit():
    encoder, rows = _encoder(writing.rows(8), writing.TEMPLATE)
    need = len(encoder.prompt_ids(rows[7]))
    room = need + len(encoder.prompt_ids(rows[0])) + len(encoder.prompt_ids(rows[1]))
    ids, count = _asker(encoder, rows, longest=room)._ids(rows[7], rows[:5])
    assert 0 < count < 5 and len(ids) <= room
    ids, count = _asker(encoder, rows, longest=need)._ids(rows[7], rows[:5])
    assert (count, ids) == (0, encoder.prompt_ids(rows[7]))


def test_answers_end_where_training_answers_would():
    encoder, rows = _encoder([{"prompt": "a", "completion": "good"}, {"prompt": "b", "completion": "bad fun"}])
    assert p.end_of_answers(encoder, rows) == "\n"
    encoder, rows = _encoder([{"prompt": "a", "completion": "good\nbad"}])
    assert p.end_of_answers(encoder, rows) == "\n\n"
    encoder, rows = _encoder([{"prompt": "a", "completion": "good\n\nbad"}])
    assert p.end_of_answers(encoder, rows) is None


def test_talks_go_on_from_the_examples():
    def talk(*turns: tuple[str, str]) -> Any:
        return conversation([{"role": role, "content": text} for role, text in turns], "x", needs_answer=False)

    shown = [
        talk(("system", "Be short."), ("user", "one?"), ("assistant", "1")),
        talk(("user", "two?"), ("assistant", "2")),
    ]
    found = p.talk_with_examples(talk(("system", "Be short."), ("user", "three?")), shown)
    assert [(m.role, m.content) for m in found.messages] == [
        ("system", "Be short."), ("user", "one?"), ("assistant", "1"), ("user", "two?"), ("assistant", "2"),
        ("user", "three?")]  # fmt: skip
    assert not any(m.is_learned for m in found.messages)


def test_talks_have_ids():
    rows = [{"messages": [{"role": "user", "content": "good film"}, {"role": "assistant", "content": "fun"}]},
            {"messages": [{"role": "user", "content": "bad plot"}, {"role": "assistant", "content": "dull"}]},
            {"messages": [{"role": "user", "content": "the scene"}, {"role": "assistant", "content": "great"}]},
    ]  # fmt: skip
    encoder, read = _encoder(rows)
    ids, count = _asker(encoder, read, longest=400)._ids(read[2], read[:2])
    text = _text(encoder, ids)
    assert count == 2
    assert text.index("fun") < text.index("dull") < text.index("scene")
    assert "great" not in text


@pytest.mark.parametrize("shots", [0, 2])
def test_asking(shots):
    import torch
    import transformers as hf

    torch.manual_seed(0)
    model = hf.LlamaForCausalLM.from_pretrained(str(writing.base())).eval()
    encoder, rows = _encoder(writing.rows(12), writing.TEMPLATE)
    found = _asker(encoder, rows[:8], model=model).ask(rows[8:], shots, 0, lambda words: None)
    assert len(found["answers"]) == len(found["ended"]) == 4 and found["shots"] == shots
    assert all("\n" not in answer for answer in found["answers"])
    lengths = [len(encoder.prompt_ids(row)) for row in rows[8:]]
    assert (found["costs"]["prompt_tokens"] > np.mean(lengths)) == (shots > 0)
