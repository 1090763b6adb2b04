"""Comparisons as ids: texts end to end with their pairs, the same ids when learning and when scoring."""

from __future__ import annotations

import numpy as np
import pytest

from tests.data import tiny_tokenizers
from tests.data.test_comparisons import TALKS, TEA, assistant, user
from tests.data.test_written import Rows
from tunewright.data import comparison_tokens
from tunewright.data.comparison_tokens import tokenize_comparisons
from tunewright.data.comparisons import Comparisons
from tunewright.data.scored_rows import ScoredRows, WrittenRows
from tunewright.data.templates import CHATML
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import DataError

ROWS = [
    {"prompt": "is the film good? ", "completions": ["yes it was", "no", "it did end"], "ranking": [[1], [0], [2]]},
    {"prompt": "tea? ", "completions": ["a good film", "not at all"], "ranking": [[0, 1]]},
    {"prompt": "long? ", "completions": ["it was long and then longer", "no it did end"], "ranking": [[1], [0]]},
]
KINDS = {name: getattr(tiny_tokenizers, name) for name in ("gpt2", "llama", "bert", "roberta")}


def made(tmp_path, kind="gpt2", rows=ROWS, max_length=None, **asked):
    tokenizer = KINDS[kind]()
    comparisons = Comparisons.of(Rows(*rows), **asked)
    encoder = ScoredRows.of(comparisons.format, tokenizer, max_length)
    return tokenize_comparisons(comparisons, encoder, tmp_path), encoder, tokenizer


def text(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_texts_lie_end_to_end_with_their_pairs(tmp_path):
    dataset, _, tokenizer = made(tmp_path)
    assert len(dataset) == 3 and dataset.num_comparisons == 5
    assert dataset.num_texts.tolist() == [3, 2, 2]
    assert {tuple(pair) for pair in dataset.pairs(0)} == {(1, 0), (1, 2), (0, 2)}
    assert dataset.weights(1).tolist() == [0.5] and dataset.pairs(2).tolist() == [[1, 0]]
    parts = np.split(dataset.tokens(0), np.cumsum(dataset.text_lengths(0))[:-1])
    assert [text(tokenizer, part) for part in parts] == [
        f"is the film good? {said}<|endoftext|>" for said in ROWS[0]["completions"]
    ]
    marks = np.split(dataset.is_target(0), np.cumsum(dataset.text_lengths(0))[:-1])
    assert [text(tokenizer, part[mark]) for part, mark in zip(parts, marks, strict=True)] == [
        f" {said}<|endoftext|>" for said in ROWS[0]["completions"]
    ]
    assert (dataset.annotators(0) == -1).all() and (dataset.margins(0) == 0).all()


@pytest.mark.parametrize("chosen", [[2, 0], [1], np.array([True, False, True])])
def test_a_subset_keeps_whole_prompts(chosen, tmp_path):
    dataset, *_ = made(tmp_path)
    part = dataset.subset(chosen)
    for i, original in enumerate(np.arange(3)[chosen]):
        for what in ("tokens", "text_lengths", "pairs", "weights", "is_target", "margins", "annotators"):
            assert np.array_equal(getattr(part, what)(i), getattr(dataset, what)(int(original))), what
    texts = part.each_text()
    assert len(texts) == part.num_texts.sum() and texts.num_tokens == part.num_tokens
    flat = np.concatenate([texts.tokens(i) for i in range(len(texts))])
    assert np.array_equal(flat, np.concatenate([part.tokens(i) for i in range(len(part))]))
    assert part.fingerprint != dataset.fingerprint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [None, 12])
def test_the_same_ids_when_scoring(kind, max_length, tmp_path):
    dataset, encoder, _ = made(tmp_path, kind, max_length=max_length)
    texts = dataset.each_text()
    rows = [encoder.row(row["prompt"], said) for row in ROWS for said in row["completions"]]
    for i, tokens in enumerate(encoder.encode(rows)):
        assert tokens.ids == texts.tokens(i).tolist()
    if max_length:
        assert texts.lengths.max() <= max_length and texts.truncated_rows > 0


