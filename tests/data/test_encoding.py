"""Encoders: what a tokenizer puts around a text, and texts it can't take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.data.tiny_tokenizers import STYLES, bert, packaged
from tunewright.data.encoding import Encoder, encode_texts
from tunewright.errors import DataError, ModelError


def test_special_tokens_of_each_style() -> None:
    found = {style.__name__: (Encoder.of(style()).prefix, Encoder.of(style()).suffix) for style in STYLES}
    assert found["bert"] == ((2,), (3,))
    assert found["roberta"] == ((0,), (2,))
    assert found["gpt2"] == ((), ())
    assert found["llama"] == ((1,), ())
    assert found["two_on_each_side"] == ((2, 3), (3, 2))
    assert found["t5_bytes"] == ((), (1,))


def test_the_tokenizers_last_call_decides_nothing() -> None:
    words = packaged()
    encoder = Encoder.of(words, 8, "left")
    before = encoder.fingerprint()
    words(["the film was good"], truncation=True, max_length=5, padding="max_length")
    assert encoder.fingerprint() == before
    assert encoder.encode(["the film was good not a fan"]).full_lengths.tolist() == [9]


def test_texts_that_are_none() -> None:
    with pytest.raises(DataError, match=r"text 2: found NoneType None; expected a text"):
        encode_texts(["a", None], bert(), 8, "left")  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"text 1: .*half of a character"):
        encode_texts(["\ud83d"], bert(), 8, "left")
    assert encode_texts([], bert(), 8, "left") == []


def test_an_unsteady_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def ids(tokenizer: Any, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        return [[len(text)] * (2 if special else 1) + ([7] if special else []) for text in texts]

    monkeypatch.setattr("tunewright.data.encoding._ids", ids)
    with pytest.raises(ModelError, match="doesn't put the same special tokens around every text"):
        Encoder.of(object())
