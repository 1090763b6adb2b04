"""Thirty kills, at least a third of them inside a save: whatever dies, the end is the same. `make storm` does 1,000."""

from __future__ import annotations

import json
import os
import random
import subprocess

from tests import whole
from tests.storm import Disk

KILLS = int(os.environ.get("KILLS", "30"))


def test_a_storm_of_kills_leaves_no_trace():
    """In a process of its own, whose parent ran nothing of torch before it forks."""
    command = [whole.PYTHON, "-m", "tests.storm", "--kills", str(KILLS), "--seed", os.environ.get("SEED", "0")]
    done = subprocess.run(
        command, env=whole.child_environment(), cwd=whole.ROOT, capture_output=True, text=True, timeout=60 + 5 * KILLS
    )
    assert done.stdout.strip(), done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0 and not said["failures"], (said, done.stderr)
    assert said["kills"] == KILLS
    assert said["inside_save"] >= 0.3 * KILLS, said
    assert said["slowest_truth_seconds"] < 5


def test_a_power_cut_takes_what_was_not_synced(tmp_path):
    """Or the storm would prove nothing about the disk."""
    disk, files = (
        Disk(),
        {name: tmp_path / name for name in ("synced", "written", "renamed", "rows.jsonl", "new/inner")},
    )
    (tmp_path / "new").mkdir()
    for path in files.values():
        path.write_text("0123456789")
    for point in (
        f"before write {files['written']}",
        f"after write {files['synced']}",
        f"synced {files['synced']}",
        f"after write {files['written']}",
        f"after append {files['rows.jsonl']}",
        f"synced {files['rows.jsonl']}",
        f"after rename {tmp_path}/.renamed.writing to {files['renamed']}",
        f"after rename {tmp_path}/.writing-new to {tmp_path}/new",
    ):
        disk.synced(point.removeprefix("synced ")) if point.startswith("synced") else disk.follow(point)
    files["rows.jsonl"].write_text("0123456789" * 2)
    disk.follow(f"after append {files['rows.jsonl']}")
    disk.cut_power(random.Random(1))
    sizes = {name: path.stat().st_size for name, path in files.items()}
    assert sizes["synced"] == 10 and 10 <= sizes["rows.jsonl"] < 20
    assert all(sizes[name] < 10 for name in ("written", "renamed", "new/inner")), sizes
