"""The folder of arrays, seen through `tokenize`: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.test_tokenizing import dataset, folders
from tests.data.tiny_tokenizers import TEXTS, ListSource
from tests.faults import failing, passed
from tunewright import locking
from tunewright.data import array_folder
from tunewright.data.examples import Row
from tunewright.errors import DataError, MachineError


@pytest.mark.parametrize(
    "harm", ["shorter", "longer", "missing", "no manifest", "torn manifest", "another's", "odd type"]
)
def test_a_torn_folder_is_built_again(tmp_path: Path, harm: str) -> None:
    good = dataset(tmp_path)
    ids = good.input_ids.tolist()
    (folder,) = folders(tmp_path)
    manifest, file = folder / "manifest.json", folder / "input_ids.bin"
    match harm:
        case "shorter":
            file.write_bytes(file.read_bytes()[:-4])
        case "longer":
            file.write_bytes(file.read_bytes() + b"1234")
        case "missing":
            file.unlink()
        case "no manifest":
            manifest.unlink()
        case "torn manifest":
            manifest.write_text(manifest.read_text()[:-9])
        case "another's":
            manifest.write_text(manifest.read_text().replace(good.fingerprint, "0" * 64))
        case _:
            manifest.write_text(manifest.read_text().replace("int32", "object"))
    was_read: list[int] = []
    source = ListSource(TEXTS)
    source.rows = lambda: was_read.append(1) or ListSource(TEXTS).rows()  # type: ignore[method-assign]
    again = dataset(tmp_path, source)
    assert was_read
    assert again.input_ids.tolist() == ids
    assert [path.name for path in folders(tmp_path)] == [folder.name]


def test_nothing_is_left_when_building_fails(tmp_path: Path) -> None:
    source = ListSource(["a"] * 2500, ["good"] * 2499 + ["godo"])
    with pytest.raises(DataError, match=r'reviews.jsonl:2500: "label" is "godo"'):
        dataset(tmp_path, source)
    assert folders(tmp_path) == []


def test_a_killed_start_is_cleaned_up_and_a_living_one_is_not(tmp_path: Path) -> None:
    """A killed start holds no lock; its process number may be another's by now, and isn't asked."""
    cache = tmp_path / "cache"
    dead, alive = cache / ".building-1", cache / ".building-2"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
        (folder / "input_ids.bin").write_bytes(b"half")
    lock = locking.hold(alive)
    assert lock is not None
    dataset(cache)
    assert not dead.exists() and alive.exists()
    lock.release()
    array_folder._remove_abandoned(cache)
    assert not alive.exists()


def test_two_starts_at_once_agree(tmp_path: Path) -> None:
    """The other one finishes between our look and our rename."""
    other = tmp_path / "other"
    dataset(other)
    (built,) = folders(other)

    class Slow(ListSource):
        def rows(self) -> Iterator[Row]:
            yield from super().rows()
            shutil.copytree(built, tmp_path / "cache" / built.name)

    assert len(dataset(tmp_path / "cache", Slow(TEXTS))) == len(TEXTS)
    assert [path.name for path in folders(tmp_path / "cache")] == [built.name]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = passed(monkeypatch, lambda: dataset(tmp_path / "once"))
    assert any(point.endswith("input_ids.bin") for point in points)
    for number in range(len(points)):
        cache = tmp_path / str(number)
        with failing(monkeypatch, number, OSError(28, "No space left on device")), contextlib.suppress(MachineError):
            dataset(cache)
        assert len(dataset(cache)) == len(TEXTS) and len(folders(cache)) == 1, points[number]
    sync = next(i for i, point in enumerate(points) if point.startswith("before sync"))
    words = r"can't be written \(No space left on device\); make room, or name another folder with TUNEWRIGHT_CACHE"
    with failing(monkeypatch, sync, OSError(28, "No space left on device")), pytest.raises(MachineError, match=words):
        dataset(tmp_path / "full")
    assert folders(tmp_path / "full") == []
