"""Token arrays: the ids of transformers itself, made once, in little memory."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.data.tiny_tokenizers import (
    STYLES,
    TEXTS,
    ListSource,
    bert,
    packaged,
    roberta,
    roberta_with_prefix_space,
)
from tunewright.data.columns import Columns
from tunewright.data.encoding import Encoder, encode_texts
from tunewright.data.examples import Row
from tunewright.data.labels import LabelSpec
from tunewright.data.tokenizing import TokenizedDataset, token_lengths, tokenize
from tunewright.errors import DataError, RecipeError

COLUMNS = Columns("text", "label")
TWO = LabelSpec("single", ("bad", "good"), ("bad", "good"))


def dataset(tmp_path: Path, source: Any = None, *, tokenizer: Any = None, **settings: Any) -> TokenizedDataset:
    settings = {"max_length": 8, "truncate": "left", "labels": TWO, "columns": COLUMNS, **settings}
    columns, labels = settings.pop("columns"), settings.pop("labels")
    return tokenize(source or ListSource(TEXTS), columns, labels, tokenizer or bert(), cache=tmp_path, **settings)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("max_length", [5, 6, 9, 500])
def test_ids_are_those_of_transformers(style: Callable[[], Any], side: Any, max_length: int, tmp_path: Path) -> None:
    ours, theirs = style(), style()
    theirs.truncation_side = side
    built = dataset(tmp_path, tokenizer=ours, max_length=max_length, truncate=side)
    for index, text in enumerate(TEXTS):
        expected = theirs(text, truncation=True, max_length=max_length)["input_ids"]
        assert built.tokens(index).tolist() == expected
        assert built.lengths[index] == len(expected)
        assert built.full_lengths[index] == len(theirs(text, truncation=False)["input_ids"])
    assert encode_texts(TEXTS, ours, max_length, side) == [built.tokens(i).tolist() for i in range(len(TEXTS))]


def test_what_was_cut_is_counted(tmp_path: Path) -> None:
    texts = ["film", "the film was good", "the film was good not a fan"]
    built = dataset(tmp_path, ListSource(texts), tokenizer=packaged(), max_length=6)
    assert built.full_lengths.tolist() == [3, 6, 9]
    assert built.lengths.tolist() == [3, 6, 6]
    assert (built.truncated_rows, built.truncated_tokens, built.num_tokens) == (1, 3, 15)


def test_labels_and_rows(tmp_path: Path) -> None:
    source = ListSource(["a", "", "b", "c"], ["good", "bad", "bad", "good"])
    built = dataset(tmp_path, source)
    assert built.labels.tolist() == [1, 0, 1] and built.labels.dtype == np.int64
    assert built.rows.tolist() == [0, 2, 3]
    numbers = dataset(tmp_path, ListSource(["a", "b"], ["0.5", 2]), labels=LabelSpec("number"))
    assert numbers.labels.tolist() == [0.5, 2.0] and numbers.labels.dtype == np.float32
    several = LabelSpec("multi", ("x", "y", "z"), ("x", "y", "z"))
    hot = dataset(tmp_path, ListSource(["a", "b"], [["z", "x"], []]), labels=several)
    assert hot.labels.tolist() == [[1, 0, 1], [0, 0, 0]] and hot.labels.dtype == np.float32
    assert dataset(tmp_path, labels=None).labels.shape == (len(TEXTS), 0)
    assert dataset(tmp_path, columns=Columns("text", None)).labels.shape == (len(TEXTS), 0)


def test_subsets_are_views(tmp_path: Path) -> None:
    whole = dataset(tmp_path)
    part = whole.subset(np.array([4, 1]))
    assert [part.tokens(i).tolist() for i in range(2)] == [whole.tokens(4).tolist(), whole.tokens(1).tolist()]
    assert part.input_ids is whole.input_ids
    assert part.rows.tolist() == [4, 1]
    assert part.num_tokens == int(whole.lengths[[4, 1]].sum())
    assert len({whole.fingerprint, part.fingerprint, whole.subset(np.array([1, 4])).fingerprint}) == 3
    assert part.fingerprint == whole.subset([4, 1]).fingerprint
    assert part.subset(np.array([False, True])).rows.tolist() == [1]
    with pytest.raises(ValueError, match="read-only"):
        whole.tokens(0)[0] = 1


def folders(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.iterdir())


def test_a_second_start_reads_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset(tmp_path)
    monkeypatch.setattr(ListSource, "rows", lambda self: pytest.fail("read again"))
    second = dataset(tmp_path)
    assert second.fingerprint == first.fingerprint
    assert (second.input_ids == first.input_ids).all()
    assert isinstance(second.input_ids.base, np.memmap)
    assert len(folders(tmp_path)) == 1


def test_whatever_decides_the_ids_makes_another_folder(tmp_path: Path) -> None:
    words = bert()
    dataset(tmp_path, tokenizer=words)
    words(["a long text " * 9], truncation=True, max_length=5, padding="max_length")  # leaves settings behind
    dataset(tmp_path, tokenizer=words)
    assert len(folders(tmp_path)) == 1
    dataset(tmp_path, tokenizer=words, max_length=9)
    dataset(tmp_path, tokenizer=words, truncate="right")
    dataset(tmp_path, tokenizer=words, labels=LabelSpec("single", ("good", "bad"), ("good", "bad")))
    dataset(tmp_path, tokenizer=words, labels=None)
    dataset(tmp_path, tokenizer=words, columns=Columns("label", "label"))
    dataset(tmp_path, ListSource(TEXTS[:3]), tokenizer=words)
    dataset(tmp_path, tokenizer=roberta())
    dataset(tmp_path, tokenizer=roberta_with_prefix_space())
    words.add_tokens(["recommed"])
    dataset(tmp_path, tokenizer=words)
    assert len(folders(tmp_path)) == 10


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(ListSource):
        def __init__(self, count: int):
            self.count = count

        def rows(self) -> Iterator[Row]:
            for number in range(self.count):
                text = f"the film was good {number} and then long"
                yield Row({"text": text, "label": "good"}, f"x:{number + 1}", number)

        def fingerprint(self) -> str:
            return str(self.count)

    def peak(count: int) -> int:
        tracemalloc.start()
        built = dataset(tmp_path, Stream(count), tokenizer=words, max_length=64)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(built) == count
        assert (built.starts == np.cumsum(built.lengths) - built.lengths).all()
        return most

    words = packaged()
    monkeypatch.setattr("tunewright.data.encoding.CHUNK_TEXTS", 500)
    peak(500)
    few, many = peak(1_000), peak(20_000)
    assert many < few * 1.2
    assert isinstance(dataset(tmp_path, Stream(20_000), tokenizer=words, max_length=64).starts.base, np.memmap)


def test_long_texts_come_in_small_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = Encoder.encode
    monkeypatch.setattr("tunewright.data.encoding.CHUNK_CHARACTERS", 100)
    monkeypatch.setattr(Encoder, "encode", lambda self, texts: sizes.append(len(texts)) or encode(self, texts))
    dataset(tmp_path, ListSource(["good " * 30, "good " * 30, "a", "b"]))
    assert sizes == [1, 1, 2]


def test_token_lengths_of_the_first_texts() -> None:
    source = ListSource(["film", "", "the film was good not a fan", "good"])
    assert token_lengths(source, COLUMNS, packaged()).tolist() == [3, 9, 3]
    assert token_lengths(source, COLUMNS, packaged(), limit=2).tolist() == [3, 9]
    assert token_lengths(ListSource([]), COLUMNS, packaged()).tolist() == []


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"max_length is 2, and this tokenizer adds 2 special tokens.*at least 3"):
        dataset(tmp_path, max_length=2)
    with pytest.raises(DataError, match=r"reviews.jsonl: no row has a text"):
        dataset(tmp_path, ListSource(["", " "]))


def test_a_text_without_tokens(tmp_path: Path) -> None:
    """Possible where a tokenizer has no unknown word and puts nothing around a text."""
    inner = Tokenizer(models.BPE({"t": 0, "e": 1, "a": 2, "b": 3, "</s>": 4}, []))
    words = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    with pytest.raises(DataError, match=r'reviews.jsonl:2: "text" gives no token at all'):
        dataset(tmp_path, ListSource(["tea", "文"]), tokenizer=words)
    assert encode_texts(["tea", "文", ""], words, 8, "left") == [[0, 1, 2], [4], [4]]


def test_no_warning_about_long_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        dataset(tmp_path, tokenizer=packaged())
        encode_texts(TEXTS, packaged(), 8, "left")
        assert not caplog.records
        packaged()(TEXTS[-1])
        assert "longer than the specified maximum" in caplog.text  # what would be said otherwise
    finally:
        logger.setLevel(level)
        logger.removeHandler(caplog.handler)
