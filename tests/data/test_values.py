"""Nesting is allowed to a depth, half characters are found wherever they hide, NumPy becomes plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from tunewright.data.values import MAX_DEPTH, plain, refuse_deep_nesting, refuse_half_characters
from tunewright.errors import DataError


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_is_allowed_to_a_depth():
    refuse_deep_nesting({"a": nested(MAX_DEPTH - 1)}, "x:1")
    with pytest.raises(DataError, match=r"x:1: .* more than 100 deep"):
        refuse_deep_nesting({"a": nested(MAX_DEPTH + 1)}, "x:1")


@pytest.mark.parametrize("value", ["a\ud800", ["a", ("\udfff",)], {"b": {"c": "\udabc"}}, {"\ud800": 1}])
def test_half_characters_are_found(value: object):
    refuse_half_characters({"a": "whole 😀 \ue000", "b": 1, "c": None}, "x:1")
    with pytest.raises(DataError) as caught:
        refuse_half_characters({"a": value}, "x:1")
    assert (caught.value.where, caught.value.field) == ("x:1", "a")
    caught.value.line().encode()  # can be printed


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a"), (np.arange(2), [0, 1])],
)
def test_numpy_becomes_plain(value: object, expected: object):
    assert plain(value) == expected
    assert type(plain(value)).__module__ == "builtins"


@pytest.mark.parametrize("value", ["a", 1, 1.5, None, True, ["a"], {"a": 1}])
def test_plain_values_stay(value: object):
    assert plain(value) is value
