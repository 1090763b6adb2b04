"""A checkpoint is whole or absent; a damaged one is never believed; the best and the newest stay."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import pytest
import torch

from tests.faults import failing, passed
from tunewright.errors import MachineError, ModelError, UsageError
from tunewright.learning.checkpoints import CheckpointStore, verify

FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@dataclass
class Progress:
    """A loop's state in small."""

    step: int


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
    assert (
        len(said) == 1 and "step-000002: checkpoint is damaged" in said[0] and said[0].endswith("using step 1 instead")
    )
    assert name in said[0]  # which file it is
    store.remove_after(1)
    assert store.steps() == [1]


def test_where_none_can_be_trusted_a_person_decides(store):
    for step in (1, 2):
        (store.folder / f"step-{step:06d}" / "manifest.json").unlink()
    with pytest.raises(ModelError, match=r"no checkpoint can be trusted, the newest because: .*step-000002") as caught:
        store.newest()
    assert "manifest.json is missing" in str(caught.value) and "remove this folder" in str(caught.value)
    with pytest.raises(ModelError, match="damaged"):
        verify(store.folder / "step-000001")


def test_where_there_never_was_one_nothing_is_said(tmp_path):
    assert CheckpointStore(tmp_path / "none", {}).newest() == (None, [])


def test_damaged_ones_do_not_push_out_good_ones(store):
    """They are removed on resume: the newest two by name would be both of them, and the good ones pruned."""
    for step in (3, 4):
        store.save(step, {"w": torch.zeros(1)}, {}, {})
        (store.folder / f"step-{step:06d}" / "state.json").write_text("{}")
    found, _ = store.newest()
    store.remove_after(found.step)
    store.save(3, {"w": torch.zeros(1)}, {}, {})
    store.prune(None)
    assert store.steps() == [2, 3] and store.newest()[0].step == 3


def test_one_that_names_a_damaged_best_is_passed_over(store):
    """Its best weights are to become the model; from the one before, the best is found again."""
    store.save(3, {"w": torch.zeros(1)}, {}, {"fit": {"best_step": 2}})
    assert store.newest()[0].step == 3
    (store.folder / "step-000002" / "weights.safetensors").write_bytes(b"torn")
    found, said = store.newest()
    assert found.step == 1 and len(said) == 2


def test_a_half_written_one_is_not_seen_and_swept_away(store):
    shutil.copytree(store.folder / "step-000002", store.folder / ".writing-step-000003")
    shutil.copytree(store.folder / "step-000002", store.folder / ".removed-step-000000")
    assert store.newest()[0].step == 2
    store.tidy()
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000001", "step-000002"]


def test_a_kill_between_the_two_renames_of_a_replacement_costs_nothing(store):
    (store.folder / "step-000002").rename(store.folder / ".replaced-step-000002")
    store.tidy()
    assert store.newest()[0].step == 2 and store.steps() == [1, 2]


ENOSPC = OSError(28, "No space left on device")


def save(store, step):
    return store.save(step, {"w": torch.zeros(3)}, {"exp_avg/w": torch.ones(3)}, {})


@pytest.mark.parametrize("step", [2, 3], ids=["in place of one", "a new one"])
def test_a_failure_at_any_point_leaves_one_whole(store, monkeypatch, step):
    """ENOSPC before and after each write, sync, rename and removal in turn."""
    points = passed(monkeypatch, lambda: save(store, step))
    assert len(points) > 30 and any("rename" in point for point in points)
    for number, point in enumerate(points):
        shutil.rmtree(store.folder / "step-000003", ignore_errors=True)
        with failing(monkeypatch, number, ENOSPC) as struck:
            try:
                save(store, step)
            except (MachineError, OSError) as error:
                if not point.startswith(("begin", "end")):
                    assert isinstance(error, MachineError) and error.exit_code == 5, point
                    assert "(No space left on device); the one of step " in str(error), point
        assert struck, point
        store.tidy()
        assert store.newest()[0].step in (1, 2, 3) and not store.newest()[1], point
        assert not list(store.folder.glob(".*")), point
    save(store, step)


