"""The order in which the disk hears of things, and what is left when it stops listening at any of them."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.faults import failing, passed
from tunewright import durable
from tunewright.errors import MachineError

FULL = OSError(errno.ENOSPC, "No space left on device")


def verbs(points, folder):
    return [point.replace(f"{folder}/", "").replace(str(folder), ".") for point in points if point.startswith("after")]


def test_a_file_is_synced_before_it_has_its_name(tmp_path, monkeypatch):
    points = passed(monkeypatch, lambda: durable.write_text(tmp_path / "a", "one"))
    assert verbs(points, tmp_path) == [
        "after write .a.writing", "after sync .a.writing", "after rename .a.writing to a", "after sync .",
    ]  # fmt: skip
    assert [p.replace("before", "after", 1) for p in points[::2]] == points[1::2]


def test_a_folder_takes_a_name_before_the_old_one_goes(tmp_path, monkeypatch):
    for name, content in (("new", "2"), ("a", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(content)
    points = passed(monkeypatch, lambda: durable.put_in_place(tmp_path / "new", tmp_path / "a"))
    assert verbs(points, tmp_path) == [
        "after rename a to .replaced-a", "after rename new to a", "after sync .", "after remove .replaced-a",
    ]  # fmt: skip
    assert (tmp_path / "a" / "x").read_text() == "2" and [p.name for p in tmp_path.iterdir()] == ["a"]


WRITES = {
    "text": (lambda path: durable.write_text(path, "two\n"), lambda path: path.read_text()),
    "tensors": (
        lambda path: durable.write_tensors(path, {"w": torch.ones(3)}),
        lambda path: load_file(path)["w"].tolist(),
    ),
}


@pytest.mark.parametrize("kind", WRITES)
def test_the_whole_file_or_the_old_one(kind, tmp_path, monkeypatch):
    """At every point, whether the system refuses or a person interrupts; and no litter."""
    write, read = WRITES[kind]
    path = tmp_path / "a"
    for error in (FULL, KeyboardInterrupt()):
        write(path)
        whole = read(path)
        for number in range(len(passed(monkeypatch, lambda: write(path)))):
            with failing(monkeypatch, number, error), contextlib.suppress(OSError, KeyboardInterrupt):
                write(path)
            assert read(path) == whole and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_half_a_tree_never_has_the_name(tmp_path, monkeypatch):
    def make():
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "x").write_text("")

    make()
    for number in range(len(passed(monkeypatch, lambda: durable.remove_folder(tmp_path / "a")))):
        make()
        with failing(monkeypatch, number, FULL), contextlib.suppress(OSError):
            durable.remove_folder(tmp_path / "a")
        assert not (tmp_path / "a").exists() or (tmp_path / "a" / "x").exists()
        durable.remove_leftovers(tmp_path)
        assert not list(tmp_path.glob(".*"))


def test_between_the_two_renames_the_old_one_comes_back(tmp_path):
    (tmp_path / ".replaced-a").mkdir()
    durable.put_back(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    (tmp_path / ".replaced-a").mkdir()
    durable.put_back(tmp_path / "a")  # the new one is there: the old one goes
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_only_leftovers_go(tmp_path):
    for name in (".writing-a", ".removed-b", ".replaced-c", ".git", "a"):
        (tmp_path / name).mkdir()
    for name in (".run.json.writing", ".env", "run.json", "x.writing"):
        (tmp_path / name).touch()
    durable.remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {".git", "a", ".env", "run.json", "x.writing"}


def test_a_tree_is_synced_leaves_first(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/x", "a/b/y"):
        (tmp_path / name).touch()
    points = verbs(passed(monkeypatch, lambda: durable.sync_tree(tmp_path / "a")), tmp_path)
    assert set(points) == {"after sync a/x", "after sync a/b/y", "after sync a/b", "after sync a"}
    assert points[-1] == "after sync a"


def test_lines_are_appended_and_torn_ones_left_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    durable.append_line(path, "one")
    durable.append_line(path, "zwei ä")
    with path.open("a") as stream:
        stream.write("tor")
    durable.append_line(path, "three")
    assert path.read_text(encoding="utf-8") == "one\nzwei ä\ntor\nthree\n"


def test_failures_are_sentences(tmp_path):
    words = r"^x: can't be kept \(No space left on device\), sorry$"
    with pytest.raises(MachineError, match=words), durable.storing(Path("x"), "can't be kept", ", sorry"):
        raise FULL
    known = MachineError("already said")
    with pytest.raises(MachineError) as caught, durable.storing(tmp_path):
        raise known
    assert caught.value is known


@pytest.mark.parametrize(
    ("said", "number", "words"),
    [
        ("I/O error: No space left on device (os error 28)", errno.ENOSPC, "No space left on device"),
        ("Error while serializing: something", errno.EIO, "Error while serializing: something"),
    ],
)  # fmt: skip
def test_safetensors_words_become_the_systems(said, number, words):
    error = durable.as_os_error(SafetensorError(said))
    assert error.errno == number and durable.reason(error) == words


def test_room_is_taken_before_a_file_is_mapped(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as stream:
        stream.truncate(1 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20  # a promise only
    durable.reserve(path)
    assert path.stat().st_blocks * 512 >= 1 << 20 == path.stat().st_size