def test_an_encoder_reads_a_pair_as_its_tokenizer_writes_one(tmp_path):
    _, encoder, tokenizer = made(tmp_path, "bert")
    (tokens,) = encoder.encode([encoder.row("the film was good", "not at all")])
    assert tokens.ids == tokenizer("the film was good", "not at all")["input_ids"]
    assert text(tokenizer, np.array(tokens.ids)[tokens.is_target]) == "not at all [SEP]"


def test_a_completion_of_nothing_can_be_scored(tmp_path):
    for kind in KINDS:
        _, encoder, tokenizer = made(tmp_path, kind)
        blank, full = encoder.encode([encoder.row("tea?", " "), encoder.row("tea?", "no")])
        assert blank.ids[-1] == full.ids[-1] == encoder.rows.encoder.eos and len(blank.ids) < len(full.ids)
        size = len(blank.ids) - 1
        assert blank.ids[:size] == full.ids[:size], text(tokenizer, blank.ids)


def test_conversations_go_through_the_chat_template_where_there_is_one(tmp_path):
    comparisons = Comparisons.of(Rows(TALKS["messages"]))
    tokenizer = tiny_tokenizers.gpt2()
    plain = ScoredRows.of(comparisons.format, tokenizer)
    assert plain.plain_talk and "read as plain text" in plain.said[-1]
    dataset = tokenize_comparisons(comparisons, plain, tmp_path)
    both = text(tokenizer, dataset.tokens(0))
    assert both == "User: Tea?\n\nAssistant: Yes<|endoftext|>User: Tea?\n\nAssistant: No<|endoftext|>"
    tokenizer.chat_template = CHATML
    chat = ScoredRows.of(comparisons.format, tokenizer)
    assert not chat.plain_talk and not any("plain text" in sentence for sentence in chat.said)
    (tokens,) = chat.encode([chat.row([user("Tea?")], "Yes")])
    expected = "<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|><|endoftext|>"
    assert text(tokenizer, tokens.ids) == expected
    assert [t.ids for t in chat.encode([chat.row("Tea?", [assistant("Yes")])])] == [tokens.ids]
    (blank,) = chat.encode([chat.row("Tea?", "")])
    assert text(tokenizer, blank.ids).startswith("<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant")


def test_writers_learn_the_same_text_as_when_they_learn_to_write(tmp_path):
    comparisons, tokenizer = Comparisons.of(Rows(TEA)), tiny_tokenizers.gpt2()
    encoder = RowEncoder.of(comparisons.format, tokenizer)
    dataset = tokenize_comparisons(comparisons, WrittenRows(encoder), tmp_path)
    (group,) = comparisons.groups()
    for i, row in enumerate(group.rows):
        assert dataset.each_text().tokens(i).tolist() == encoder.encoder.encode(encoder.segments(row)).ids


def test_made_once_and_again_when_anything_that_decides_it_changes(tmp_path, monkeypatch):
    made(tmp_path)
    monkeypatch.setattr(comparison_tokens, "_parts", None)
    made(tmp_path)
    for other in ({"max_length": 9}, {"kind": "bert"}, {"rows": ROWS[:2]}, {"template": "{prompt}: {completion}"}):
        with pytest.raises(TypeError):
            made(tmp_path, **other)


def test_chunks_count_on(tmp_path, monkeypatch):
    whole, *_ = made(tmp_path / "whole")
    monkeypatch.setattr("tunewright.data.encoding.CHUNK_TEXTS", 1)
    parts, *_ = made(tmp_path / "parts")
    for i in range(3):
        for what in ("tokens", "text_lengths", "pairs", "weights"):
            assert np.array_equal(getattr(parts, what)(i), getattr(whole, what)(i))


def test_one_prompt_shortened_for_planning(tmp_path):
    dataset, *_ = made(tmp_path)
    half = dataset.shortened(2, 0.5)
    assert len(half) == 1 and np.array_equal(half.pairs(0), dataset.pairs(2))
    assert half.text_lengths(0).sum() == half.lengths[0] < dataset.lengths[2]
    assert dataset.shortened(2, 1.0).tokens(0).tolist() == dataset.tokens(2).tolist()


def test_rows_are_named_in_errors(tmp_path):
    rows = [TALKS["messages"], {"prompt": [user("a"), user("b")], "chosen": "x", "rejected": "y"}]
    with pytest.raises(DataError, match=r"rows.jsonl:2.*message 2 is from the user"):
        made(tmp_path, rows=rows)