def test_rows_are_on_the_disk_before_a_checkpoint_that_knows_of_them(store, tmp_path, monkeypatch):
    rows = tmp_path / "metrics.jsonl"
    rows.write_text("{}\n")
    beside = CheckpointStore(store.folder, {}, beside=(rows, tmp_path / "none.jsonl"))
    points = passed(monkeypatch, lambda: save(beside, 3))
    place = next(
        i for i, point in enumerate(points) if point.startswith("before rename") and point.endswith("step-000003")
    )
    assert f"after sync {rows}" in points[:place]


def test_every_file_is_on_the_disk_before_the_name(store, monkeypatch):
    points = passed(monkeypatch, lambda: save(store, 3))
    place = next(
        i for i, point in enumerate(points) if point.startswith("before rename") and point.endswith("step-000003")
    )
    for name in FILES:
        writing = store.folder / ".writing-step-000003"
        order = [f"after write {writing}/.{name}.writing", f"after sync {writing}/.{name}.writing",
                 f"after rename {writing}/.{name}.writing to {writing}/{name}"]  # fmt: skip
        assert [points.index(point) for point in order] == sorted(points.index(point) for point in order)
        assert points.index(order[-1]) < place
    assert points[place + 1 :].count(f"after sync {store.folder}") == 1


@pytest.mark.parametrize(
    "body, words",
    [
        ({"version": 1, "step": 2}, "has format 1, this tunewright reads 2"),
        ({"version": 2, "step": 3}, "isn't that of step 2"),
        ([], "isn't that of step 2"),
        ("[" * 100_000, "is no JSON"),
        ("\xff", "is no JSON"),
    ],
)
def test_a_state_of_another_kind_is_one_sentence(store, body, words):
    """With a manifest that fits it: written by another version, or by someone with a grudge."""
    from tunewright.learning.checkpoints import _entry

    path = store.folder / "step-000002"
    text = body if isinstance(body, str) else json.dumps(body)
    (path / "state.json").write_bytes(text.encode("latin-1"))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"state.json": _entry(path / "state.json")}))
    with pytest.raises(ModelError, match=words):
        store.load(2)


def test_the_folder_of_a_run_that_was_removed_is_not_made_again(tmp_path):
    with pytest.raises(MachineError, match="was removed or moved while it ran"):
        save(CheckpointStore(tmp_path / "run" / "checkpoints", {}), 1)
    assert not (tmp_path / "run").exists()


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
    with pytest.raises(UsageError, match="threads was 2 and is now 4") as caught:
        other.check_identity(store.newest()[0])
    assert "--resume --force" in str(caught.value) and caught.value.field == "threads"
    [said] = other.check_identity(store.newest()[0], force=True)
    assert "threads was 2 and is now 4" in said and "not the same bytes" in said
    assert store.check_identity(store.newest()[0]) == []


def test_a_manifest_that_lists_other_files_is_not_believed(store):
    path = store.folder / "step-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "../../evil": {"bytes": 1, "sha256": ""}}))
    assert store.newest()[0].step == 1


# ---- found missing by benchmarks/mutation.py ----


def test_what_is_saved_comes_back(store):
    path = store.save(3, {"w": torch.zeros(1)}, {"exp_avg/w": torch.full((2,), 5.0)}, {"fit": {"step": 3}})
    assert path == store.folder / "step-000003"
    checkpoint = store.load(3)
    assert checkpoint.optimizer()["exp_avg/w"].tolist() == [5.0, 5.0]
    assert checkpoint.fit(dict) == {"step": 3}


@pytest.mark.parametrize("state", [{}, {"fit": None}, {"fit": {"stride": 3}}])
def test_a_state_that_is_no_loops_state_is_one_sentence(store, state):
    store.save(3, {"w": torch.zeros(1)}, {}, state)
    with pytest.raises(ModelError, match="doesn't hold a loop's state") as caught:
        store.load(3).fit(Progress)
    assert caught.value.where == str(store.folder / "step-000003")


