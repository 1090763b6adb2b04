"""What the machine refuses: files, folders, devices, streams. One line with exit code 5, and nothing left behind.

Not here: a full disk and a folder that goes away during a run (tests/test_storm.py), a port in use (there is no server
yet), a hub that is away, slow or wrong (tests/serving/test_hub.py, tests/data/test_hub_datasets.py).
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import whole
from tests.feeding import Case, call, call_apart, feed, inside, jsonl, judge, names, tree, write
from tests.whole import PYTHON, child_environment

GOOD = jsonl(good=24)
NOWHERE = "/proc/nowhere"  # not even root makes a folder there
FILES = {"data.jsonl": GOOD}
TINY = ("-s", "training.precision=fp32", "-s", "training.threads=1")


def train(*more: str) -> tuple[str, ...]:
    return ("train", "data.jsonl", *TINY, *more)


CASES = [
    Case("runs where nothing can be made", 5, (NOWHERE, "can't be made"), FILES, train("--runs", NOWHERE)),
    Case("runs in a file", 5, ("data.jsonl", "Not a directory"), FILES, train("--runs", "data.jsonl")),
    Case("a recipe where nothing can be made", 5, (NOWHERE, "can't be written"), FILES, ("init", NOWHERE)),
    Case("no GPU", 5, ("training.device", "cuda"), FILES, train("-s", "training.device=cuda")),
    Case("no Apple GPU", 5, ("training.device", "mps"), FILES, train("-s", "training.device=mps")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_bad_machine(case: Case, tmp_path: Path):
    if case.name.startswith("no ") and _has_accelerator():
        pytest.skip("there is one")
    feed(case, tmp_path)


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


@pytest.mark.parametrize("variable", ["TUNEWRIGHT_CACHE", "HOME"])
def test_a_cache_that_cannot_be_written(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TUNEWRIGHT_CACHE")
    monkeypatch.setenv(variable, NOWHERE)
    feed(Case("", 5, (NOWHERE, "can't be written"), FILES, train("--model", str(whole.base()))), tmp_path)


def test_a_base_model_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tunewright.models.packaged.importlib.util.find_spec", lambda _: None)
    feed(Case("", 5, ("minilm", "not installed", "pip install"), FILES, train()), tmp_path)


def test_too_many_open_files(tmp_path: Path):
    write(tmp_path, FILES)
    with inside(tmp_path):
        call(*train("--model", NOWHERE))  # imports what it needs while files can be opened
        with no_more_files():
            outcome = call("init", "here", "--data", "data.jsonl")
    judge(outcome, 5, ("data.jsonl", "Too many open files"))
    assert tree(tmp_path) == {"data.jsonl"}


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """This process may not open another file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def as_somebody() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root is bound by none."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o777)
        if os.geteuid() != 0:
            yield folder
            return
        os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_data_that_may_not_be_read(what: str):
    with as_somebody() as folder:
        (folder / "data").mkdir()
        path = folder / "data" / "train.jsonl"
        path.write_text(GOOD)
        (path if what == "file" else path.parent).chmod(0)
        try:
            outcome = call("init", str(folder), "--data", str(path))
            judge(outcome, 5, ("data/train.jsonl", "may not be read", "permissions"))
            assert os.listdir(folder) == ["data"]
        finally:
            path.parent.chmod(stat.S_IRWXU)


def test_a_folder_that_may_not_be_written():
    with as_somebody() as folder:
        (folder / "data.jsonl").write_text(GOOD)
        (folder / "closed").mkdir(0o500)
        outcome = call("init", str(folder / "closed"), "--data", str(folder / "data.jsonl"))
        judge(outcome, 5, ("closed", "Permission denied"))
        outcome = call("train", str(folder / "data.jsonl"), *TINY, "--runs", str(folder / "closed" / "runs"))
        judge(outcome, 5, ("closed", "Permission denied"))
        assert os.listdir(folder / "closed") == []


# ---- real processes ----


def test_a_name_with_spaces_and_letters_of_others(tmp_path: Path):
    """Is no mistake; and where a terminal knows only ASCII, the line comes all the same."""
    name = "ein Ordner/crème brûlée 数据.jsonl"
    write(tmp_path, {name: GOOD})
    outcome = call("init", str(tmp_path / "her e"), "--data", str(tmp_path / name))
    assert outcome.code == 0, outcome
    outcome = call_apart("init", "there", "--data", name + "x", folder=tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    judge(outcome, 3, ("no such file", "ein Ordner"))


@pytest.mark.parametrize("stream", ["/dev/full", "closed pipe"])
def test_nobody_takes_the_output(stream: str, tmp_path: Path):
    target = "> /dev/full" if stream == "/dev/full" else "| head -c 10 > /dev/null; exit ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m tunewright schema {target}', PYTHON],
        env=child_environment(), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    if stream == "/dev/full":
        assert done.returncode == 5 and done.stderr.count("error[environment]") == 1, done.stderr
        assert "No space left" in done.stderr
    else:
        assert done.stderr == ""
