"""A shared cache is the one that a run would have built for itself, built once, and never half of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import whole
from tunewright import durable
from tunewright.models import shared_boundary
from tunewright.pipeline import fine_tune
from tunewright.recipe_files import load_recipe

HEAD = {"seed 1": 42, "seed 2": 43}


def _run(tmp_path: Path, name: str, shared: Path | None, method: str = "head", **settings: Any) -> Any:
    first = whole.finished("single", method)
    recipe = load_recipe(first.folder / "recipe.yaml")
    training = recipe.training.model_copy(update=settings)
    return fine_tune(
        recipe.model_copy(update={"name": name, "training": training}), runs=tmp_path / name, shared=shared
    )


@pytest.mark.parametrize("method", ["head", "last 1"])
def test_the_same_model_as_with_a_cache_of_its_own(tmp_path, method):
    own, shared = whole.finished("single", method), _run(tmp_path, "shared", tmp_path / "kept", method)
    theirs, ours = whole.tensors(own.folder / "model"), whole.tensors(shared.folder / "model")
    assert theirs.keys() == ours.keys()
    assert all((theirs[name] == ours[name]).all() for name in theirs)
    assert shared.summary["frozen_seconds"] > 0
    assert not (shared.folder / "cache").exists()
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2, "train and validation stay, for the next one"


def test_built_once_for_every_seed(tmp_path, monkeypatch):
    built: list[Path] = []
    real = shared_boundary._built
    monkeypatch.setattr(shared_boundary, "_built", lambda path, *more: built.append(path) or real(path, *more))
    for name in ("one", "two"):
        _run(tmp_path, name, tmp_path / "kept", learning_rate={"one": 1e-2, "two": 2e-2}[name])
    assert len(built) == 2
    _run(tmp_path, "three", tmp_path / "kept", "last 1")
    assert len(built) == 4, "another layer is another cache"


def test_a_kill_while_building_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    def struck(point: str) -> None:
        if point.startswith("after rename") and ".npy" in point:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "reached", struck)
        with pytest.raises(OSError, match="No space left"):
            _run(tmp_path, "one", tmp_path / "kept")
    again = _run(tmp_path, "two", tmp_path / "kept")
    own = whole.finished("single", "head")
    assert np.array_equal(*(whole.tensors(run.folder / "model")["model.safetensors/classifier.weight"]
                            for run in (own, again)))  # fmt: skip


def test_all_that_decides_the_numbers_is_in_the_name():
    """Another base, other rows, other tokens, another layer, another number format: another file."""
    import types

    def key(base: str = "a", k: int = 1, precision: str = "fp32", rows: int = 4, tokens: str = "t") -> str:
        forward: Any = types.SimpleNamespace(precision=precision, num_layers=6, pools_late=False)
        part: Any = types.SimpleNamespace(fingerprint=tokens, rows=np.arange(rows), lengths=np.full(rows, 3))
        return shared_boundary.SharedCaches(Path("x"), base)._key(forward, part, k)

    changed = [{"base": "b"}, {"k": 2}, {"k": 6}, {"precision": "bf16"}, {"rows": 5}, {"tokens": "u"}]
    assert len({key(), *(key(**one) for one in changed)}) == 1 + len(changed)  # type: ignore[arg-type]
    assert key() == key()
