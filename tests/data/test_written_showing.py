"""Rows to be written, as tokens: what is shown is what training sees, with what it has lost in its place."""

from __future__ import annotations

import pytest

from tests.data.test_examining import write
from tests.data.tiny_tokenizers import TEXTS, bert, gpt2, llama, roberta
from tunewright.data.lenient import open_leniently
from tunewright.data.segments import Segment, Tokens
from tunewright.data.written import recognise
from tunewright.data.written_showing import kept_of, shown_written, written_pieces
from tunewright.data.written_tokens import RowEncoder

ROWS = [{"question": "was the film good", "answer": "it was not"}]
LONG = [{"context": "the film " * 30, "question": "was the film good", "answer": "it was long " * 4}]


def encoder_of(path, tokenizer, max_length=None, truncate="left", **asked) -> RowEncoder:
    return RowEncoder.of(recognise(open_leniently(path), **asked), tokenizer, max_length, truncate)


@pytest.mark.parametrize("style", [bert, roberta, gpt2, llama])
@pytest.mark.parametrize("truncate", ["left", "right"])
@pytest.mark.parametrize("max_length", [None, 200, 60, 30, 12])
def test_what_is_shown_is_what_training_sees(style, truncate, max_length, tmp_path):
    path = write(tmp_path / "a.jsonl", [{**LONG[0], "context": text * 3, "question": text} for text in TEXTS])
    encoder = encoder_of(path, style(), max_length, truncate)
    source = open_leniently(path)
    shown = shown_written(source, encoder, 99)
    assert len(shown) == len(TEXTS)
    for row, read in zip(shown, source.rows(), strict=True):
        tokens = encoder.encoder.encode(encoder.segments(read))
        inside = [piece for piece in row.pieces if piece.kind != "cut"]
        assert [piece.learnt for piece in inside] == tokens.is_target
        assert row.num("cut") == tokens.context_cut + tokens.target_cut
        assert not any(piece.learnt for piece in row.pieces if piece.kind == "cut")


def test_context_target_and_special_are_told_apart(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    (row,) = shown_written(open_leniently(path), encoder_of(path, gpt2(), template="Q: {question}\n\nA: {answer}"), 1)
    text = "".join(("" if piece.glued else " ") + piece.text for piece in row.pieces)
    assert text == " Q: was the film good↵↵A: it was not <|endoftext|>"
    learnt = "".join(("" if piece.glued else " ") + piece.text for piece in row.pieces if piece.learnt)
    assert learnt == " it was not <|endoftext|>"
    assert [piece.kind for piece in row.pieces if piece.text == "<|endoftext|>"] == ["special"]
    assert row.writes and row.to_json()["pieces"][-1] == ["<|endoftext|>", "special", True]


def test_a_name_of_a_control_token_in_a_value_is_shown_as_text(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "a <|endoftext|> b", "answer": "c"}])
    (row,) = shown_written(open_leniently(path), encoder_of(path, gpt2()), 1)
    assert sum(piece.kind == "special" for piece in row.pieces) == 1  # the one at the end


def test_unknown_tokens_and_parts_of_characters(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "the 文 film", "answer": "was 🙂 good"}])
    (row,) = shown_written(open_leniently(path), encoder_of(path, bert()), 1)
    assert any(piece.kind == "unknown" for piece in row.pieces)
    (row,) = shown_written(open_leniently(path), encoder_of(path, gpt2()), 1)
    assert "文" in "".join(piece.text for piece in row.pieces)
    assert "🙂" in "".join(piece.text for piece in row.pieces if piece.learnt)


def test_rows_that_cant_be_used_are_passed_over(tmp_path):
    rows = [{"question": "was the film good", "answer": ""}, *ROWS]
    path = write(tmp_path / "a.jsonl", rows)
    path.write_text("{broken\n" + path.read_text())
    encoder = encoder_of(path, gpt2(), template="{question} {answer}")
    assert [row.where for row in shown_written(open_leniently(path), encoder, 3)] == ["a.jsonl:3"]


def test_a_conversation_that_loses_turns(tmp_path):
    said = ["the film", "was good", "not a fan", "it was long", "end", "did not"]
    talk = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    path = write(tmp_path / "a.jsonl", [{"messages": talk}])
    for max_length in (None, 150, 110, 80):
        encoder = encoder_of(path, gpt2(), max_length)
        (row,) = shown_written(open_leniently(path), encoder, 1)
        tokens = encoder.encoder.encode(encoder.segments(next(iter(open_leniently(path).rows()))))
        assert [piece.learnt for piece in row.pieces if piece.kind != "cut"] == tokens.is_target


@pytest.mark.parametrize(
    ("whole", "kept", "stays"),
    [
        ([1, 2, 3], [1, 2, 3], "xxx"),
        ([1, 2, 3, 4], [1, 4], "x--x"),
        ([1, 2, 3, 4], [1, 2], "xx--"),
        ([1, 2, 3, 4], [3, 4], "--xx"),
        ([1, 2, 3, 4, 5, 6], [1, 3, 5, 6], "x-x-xx"),
        ([7, 7, 7, 7], [7, 7], "xx--"),
        ([1, 2, 1, 2, 3], [1, 2, 3], "xx--x"),
    ],
)
def test_what_is_left_of_a_row(whole, kept, stays):
    found = kept_of(Tokens(whole, [True] * len(whole)), Tokens(kept, [True] * len(kept)))
    assert "".join("-x"[int(each)] for each in found) == stays


def test_an_empty_row_has_no_pieces_but_what_is_learnt(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    encoder = encoder_of(path, gpt2())
    pieces = list(written_pieces((Segment("good", is_target=True),), encoder))
    assert all(piece.learnt for piece in pieces)
