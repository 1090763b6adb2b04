"""Where words begin, in each of the three spellings."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.data import tiny_tokenizers
from tunewright.data.word_starts import word_starts

CASES = {
    "wordpiece": (tiny_tokenizers.bert(), "films", ["film", "##s"], [True, False]),
    "bytes": (tiny_tokenizers.roberta_with_prefix_space(), "fan, the", None, [True, False, True]),
    "sentencepiece": (tiny_tokenizers.llama(), "good go", None, [True, False, True, False]),
    "words": (tiny.tokenizer("bert"), "good film", ["good", "film"], [True, True]),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_first_token_of_a_word_begins_it(kind):
    tokenizer, text, pieces, expected = CASES[kind]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    assert pieces is None or names == pieces
    assert word_starts(tokenizer)[ids].tolist() == expected, names


def test_special_tokens_stand_for_themselves():
    tokenizer = tiny_tokenizers.roberta()
    assert word_starts(tokenizer)[tokenizer.all_special_ids].all()
