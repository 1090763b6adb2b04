"""What gives the label away is found, and small or ordinary data raises no alarm."""

from __future__ import annotations

import random
from zlib import crc32

import numpy as np
import pytest

from tests.data.test_near_duplicates import store
from tunewright.data.gathering import OtherColumn
from tunewright.data.giveaways import column_giveaways, is_sorted_by_label, word_giveaways

WORDS = [f"w{i}" for i in range(200)]


def rows(count: int, seed: int = 0, classes: int = 2) -> tuple[list[list[str]], np.ndarray]:
    draw = random.Random(seed)
    return [draw.choices(WORDS, k=12) for _ in range(count)], np.array([i % classes for i in range(count)], np.int32)


def found(texts: list[list[str]], keys: np.ndarray, edges: np.ndarray | None = None) -> list[tuple[str, int, int]]:
    nothing = np.zeros((len(texts), 2), np.uint32)
    giveaways = word_giveaways(store([" ".join(t) for t in texts]), nothing if edges is None else edges, keys)
    return [(each.where, each.label_key, each.code) for each in giveaways]


def test_a_word_that_only_one_class_has():
    texts, keys = rows(400)
    for i in np.flatnonzero(keys == 1)[:120]:  # 60 % of the class
        texts[i][3] = "leak"
    assert found(texts, keys) == [("word", 1, crc32(b"leak"))]


@pytest.mark.parametrize(("others", "expected"), [(1, 1), (8, 0)])
def test_nearly_is_ninety_eight_of_a_hundred(others: int, expected: int):
    texts, keys = rows(400)
    for i in [*np.flatnonzero(keys == 1)[:150], *np.flatnonzero(keys == 0)[:others]]:
        texts[i][3] = "leak"
    assert len(found(texts, keys)) == expected


def test_a_sign_at_the_end():
    texts, keys = rows(200)
    edges = np.zeros((200, 2), np.uint32)
    edges[keys == 0, 1] = ord("!")
    assert found(texts, keys, edges) == [("end", 0, ord("!"))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "classes"), [(12, 2), (40, 2), (400, 2), (60, 6), (1000, 20)])
def test_no_false_alarm_on_random_data(seed: int, count: int, classes: int):
    texts, keys = rows(count, seed, classes)
    draw = np.random.default_rng(seed)
    columns = {
        "id": column(np.arange(count)),
        "site": column(draw.integers(0, 5, count)),
        "random": column(draw.permutation(count)),
    }
    shuffled = draw.permutation(keys)
    assert found(texts, shuffled) == []
    assert column_giveaways(columns, shuffled) == []
    assert not is_sorted_by_label(shuffled)


def test_no_alarm_on_few_rows_however_clear():
    texts, keys = rows(24)
    for i in np.flatnonzero(keys == 1):
        texts[i][0] = "leak"
    assert found(texts, keys) == []


def test_no_alarm_where_the_class_is_nearly_everything():
    texts, keys = rows(400)
    keys = np.where(np.arange(400) < 390, 0, 1).astype(np.int32)
    for i in range(300):
        texts[i][0] = "the"  # 100 % pure, and so would be any word
    assert found(texts, keys) == []


def column(values: np.ndarray, patterns: np.ndarray | None = None) -> OtherColumn:
    numbers = values.astype(np.float64)
    return OtherColumn(values.astype(np.uint32), (np.zeros_like(values) if patterns is None else patterns), numbers)


def test_columns_by_value_pattern_and_order():
    keys = np.array([0, 1] * 100, np.int32)
    site = column(keys + 5)
    unique = np.random.default_rng(0).permutation(200)
    by_folder = column(unique, patterns=keys + 7)
    in_order = column(np.where(keys == 0, unique, unique + 1_000))
    giveaways = column_giveaways({"site": site, "file": by_folder, "id": in_order, "n": column(unique)}, keys)
    assert [(each.column, each.how) for each in giveaways] == [("site", "value"), ("file", "pattern"), ("id", "order")]
    assert all(each.accuracy >= 0.98 for each in giveaways)


def test_columns_need_fifty_rows():
    keys = np.array([0, 1] * 24, np.int32)
    assert column_giveaways({"site": column(keys)}, keys) == []
    assert not is_sorted_by_label(np.sort(keys))
    assert is_sorted_by_label(np.sort(np.array([0, 1] * 50, np.int32)))


def test_a_sign_needs_twenty_rows():
    texts, keys = rows(24)
    edges = np.zeros((24, 2), np.uint32)
    edges[keys == 0, 1] = ord("!")
    assert found(texts, keys, edges) == []


def test_a_common_word_of_the_largest_class_is_no_giveaway():
    texts, _ = rows(1_000)
    keys = np.where(np.arange(1_000) < 970, 0, 1).astype(np.int32)
    for i in [*range(500), *range(970, 975)]:
        texts[i][0] = "the"  # 99 % pure where chance gives 97 %
    assert found(texts, keys) == []


def test_a_value_that_stands_alone_predicts_nothing():
    keys = np.array([0] * 41 + [1] * 19, np.int32)
    assert column_giveaways({"site": column(np.array([0] * 41 + list(range(1, 20))))}, keys) == []


def test_pairs_of_equal_values_are_no_giveaway():
    pairs = np.random.default_rng(0).permutation(100).repeat(2)
    keys = (np.arange(200) // 2 % 2).astype(np.int32)
    assert column_giveaways({"pair": column(pairs, patterns=pairs)}, keys) == []


def test_columns_need_ten_rows_outside_the_largest_class():
    for others, expected in ((9, 0), (10, 1)):
        keys = np.array([0] * 90 + [1] * others, np.int32)
        assert len(column_giveaways({"site": column(keys)}, keys)) == expected
