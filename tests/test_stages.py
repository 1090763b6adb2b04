"""The arrows of the pipeline, one by one: what each hands on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny, whole
from tunewright import stages
from tunewright.errors import UsageError
from tunewright.learning.loop import FitState
from tunewright.recipe_files import build_recipe
from tunewright.recording import Recorder
from tunewright.runtime import Runtime

ALONE = Runtime("cpu", "fp32", 1)


class Walk:
    """A run taken arrow by arrow, without training."""

    def __init__(self, folder, *overrides, kind="bert", rows=None):
        given = [f"{key}={value}" for key, value in {"training.epochs": 2.0, "training.batch_size": 8}.items()]
        values = {"model": str(whole.base(kind)), "data": {"train": "(in memory)"}}
        self.recipe = build_recipe(values, [*given, *overrides])
        self.recorder = Recorder(folder, lambda event: None)
        self.data = stages.read_data(self.recipe, rows or whole.rows(), None, Path("runs"), self.recorder)
        self.base = stages.load_base(self.recipe, self.data, folder, self.recorder)
        self.resolved, self.origins = stages.resolve(self.recipe, self.data, self.base)
        self.tokens = stages.tokenize(self.resolved, self.data, self.base, ALONE, self.recorder)

    def choose(self):
        return stages.choose_trainable(self.resolved, self.data, self.tokens, self.base, ALONE, self.recorder)

    def plan(self):
        return stages.plan(self.resolved, self.data, self.tokens, self.choose(), ALONE, self.recorder)

    @property
    def notes(self):
        return "\n".join(self.recorder.summary.get("notes", []))


@pytest.fixture
def walk(tmp_path):
    walks = []

    def start(*overrides, **more):
        walks.append(Walk(tmp_path / str(len(walks)), *overrides, **more))
        return walks[-1]

    yield start
    for one in walks:
        one.recorder.close()


def test_the_model_goes_to_the_device(walk, monkeypatch):
    moves = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *device, **kind: moves.extend(device) or self)
    walk().choose()
    assert moves[-1] == "cpu"


def test_the_untrained_head_is_kept_as_it_was(walk):
    base = walk().base
    assert {"classifier.weight", "classifier.bias"} <= base.untrained.keys()
    assert all("pooler" in name or "classifier" in name for name in base.untrained)
    named = dict(base.loaded.model.named_parameters())
    assert all(torch.equal(tensor, named[name]) for name, tensor in base.untrained.items())
    with torch.no_grad():
        named["classifier.weight"].zero_()
    assert base.untrained["classifier.weight"].abs().sum() > 0  # a copy


def test_the_seed_draws_the_head(walk):
    one, same, other = (walk(f"training.seed={seed}").base.untrained["classifier.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    "override, dropout",
    [
        ("trainable.method=full", 0.1),
        ("trainable.method=head", 0.0),
        ("trainable.method=lora", 0.0),
        ("training.base_dropout=0.3", 0.3),
    ],
)
def test_no_dropout_inside_a_frozen_base(walk, override, dropout):
    model = walk(override).base.loaded.model
    found = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {dropout}


@pytest.mark.parametrize("method, added", [("full", 1), ("lora", 0), ("head", 0)])
def test_only_full_adds_a_pad_token(walk, method, added):
    before = len(tiny.tokenizer("gpt2"))
    loaded = walk(f"trainable.method={method}", kind="gpt2").base.loaded
    assert len(loaded.tokenizer) == before + added and loaded.tokenizer.pad_token_id is not None
    assert loaded.model.get_input_embeddings().num_embeddings == before + added


def test_what_the_model_can_read_bounds_the_length(walk):
    rows = [{"text": "good film " * 60, "label": row["label"]} for row in whole.rows()]
    rows = [{**row, "text": f"{row['text']} {'the ' * i}"} for i, row in enumerate(rows)]
    for kind, longest in (("bert", 64), ("roberta", 64), ("gpt2", 64)):
        one = walk(kind=kind, rows=rows)
        assert one.resolved.data.max_length == longest
        assert int(one.tokens.train.lengths.max()) == longest
        assert "texts cut to 64 tokens on the left" in one.notes


def test_weights_fingerprint_sees_content_and_size(tmp_path):
    from tests.whole import base

    content = (base() / "model.safetensors").read_bytes()
    seen = set()
    for name, body in (("a", content), ("b", content[:-1] + bytes([content[-1] ^ 1])), ("c", content + b"0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(body)
        seen.add(stages._weights_fingerprint(tmp_path / name))
    assert len(seen) == 3 and stages._weights_fingerprint(base()) in seen


def test_class_weights(walk):
    rows = [{"text": f"good film {'the ' * i}", "label": "a" if i % 4 else "b"} for i in range(40)]
    weights = walk("training.class_weights=balanced", rows=rows).choose().objective.weights
    assert weights is not None and weights[1] > 2 * weights[0]
    given = walk("training.class_weights={a: 2.0}", rows=rows).choose().objective.weights
    assert given is not None and given.tolist() == [2.0, 1.0]
    with pytest.raises(UsageError, match=r'class_weights names "aa"; classes are a, b. Did you mean "a"') as caught:
        walk("training.class_weights={aa: 2.0}", rows=rows).choose()
    assert caught.value.field == "training.class_weights"


def test_the_plan_is_the_recipe_in_steps(walk):
    plan = walk("training.warmup_fraction=0.25", "training.learning_rate=0.5", "training.seed=3").plan()
    assert (plan.steps_per_epoch, plan.total_steps, plan.evaluate_every, plan.warmup_steps) == (6, 12, 6, 3)
    assert (plan.learning_rate, plan.seed, plan.metric, plan.higher_is_better) == (0.5, 3, "validation/accuracy", True)
    half = walk("training.epochs=0.5", "evaluation.every=2", "training.checkpoint_every=3").plan()
    assert (half.total_steps, half.evaluate_every, half.checkpoint_every) == (3, 2, 3)
    few = walk("training.epochs=null", "training.epochs=auto", "training.max_steps=5", "evaluation.metric=loss").plan()
    assert (few.total_steps, few.higher_is_better) == (5, False)
    assert walk("training.micro_batch_tokens=33").plan().micro_batch_tokens == 33


def test_memory_bounds_the_micro_batch(walk, monkeypatch):
    longest = int(walk().tokens.train.lengths.max())
    roomy = walk().plan().micro_batch_tokens
    monkeypatch.setattr(stages, "memory_available", lambda: 1)
    assert longest <= walk().plan().micro_batch_tokens < roomy


@pytest.mark.parametrize(
    "overrides, cached",
    [
        (["trainable.layers=last 1"], True),
        (["trainable.method=head"], True),
        ([], False),
        (["trainable.method=full"], False),
    ],
)
def test_caches_where_something_below_is_frozen(walk, overrides, cached):
    one = walk(*overrides)
    caches = stages.build_caches(one.choose(), one.tokens, ALONE, one.recorder)
    assert (caches.train is not None) == cached == (caches.fingerprint is not None)
    assert bool(list(one.recorder.folder.rglob("*.npy"))) == cached
    caches.remove()
    assert not list(one.recorder.folder.rglob("*.npy"))


def test_caches_that_do_not_fit_are_not_built(walk, monkeypatch):
    one = walk("trainable.layers=last 1")
    monkeypatch.setattr(stages.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert stages.build_caches(one.choose(), one.tokens, ALONE, one.recorder).train is None
    assert "running every layer instead" in one.notes


def test_identity_names_what_a_resumed_run_must_share(walk):
    one = walk()
    first = stages.identity(one.resolved, one.data, one.base, stages.Caches(), ALONE)
    named = one.resolved.model_copy(update={"name": "other"})
    assert stages.identity(named, one.data, one.base, stages.Caches(), ALONE) == first
    changes = {
        "recipe": (
            one.resolved.model_copy(update={"training": one.resolved.training.model_copy(update={"seed": 9})}),
            ALONE,
        ),
        "world_size": (one.resolved, replace(ALONE, world_size=2)),
        "threads": (one.resolved, replace(ALONE, threads=2)),
        "precision": (one.resolved, replace(ALONE, precision="bf16")),
        "device": (one.resolved, replace(ALONE, device="cuda")),
    }
    for name, (recipe, machine) in changes.items():
        other = stages.identity(recipe, one.data, one.base, stages.Caches(), machine)
        assert {key for key in first if first[key] != other[key]} == {name}
    assert {"data", "base", "boundary", "torch", "transformers", "peft", "tunewright"} <= first.keys()


def test_keep_best_puts_the_best_weights_back():
    run = whole.finished("single", "full")
    steps = sorted(int(p.name[5:]) for p in (run.folder / "checkpoints").iterdir())
    weights = load_file(run.folder / "checkpoints" / f"step-{steps[0]:06d}" / "weights.safetensors")
    model = SimpleNamespace(named_parameters=lambda: [(n, torch.nn.Parameter(torch.zeros_like(t))) for n, t in own])
    own = list(weights.items())
    put: dict[str, torch.Tensor] = {}
    store = SimpleNamespace(load=lambda step: SimpleNamespace(weights=lambda: put.setdefault(step, weights)))
    recipe = build_recipe({"data": {"train": "a"}})
    trained = SimpleNamespace(model=model)
    last = build_recipe({"data": {"train": "a"}}, ["evaluation.keep=last"])
    assert stages.keep_best(last, trained, FitState(step=9, best_step=steps[0]), store) == 9 and not put
    assert stages.keep_best(recipe, trained, FitState(step=9, best_step=None), store) == 9 and not put
    assert stages.keep_best(recipe, trained, FitState(step=9, best_step=9), store) == 9 and not put
    assert stages.keep_best(recipe, trained, FitState(step=9, best_step=steps[0]), store) == steps[0] and put
