"""A checkpoint is whole or absent; a damaged one is never believed; the best and the newest stay."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tunewright.errors import MachineError, ModelError, UsageError
from tunewright.learning import checkpoints as module
from tunewright.learning.checkpoints import CheckpointStore, verify

FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", {"recipe": "a", "threads": 2})
    for step in (1, 2):
        store.save(step, {"w": torch.full((3,), float(step))}, {"exp_avg/w": torch.ones(3)}, {"fit": {"step": step}})
    return store


def test_round_trip(store):
    checkpoint, said = store.newest()
    assert checkpoint.step == 2 and not said
    assert checkpoint.weights()["w"].tolist() == [2.0, 2.0, 2.0]
    assert checkpoint.state["fit"] == {"step": 2}
    assert sorted(p.name for p in checkpoint.path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "empty"])
def test_a_damaged_file_sends_resume_to_the_one_before(store, name, damage):
    file = store.folder / "step-000002" / name
    content = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[:-3] if damage == "truncate" else b"")
    checkpoint, said = store.newest()
    assert checkpoint.step == 1
    assert len(said) == 1 and "step-000002" in said[0] and "using the one before" in said[0]


def test_nothing_left_is_no_checkpoint(store):
    for step in (1, 2):
        (store.folder / f"step-{step:06d}" / "manifest.json").unlink()
    checkpoint, said = store.newest()
    assert checkpoint is None and len(said) == 2
    with pytest.raises(ModelError, match="damaged"):
        verify(store.folder / "step-000001")


def test_a_half_written_one_is_not_seen(store):
    shutil.copytree(store.folder / "step-000002", store.folder / ".writing-step-000003")
    assert store.newest()[0].step == 2


@pytest.mark.parametrize("call", range(8))
def test_a_disk_that_fills_up_leaves_the_last_one_whole(store, monkeypatch, call):
    """ENOSPC at each fsync in turn."""
    calls = iter(range(100))
    real = module._fsync

    def full(path):
        if next(calls) == call:
            raise OSError(28, "No space left on device")
        real(path)

    monkeypatch.setattr(module, "_fsync", full)
    try:
        store.save(3, {"w": torch.zeros(3)}, {}, {})
    except MachineError as error:
        assert "No space left on device" in str(error) and error.exit_code == 5
    checkpoint, _ = store.newest()
    assert checkpoint.step in (2, 3)
    assert not [p for p in store.folder.iterdir() if p.name.startswith(".writing")]


def test_pruning_keeps_newest_and_best(store):
    for step in (3, 4, 5):
        store.save(step, {"w": torch.zeros(1)}, {}, {})
        store.prune(best_step=2)
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000002", "step-000004", "step-000005"]


def test_saving_a_step_again_replaces_it(store):
    store.save(2, {"w": torch.full((3,), 9.0)}, {}, {})
    assert store.load(2).weights()["w"].tolist() == [9.0, 9.0, 9.0]
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000001", "step-000002"]


def test_another_identity_is_refused_by_name(store):
    other = CheckpointStore(store.folder, {"recipe": "a", "threads": 4})
    with pytest.raises(UsageError, match="threads was 2 and is now 4"):
        other.check_identity(store.newest()[0])
    store.check_identity(store.newest()[0])


def test_a_manifest_that_lists_other_files_is_not_believed(store):
    path = store.folder / "step-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "../../evil": {"bytes": 1, "sha256": ""}}))
    assert store.newest()[0].step == 1
