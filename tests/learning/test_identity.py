"""What differs is named as a person knows it, and only what can't change the run may be forced."""

from __future__ import annotations

import pytest

from tunewright.errors import UsageError
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.identity import HARMLESS, differences

THEN = {
    "recipe": {"training": {"seed": 1, "learning_rate": 1e-4}, "trainable": {"rank": 4}, "task": "classify"},
    "data": "a" * 64, "base": "b" * 64, "boundary": None, "world_size": 1, "threads": 2, "device": "cpu",
    "precision": "fp32", "processor": "AVX2", "tunewright": "1", "torch": "2.13", "transformers": "5", "peft": "0.21",
}  # fmt: skip


def changed(**values):
    return {**THEN, **values}


def check(now, tmp_path, *, force=False):
    checkpoint = Checkpoint(tmp_path / "step-000001", 1, {"identity": THEN})
    return CheckpointStore(tmp_path, now).check_identity(checkpoint, force=force)


def test_the_same_is_the_same(tmp_path):
    assert differences(THEN, THEN) == [] == check(THEN, tmp_path)


def test_settings_are_named_as_in_the_recipe():
    now = changed(recipe={**THEN["recipe"], "training": {"seed": 2, "learning_rate": 1e-4}})
    assert [str(d) for d in differences(THEN, now)] == ["training.seed was 1 and is now 2"]


@pytest.mark.parametrize("name", sorted(THEN.keys() - {"recipe", *HARMLESS}))
@pytest.mark.parametrize("force", [False, True])
def test_what_decides_the_run_is_refused_even_with_force(name, force, tmp_path):
    with pytest.raises(UsageError, match=f"can't resume: {name} was .* and is now") as caught:
        check(changed(**{name: "other"}), tmp_path, force=force)
    assert "start a new run" in str(caught.value) and "--force" not in str(caught.value)
    assert caught.value.field == name


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_moves_last_bits_may_be_forced(name, tmp_path):
    with pytest.raises(UsageError, match=f"can't resume: {name} was") as caught:
        check(changed(**{name: "other"}), tmp_path)
    assert "--resume --force" in str(caught.value)
    assert len(check(changed(**{name: "other"}), tmp_path, force=True)) == 1


def test_what_may_not_be_forced_comes_first(tmp_path):
    now = changed(torch="3", precision="bf16", threads=8)
    with pytest.raises(UsageError, match="can't resume: precision was") as caught:
        check(now, tmp_path)
    assert ", and threads, torch; continuing would not be the same run" in str(caught.value)


def test_a_checkpoint_without_identity_shares_nothing(tmp_path):
    with pytest.raises(UsageError, match="can't resume"):
        CheckpointStore(tmp_path, THEN).check_identity(Checkpoint(tmp_path, 1, {"identity": []}), force=True)
