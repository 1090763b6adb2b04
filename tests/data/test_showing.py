"""Rows as tokens: what is kept is what training sees."""

from __future__ import annotations

import pytest

from tests.data.test_examining import write
from tests.data.tiny_tokenizers import TEXTS, bert, gpt2, llama, packaged, roberta
from tunewright.data.columns import Columns
from tunewright.data.encoding import Encoder
from tunewright.data.lenient import open_leniently
from tunewright.data.showing import pieces, shown_rows


@pytest.mark.parametrize("style", [bert, roberta, gpt2, llama, packaged])
@pytest.mark.parametrize("truncate", ["left", "right"])
@pytest.mark.parametrize("text", [text for text in TEXTS if "[SEP]" not in text])
def test_as_many_pieces_as_training_has(style, truncate, text):
    encoder = Encoder.of(style(), 8, truncate)
    full = encoder.encode([text])
    found = list(pieces(text, encoder))
    assert len(found) == full.full_lengths[0]
    inside = [piece for piece in found if piece.kind != "cut"]
    assert len(inside) == full.lengths[0]
    assert sum(piece.kind == "special" for piece in found) == len(encoder.prefix) + len(encoder.suffix)
    cut = [piece.kind == "cut" for piece in found]
    assert cut == sorted(cut, reverse=truncate == "left")


def test_pieces_are_words_of_the_text():
    found = list(pieces("the film wasgood zzz 文", Encoder.of(bert())))
    assert [(piece.text, piece.kind) for piece in found[:3]] == [
        ("[CLS]", "special"),
        ("the", "kept"),
        ("film", "kept"),
    ]
    assert found[-2].kind == "unknown"
    assert any(piece.glued for piece in found)


def test_bad_and_empty_rows_are_passed_over(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": t, "label": "x"} for t in ("", "the film", "was good", "a")])
    path.write_text("{broken\n" + path.read_text())
    rows = shown_rows(open_leniently(path), Columns("text", "label"), bert(), 2, 8, "left")
    assert [row.where for row in rows] == ["a.jsonl:3", "a.jsonl:4"]
    assert rows[0].to_json()["pieces"][0] == ["[CLS]", "special"]
