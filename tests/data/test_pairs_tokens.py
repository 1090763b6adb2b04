"""Pairs: source and targets as transformers would give them apart, prompts equal in both uses, cuts counted."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.data import tiny_tokenizers
from tests.data.test_written import Rows
from tunewright.data.examples import Row
from tunewright.data.pairs_tokens import pair_rows
from tunewright.data.segments import Segment
from tunewright.data.written import recognise
from tunewright.data.written_tokens import tokenize_written
from tunewright.errors import DataError, RecipeError

ROWS = [
    {"document": "the film was good and then it was not", "summary": "not good"},
    {"document": "a", "summary": "the film was long"},
    {"document": "not a fan of it </s> at all", "summary": "fan"},
]
TEMPLATE = "summary of {document}: {summary}"


def t5():
    """Like T5's: nothing before a text, </s> behind it."""
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        *dict.fromkeys([*tiny_tokenizers.WORDS, "summary", "of", ":", "<", "/", "s", ">"]),
    ]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


KINDS = {"t5": t5, "bart": tiny_tokenizers.roberta}


def made(kind, rows=ROWS, max_length=None, **asked):
    source = Rows(*rows)
    return source, pair_rows(recognise(source, **({"template": TEMPLATE} | asked)), KINDS[kind](), max_length)


def halves(dataset, index):
    counts, tokens = dataset.is_target(index), dataset.tokens(index)
    return tokens[~counts].tolist(), tokens[counts].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_source_and_targets_are_those_of_the_tokenizer(kind, tmp_path):
    source, encoder = made(kind, ROWS[:2])
    dataset, tokenizer = tokenize_written(source, encoder, tmp_path), KINDS[kind]()
    for i, row in enumerate(ROWS[:2]):
        read, written = halves(dataset, i)
        assert read == tokenizer(f"summary of {row['document']}:")["input_ids"]
        assert written == tokenizer(text_target=row["summary"])["input_ids"]
        assert written[-1] == tokenizer.eos_token_id
    assert dataset.truncated_rows == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [None, 9, 12])
def test_a_prompt_has_the_same_ids_in_training_and_when_answering(kind, max_length, tmp_path):
    source, encoder = made(kind, max_length=max_length)
    dataset = tokenize_written(source, encoder, tmp_path)
    for i, row in enumerate(ROWS):
        asked = encoder.prompt_ids(Row({"document": row["document"]}, "", i), room=5)
        assert asked == halves(dataset, i)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_control_token_in_the_data_is_text(kind, tmp_path):
    source, encoder = made(kind)
    read, _ = halves(tokenize_written(source, encoder, tmp_path), 2)
    assert read.count(KINDS[kind]().eos_token_id) == 1


def test_each_side_is_cut_to_max_length_and_the_cut_is_counted(tmp_path):
    source, encoder = made("t5", max_length=4)
    (_, whole), cut = made("t5"), tokenize_written(source, encoder, tmp_path)
    everything = tokenize_written(source, whole, tmp_path)
    for i in range(len(cut)):
        read, written = halves(cut, i)
        assert len(read) <= 4 and len(written) <= 4 and read[-1] == 1  # the end that the encoder expects stays
    assert cut.truncated_tokens == everything.num_tokens - cut.num_tokens > 0
    # The second row's answer doesn't fit: its end is lost, and no end is learnt that it doesn't have.
    assert halves(cut, 1)[1] == halves(everything, 1)[1][:4]


def test_of_several_answers_the_last_is_written():
    _, encoder = made("t5")
    turns = (Segment("the film", False), Segment("was good", True), Segment("not a", False), Segment(" fan", True))
    tokens = encoder.encoder.encode(turns)
    words = ["the", "film", "was", "good", "not", "a", "</s>", "fan", "</s>"]
    assert tokens.ids == KINDS["t5"]().convert_tokens_to_ids(words)
    assert np.array(tokens.is_target).nonzero()[0].tolist() == [7, 8]


def test_nothing_to_write_is_refused_with_its_row(tmp_path):
    source, encoder = made("t5", [*ROWS[:1], {"document": "a fan", "summary": ""}])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: "):
        tokenize_written(source, encoder, tmp_path)


def test_a_prompt_cant_be_learnt():
    with pytest.raises(RecipeError, match="only reads the prompt"):
        made("t5", learn="all")


def test_what_decides_the_ids_is_in_the_fingerprint():
    prints = [str(made(kind, max_length=size)[1].fingerprint()) for kind in KINDS for size in (None, 9)]
    assert len(set(prints)) == 4


def test_spaces_between_the_two_belong_to_neither():
    _, encoder = made("bart")
    tokens = encoder.encoder.encode((Segment("the film: ", False), Segment(" fan", True)))
    tokenizer = KINDS["bart"]()
    assert tokens.ids == tokenizer("the film:")["input_ids"] + tokenizer("fan")["input_ids"]
