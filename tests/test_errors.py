"""One tree, one line each, an exit code by kind, and nothing that can steer a terminal."""

from __future__ import annotations

import re

import pytest

import tunewright
from tunewright import errors
from tunewright.errors import MachineError, NetworkError, RecipeError, StoppedError, TunewrightError, did_you_mean

TREE = re.findall(r"(\w+Error)\s+(\d+)", errors.__doc__ or "")


@pytest.mark.parametrize("name, code", TREE)
def test_the_drawing_is_the_truth(name, code):
    kind = getattr(errors, name)
    assert kind.exit_code == int(code) and issubclass(kind, TunewrightError)
    assert getattr(tunewright, name) is kind


def test_every_error_is_drawn():
    there = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, TunewrightError)}
    assert there == {"TunewrightError"} | {name for name, _ in TREE}
    codes = [getattr(errors, name).code for name in there]
    assert len(set(codes)) == len(codes)


def test_builtin_parents():
    for name, parent in (("UsageError", ValueError), ("DataError", ValueError), ("ModelError", ValueError),
                         ("MachineError", OSError), ("NetworkError", ConnectionError),
                         ("DivergedError", ArithmeticError)):  # fmt: skip
        assert issubclass(getattr(errors, name), parent)


@pytest.mark.parametrize("kind", [getattr(errors, name) for name, _ in TREE if name != "StoppedError"])
def test_one_line_with_its_place(kind):
    error = kind("first\nsecond", where="a.jsonl:3", field="label")
    assert str(error) == "a.jsonl:3: first second" and (error.where, error.field) == ("a.jsonl:3", "label")
    assert error.line() == f"error[{kind.code}] a.jsonl:3: first second"
    assert str(kind("alone")) == "alone"


def test_signals_decide_the_exit_code():
    assert (StoppedError("x").exit_code, StoppedError("x", signal_number=15).exit_code) == (130, 143)
    assert StoppedError.exit_code == 130  # the class stays as it was


def test_names_of_files_cannot_steer_a_terminal():
    error = RecipeError("bad \x1b[31mred\x07", where="\x1b]0;title\x07.yaml")
    assert "\x1b" not in error.line() and "\x07" not in error.line()
    for kind in (MachineError, NetworkError):
        assert "\x1b" not in str(kind("x", where="a\x1bb"))


@pytest.mark.parametrize(
    "word, known, expected",
    [
        ("postive", ["negative", "positive"], ' Did you mean "positive"?'),
        ("Positive", ["positive"], ' Did you mean "positive"?'),
        ("TEXT", ["Text"], ' Did you mean "Text"?'),
        ("zzz", ["positive"], ""),
        ("x", [], ""),
    ],
)
def test_did_you_mean(word, known, expected):
    assert did_you_mean(word, known) == expected
