"""A lock ends with its process, and only with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest

from tests import whole
from tunewright import locking

HOLD = "import sys; from pathlib import Path; from tunewright import locking as l; h = l.hold(Path(sys.argv[1]))"


def holder(path):
    command = [whole.PYTHON, "-c", f"{HOLD}; h.sign(); print('held', flush=True); input()", str(path)]
    child = subprocess.Popen(
        command, env=whole.child_environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    child = holder(path)
    assert locking.is_held(path) and locking.hold(path, wait_seconds=0) is None
    assert locking.owner(path).startswith(f"process {child.pid} on ")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert not locking.is_held(path)
    lock = locking.hold(path)
    assert lock is not None and locking.is_held(path)
    lock.release()
    lock.release()
    assert not locking.is_held(path)


def test_probing_makes_and_takes_nothing(tmp_path):
    assert not locking.is_held(tmp_path / "none") and not list(tmp_path.iterdir())
    lock = locking.hold(tmp_path / "lock")
    assert all(locking.is_held(tmp_path / "lock") for _ in range(3))
    assert lock is not None and lock.guards(tmp_path / "lock")
    lock.release()


def test_a_probe_in_between_does_not_send_a_start_away(tmp_path):
    """It waits a moment: whoever looks holds the lock for microseconds."""
    path = tmp_path / "lock"
    first = locking.hold(path)
    assert first is not None
    begin = time.monotonic()
    assert locking.hold(path) is None and 0.2 < time.monotonic() - begin < 3
    first.release()
    assert locking.hold(path) is not None


def test_a_lock_on_what_is_gone_guards_nothing(tmp_path):
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    lock = locking.hold(path)
    assert lock is not None and lock.guards(path)
    shutil.rmtree(path.parent)
    assert not lock.guards(path)
    path.parent.mkdir()
    path.touch()
    assert not lock.guards(path)  # another of the same name


def test_a_folder_can_be_held(tmp_path):
    lock = locking.hold(tmp_path)
    assert lock is not None and locking.is_held(tmp_path) and locking.hold(tmp_path, wait_seconds=0) is None
    lock.release()
    with pytest.raises(FileNotFoundError):
        locking.hold(tmp_path / "none" / "lock")
