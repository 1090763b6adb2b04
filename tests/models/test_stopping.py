"""Stop strings wherever tokens break, and a stream whose pieces are the text."""

from __future__ import annotations

import pytest

from tests.data import tiny_tokenizers
from tunewright.models.stopping import StopStrings, TextStream, cut_at_stop

TEXTS = ["the film was good, and then longer", "Ünïcödé 🙂 текст 文字 end", "line\nline\n\nend", "goo good", "é🙂🙂é"]
STYLES = [tiny_tokenizers.gpt2, tiny_tokenizers.llama, tiny_tokenizers.bert]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("make", STYLES)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_laid_end_to_end_are_the_text(make, text):
    tokenizer = make()
    ids = ids_of(tokenizer, text)
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids] + [stream.end()]
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_half_a_character_is_held_back():
    tokenizer = tiny_tokenizers.gpt2()
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids_of(tokenizer, "🙂🙂")]
    assert len(pieces) == 8
    assert [piece for piece in pieces if piece] == ["🙂", "🙂"]


def test_bytes_that_never_become_a_character_are_shown_at_last():
    tokenizer = tiny_tokenizers.gpt2()
    broken = ids_of(tokenizer, "🙂")[:2]
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, broken)) == ""
    assert stream.end() != ""


@pytest.mark.parametrize("make", STYLES)
@pytest.mark.parametrize("stop", ["then", "d, and", "er", "good, and then longer", "o"])
def test_a_stream_ends_before_a_stop_string(make, stop):
    tokenizer = make()
    ids = ids_of(tokenizer, TEXTS[0])
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    stream = TextStream(tokenizer, ("never", stop))
    shown = "".join([*map(stream.push, ids), stream.end()])
    assert shown == cut_at_stop(whole, ("never", stop))


def test_what_only_begins_like_a_stop_string_is_shown():
    tokenizer = tiny_tokenizers.gpt2()
    ids = ids_of(tokenizer, "good goo")
    stream = TextStream(tokenizer, ("goose",))
    assert "".join(map(stream.push, ids)) == "good "
    assert stream.end() == "goo"


@pytest.mark.parametrize("make", STYLES)
def test_reached_at_the_token_that_completes_it(make):
    tokenizer = make()
    ids = ids_of(tokenizer, TEXTS[0])
    for stop in ("then", "m wa", "r"):
        finder = StopStrings(tokenizer, (stop,))
        texts = [tokenizer.decode(ids[:n], clean_up_tokenization_spaces=False) for n in range(1, len(ids) + 1)]
        expected = next((n for n, text in enumerate(texts) if stop in text), None)
        assert next((n for n in range(len(ids)) if finder.reached(ids[: n + 1])), None) == expected


def test_only_the_last_tokens_are_decoded():
    class Counting:
        longest = 0

        def decode(self, ids, **_):
            self.longest = max(self.longest, len(ids))
            return "x" * len(ids)

    counting = Counting()
    assert not StopStrings(counting, ("end",)).reached(list(range(10_000)))
    assert counting.longest < 20


def test_a_stop_string_made_of_many_byte_tokens():
    tokenizer = tiny_tokenizers.gpt2()
    ids = ids_of(tokenizer, "good 🙂🙂🙂 film")
    finder = StopStrings(tokenizer, ("🙂🙂🙂",))
    first = next(n for n in range(1, len(ids) + 1) if finder.reached(ids[:n]))
    assert first == len(ids_of(tokenizer, "good 🙂🙂🙂"))


def test_special_tokens_can_be_stop_strings():
    tokenizer = tiny_tokenizers.gpt2()
    assert StopStrings(tokenizer, ("<|endoftext|>",)).reached([5, tokenizer.eos_token_id])


def test_cut_at_stop():
    assert cut_at_stop("one two three", ("three", "two")) == "one "
    assert cut_at_stop("one", ("two",)) == "one"
    assert cut_at_stop("one", ()) == "one"
