"""From opened splits to two tokenised datasets: which rows train, which judge, and what is said about them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests import tiny
from tunewright.data.preparing import HELD_OUT, read, tokenized
from tunewright.data.sources import open_data
from tunewright.errors import DataError
from tunewright.recipe import DataRecipe

ROWS = tiny.sentences(60)


def prepared(data=None, held_out=None, seed=1, **fields):
    recipe = DataRecipe(train="a", **fields)
    return read(open_data(ROWS if data is None else data, validation=held_out), recipe, seed), recipe


def texts(rows, indices):
    return [rows[i]["text"] for i in indices]


@pytest.mark.parametrize("fraction", ["auto", 0.1, 0.25])
def test_held_out_rows_are_a_stratified_share(fraction):
    found, _ = prepared(validation=fraction)
    share = HELD_OUT if fraction == "auto" else fraction
    assert abs(len(found.validation_rows) - 60 * share) <= 1
    assert sorted([*found.train_rows, *found.validation_rows]) == list(range(60))
    labels = [ROWS[i]["label"] for i in found.validation_rows]
    assert abs(labels.count("positive") - labels.count("negative")) <= 1
    assert found.validation_source is found.splits.train


def test_the_seed_decides_and_nothing_else():
    one, again, other = (prepared(seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one.validation_rows, again.validation_rows)
    assert not np.array_equal(one.validation_rows, other.validation_rows)
    backwards = prepared(ROWS[::-1])[0]
    assert set(texts(ROWS, one.validation_rows)) == set(texts(ROWS[::-1], backwards.validation_rows))


def test_equal_texts_stay_on_one_side_and_can_be_dropped():
    rows = [*ROWS, *ROWS[:20]]
    kept, _ = prepared(rows, validation=0.3)
    assert not set(texts(rows, kept.train_rows)) & set(texts(rows, kept.validation_rows))
    dropped, _ = prepared(rows, duplicates="drop", validation=0.3)
    left = texts(rows, dropped.train_rows)
    assert len(left) == len(set(left)) == len(set(texts(rows, kept.train_rows)))
    assert np.array_equal(dropped.validation_rows, kept.validation_rows)


def folder(tmp_path):
    for name, rows in (("train", ROWS), ("valid", tiny.sentences(10, seed=9))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_folders_own_validation_is_used_unless_a_fraction_is_asked_for(tmp_path):
    own, _ = prepared(str(folder(tmp_path)))
    assert (len(own.train_rows), len(own.validation_rows)) == (60, 10) and own.splits.validation is not None
    asked, _ = prepared(str(tmp_path), validation=0.5)
    assert (len(asked.train_rows), len(asked.validation_rows)) == (30, 30)
    assert asked.validation_source is asked.splits.train and own.fingerprint != asked.fingerprint


def test_a_file_named_by_the_caller_is_all_validation():
    found, _ = prepared(held_out=tiny.sentences(9, seed=5))
    assert (len(found.train_rows), len(found.validation_rows)) == (60, 9)
    assert found.validation_source is found.splits.validation


def test_what_was_found_is_said():
    rows = [*ROWS, {"text": "  ", "label": "positive"}, ROWS[0]]
    found, _ = prepared(rows)
    said = "\n".join(found.said)
    assert "text column: text" in said and "label column: label" in said
    assert "labels: 2 classes: negative 30, positive 31" in said
    assert "1 row of 62 left out, as the text is empty" in said and "with a text seen before" in said
    assert found.label_counts == {"negative": 30, "positive": 31}


def test_validation_rows_need_the_same_columns_and_labels():
    with pytest.raises(DataError, match="text"):
        prepared(held_out=[{"body": "a", "label": "positive"}])
    with pytest.raises(DataError, match=r'"postive"; expected one of negative, positive. Did you mean "positive"'):
        prepared(held_out=[{"text": "a film", "label": "postive"}])


def test_both_parts_hold_their_rows(tmp_path):
    rows = [{"text": "", "label": "positive"}, *ROWS]  # an empty row shifts positions
    found, recipe = prepared(rows)
    tokenizer = tiny.tokenizer("bert")
    parts = tokenized(found, recipe.model_copy(update={"max_length": 16}), tokenizer, tmp_path)
    assert len(parts.train) == len(found.train_rows) and len(parts.validation) == len(found.validation_rows)
    for part in (parts.train, parts.validation):
        for i, row in enumerate(part.rows):
            expected = tokenizer(rows[row]["text"], truncation=False)["input_ids"]
            assert len(expected) > 16 or list(part.tokens(i)) == expected
            assert found.labels.names[part.labels[i]] == rows[row]["label"]
    assert not set(parts.train.rows.tolist()) & set(parts.validation.rows.tolist()) and 0 not in parts.train.rows


def test_data_fingerprints_tell_data_apart():
    same, again = prepared()[0].fingerprint, prepared([dict(row) for row in ROWS])[0].fingerprint
    other = prepared([*ROWS[:-1], {"text": "new", "label": "positive"}])[0].fingerprint
    assert same == again != other
    assert prepared(validation=0.2)[0].fingerprint != same
