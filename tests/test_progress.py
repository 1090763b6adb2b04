"""Events are plain frozen data; a listener is any callable."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess

import pytest

from tests import whole
from tunewright import progress

EVENTS = [v for v in vars(progress).values() if inspect.isclass(v) and dataclasses.is_dataclass(v)]


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_frozen(kind):
    assert kind.__dataclass_params__.frozen and kind in progress.Event.__args__
    assert kind.__doc__ and not kind.__doc__.startswith(kind.__name__)  # dataclass writes one where there is none


def test_every_event_is_in_the_union():
    assert set(progress.Event.__args__) == set(EVENTS)


def test_silence_is_silent(capsys):
    assert progress.silent(progress.Said("x")) is None
    assert capsys.readouterr() == ("", "")


def test_a_run_prints_nothing(tmp_path):
    """Library calls never print: a child's stdout and stderr stay empty."""
    code = (
        "import tunewright as tw;"
        f"tw.train({str(whole.base())!r}, {str(whole.data_file())!r}, full=True, runs={str(tmp_path)!r},"
        "settings={'training.epochs': 1.0, 'training.threads': 1, 'evaluation.bootstrap_samples': 100})"
    )
    done = subprocess.run([whole.PYTHON, "-c", code], env=whole.child_environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == ""
