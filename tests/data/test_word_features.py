"""Word tables are scikit-learn's TF-IDF of words and pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from sklearn.feature_extraction.text import TfidfVectorizer

from tests import tiny
from tunewright.data.word_features import word_table


def _dense(texts: list[str]) -> np.ndarray:
    table = word_table(texts)
    shape = (table.num_rows, table.num_columns)
    return coo_array((table.values, (table.rows, table.columns)), shape=shape).toarray()


def test_equals_scikit_learn_but_for_the_order_of_columns() -> None:
    texts = [row["text"] for row in tiny.sentences(80)]
    theirs = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2), token_pattern=r"\w+").fit_transform(texts)
    ours = _dense(texts)
    assert ours.shape == theirs.shape
    assert ours @ ours.T == pytest.approx((theirs @ theirs.T).toarray(), abs=1e-12)


def test_case_and_punctuation_do_not_matter() -> None:
    once, again = _dense(["good film", "Good, FILM!", "bad plot", "bad plot"])[:2]
    assert (once == again).all()


def test_words_of_one_text_alone_are_left_out() -> None:
    table = word_table(["one two", "three four"])
    assert (len(table.values), table.num_columns, table.num_rows) == (0, 0, 2)


def test_parts_keep_their_rows_in_the_asked_order() -> None:
    texts = [row["text"] for row in tiny.sentences(20)]
    whole = _dense(texts)
    part = word_table(texts).part(np.array([7, 3]))
    dense = coo_array((part.values, (part.rows, part.columns)), shape=(2, part.num_columns)).toarray()
    assert (dense == whole[[7, 3]]).all()