def struck(store, monkeypatch, step, point):
    """The number of the first fault point of a save that begins so."""
    points = passed(monkeypatch, lambda: save(store, step))
    shutil.rmtree(store.folder / f"step-{step:06d}")
    return next(i for i, name in enumerate(points) if name.startswith(point))


def test_a_save_that_fails_is_never_silent_and_leaves_nothing_behind(store, monkeypatch):
    number = struck(store, monkeypatch, 3, "after write")
    before = sorted(store.folder.iterdir())
    with (
        failing(monkeypatch, number, ENOSPC),
        pytest.raises(MachineError, match="the one of step 2 is whole") as caught,
    ):
        save(store, 3)
    assert caught.value.where == str(store.folder)
    assert sorted(store.folder.iterdir()) == before  # before any tidying: the room is needed now


def test_the_first_save_that_fails_says_that_there_is_none_before_it(tmp_path, monkeypatch):
    first = CheckpointStore(tmp_path / "checkpoints", {})
    number = struck(first, monkeypatch, 1, "after write")
    with (
        failing(monkeypatch, number, ENOSPC),
        pytest.raises(MachineError, match=r"device\); there is none before it: mend"),
    ):
        save(first, 1)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(MachineError, match="checkpoints: can't be written") as caught:
        save(CheckpointStore(tmp_path / "checkpoints", {}), 1)
    assert caught.value.where == str(tmp_path / "checkpoints")


def test_the_storm_can_see_when_a_save_begins_and_ends(store, monkeypatch):
    points = passed(monkeypatch, lambda: save(store, 3))
    final = store.folder / "step-000003"
    assert (points[0], points[-1]) == (f"begin save {final}", f"end save {final}")


def test_a_manifest_that_lists_fewer_files_is_not_believed(store):
    """Else weights could be swapped for others, and nobody would look."""
    path = store.folder / "step-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({"state.json": manifest["state.json"]}))
    with pytest.raises(ModelError, match=r"manifest\.json doesn't list the checkpoint's files"):
        store.load(2)


@pytest.mark.parametrize(("size", "words"), [(16 << 20, "is no JSON"), ((16 << 20) + 1, "is far too long")])
def test_a_manifest_of_any_size_costs_no_memory(store, size, words):
    with (store.folder / "step-000002" / "manifest.json").open("wb") as stream:
        stream.truncate(size)
    with pytest.raises(ModelError, match=f"manifest.json {words}"):
        store.load(2)


def test_a_link_out_of_the_folder_is_not_followed(store, tmp_path):
    """Even one to the very bytes that the manifest names: what lies elsewhere may change after it was verified."""
    weights = store.folder / "step-000002" / "weights.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a symbolic link out of its folder"):
        store.load(2)


def test_what_changed_for_good_is_refused_whatever_is_forced(store):
    other = CheckpointStore(store.folder, {"recipe": "b", "threads": 4})
    with pytest.raises(UsageError) as caught:
        other.check_identity(store.newest()[0])
    said = str(caught.value)
    assert "recipe" in said and ", and threads; continuing would not be the same run. Restore it, or" in said
    with pytest.raises(UsageError) as caught:
        other.check_identity(store.newest()[0], force=True)
    assert "threads" not in str(caught.value)  # that alone would be let through
    alone = CheckpointStore(store.folder, {"recipe": "a", "threads": 4})
    with pytest.raises(UsageError, match=r"now 4 .*; Restore it, or accept results that are near"):
        alone.check_identity(store.newest()[0])


def test_names_that_are_no_steps_are_passed_over(store):
    for name in ("step-", "step-x", "step-\u00b2", "step-99999999999", "step-999999999999", "stop-000003", "step-+3"):
        (store.folder / name).mkdir()
    assert store.steps() == [1, 2, 99_999_999_999]
