"""The arrows of the pipeline that take more than a line: each takes what came before and returns what comes next.

`pipeline` gives the order; `judging` scores; folders below do the work. Nothing here knows how a thing is done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tunewright import __version__
from tunewright.data.comparison_tokens import ComparisonDataset
from tunewright.data.preparing import Tokenized
from tunewright.data.sources import open_data
from tunewright.defaults import resolve as decide
from tunewright.errors import UsageError
from tunewright.learning.checkpoints import Checkpoint, CheckpointStore
from tunewright.learning.gradients import Objective
from tunewright.learning.loop import FitPlan, FitState, Hooks
from tunewright.learning.tensors import load_trainable
from tunewright.models.boundary import BoundaryCache, build, size_bytes
from tunewright.models.forward import Forward
from tunewright.models.loading import BaseModel, Loaded, add_pad_token, quiet, resolve_base
from tunewright.models.shared_boundary import SharedCaches
from tunewright.models.trainable import TrainableReport, TrainableSpec, choose
from tunewright.planning.memory import bytes_per_token, largest_micro_batch
from tunewright.progress import Phase
from tunewright.recipe import IN_MEMORY, Recipe, steps_per_epoch
from tunewright.recording import Recorder
from tunewright.runtime import Runtime, give_back, memory_available
from tunewright.tasks.opening import open_task
from tunewright.tasks.task import Lesson, Scorer, ScoringParts, Task

CACHE_SHARE = 0.25  # of the free disk that boundary caches may take


@dataclass(frozen=True)
class Base:
    """The loaded base model, before anything is chosen."""

    source: BaseModel
    loaded: Loaded
    head: tuple[str, ...]  # dotted names of the modules of the head
    untrained: Mapping[str, torch.Tensor]  # the head's parameters as they are now
    fingerprint: str


@dataclass(frozen=True)
class Trained:
    """The model with its trainable parameters chosen, and the forward that runs it."""

    model: Any
    forward: Forward
    report: TrainableReport
    objective: Objective

    @property
    def cached_layers(self) -> int:
        """Layers below the lowest trained one, which may run once and be kept."""
        return self.report.lowest_layer if self.forward.packed and self.objective.caches else 0


@dataclass(frozen=True)
class Caches:
    """Boundary caches of both parts, or none."""

    train: BoundaryCache | None = None
    validation: BoundaryCache | None = None
    folder: Path | None = None

    def remove(self) -> None:
        """They can be computed again; a finished run doesn't need them."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def fingerprint(self) -> str | None:
        if self.train is None or self.validation is None:
            return None
        return f"{self.train.fingerprint}:{self.validation.fingerprint}"


def cache_folder() -> Path:
    """Where tokenised data is kept between runs."""
    return Path(os.environ.get("TUNEWRIGHT_CACHE") or Path.home() / ".cache" / "tunewright")


# ---- data, base model, decisions ----


def read_data(recipe: Recipe, data: Any, validation: Any, runs: Path, recorder: Recorder) -> Task:
    """The task on its data, opened and looked through."""
    for key, value in (("train", data), ("validation", validation)):
        if value is None and getattr(recipe.data, key) == IN_MEMORY:
            raise UsageError(f"this run's data was in memory: give {key} again", field=f"data.{key}")
    given = validation if validation is not None else recipe.data.validation
    held: Any = given if not isinstance(given, float) and given != "auto" else None
    splits = open_data(data if data is not None else recipe.data.train, validation=held, revision=recipe.data.revision)
    task = open_task(recipe, splits, runs)
    for sentence in task.said:
        recorder.say(sentence)
    return task


def load_base(recipe: Recipe, task: Task, runs: Path, recorder: Recorder) -> Base:
    """The base model, with a new head where the task needs one."""
    recorder.tell(Phase("loading the model"))
    source = resolve_base(recipe.model, recipe.revision, runs)
    frozen = recipe.trainable.method != "full"
    dropout = recipe.training.base_dropout
    loaded = task.load(source, recipe, (0.0 if frozen else None) if dropout == "auto" else dropout)
    for sentence in loaded.said:
        recorder.say(sentence)
    if recipe.trainable.method == "full" and loaded.needs_pad_token and loaded.labels is not None:
        add_pad_token(loaded.model, loaded.tokenizer)
    head = task.head(loaded)
    new = {
        name: p.detach().clone()
        for name, p in loaded.model.named_parameters()
        if any(name.startswith(f"{module}.") for module in head) or name in loaded.new_parameters
    }
    return Base(source, loaded, head, new, _weights_fingerprint(Path(source.path)))


def _weights_fingerprint(folder: Path) -> str:
    """SHA-256 of the weights' sizes and of the first and last megabytes of each file."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(32 << 20))
            stream.seek(max(0, size - (32 << 20)))
            digest.update(stream.read())
    return digest.hexdigest()


def resolve(recipe: Recipe, task: Task, base: Base) -> tuple[Recipe, dict[str, str]]:
    """Every `auto` decided from what is known by now."""
    return decide(recipe, task.facts(recipe, base.loaded))


def tokenize(recipe: Recipe, task: Task, base: Base, runtime: Runtime, recorder: Recorder) -> Tokenized:
    """Token arrays, built by rank 0 and opened by all."""
    recorder.tell(Phase("tokenising"))
    if not runtime.is_main:
        runtime.barrier()
    tokens = task.tokenize(recipe, base.loaded, cache_folder() / "tokens")
    if runtime.is_main:
        runtime.barrier()
    for name, part in (("train", tokens.train), ("validation", tokens.validation)):
        if cut := task.cut_words(recipe, part):
            recorder.say(f"{name}: {cut}")
    return tokens


def choose_trainable(
    recipe: Recipe, task: Task, tokens: Tokenized, base: Base, runtime: Runtime, recorder: Recorder
) -> Trained:
    """What learns, how it runs, and what it minimises."""
    spec = recipe.trainable
    rank, alpha = (0 if value == "auto" else value for value in (spec.rank, spec.alpha))  # auto: no adapters, no rank
    with quiet():
        trainable = choose(
            base.loaded.model,
            TrainableSpec(spec.method, int(rank), alpha, spec.dropout, spec.targets, spec.last_layers),
            base.head,
        )
    forward = Forward.checked(trainable.model.to(runtime.device))
    forward.compute_in(runtime.precision)
    for sentence in (*trainable.said, *forward.notes):
        recorder.say(sentence)
    return Trained(trainable.model, forward, trainable.report, task.objective(recipe, tokens, base.loaded))


def scoring(
    recipe: Recipe,
    tokens: Tokenized,
    base: Base,
    trained: Trained,
    caches: Caches,
    runtime: Runtime,
    recorder: Recorder,
    stop_if_asked: Callable[[], None],
) -> ScoringParts:
    """What the task's scorer works with."""
    return ScoringParts(
        recipe, tokens, base.loaded.tokenizer, trained.forward, caches.validation, runtime, recorder, stop_if_asked
    )


def lesson(
    recipe: Recipe,
    tokens: Tokenized,
    base: Base,
    trained: Trained,
    scorer: Scorer,
    caches: Caches,
    plan: FitPlan,
    store: CheckpointStore,
    hooks: Hooks,
    runtime: Runtime,
    recorder: Recorder,
    resume: Checkpoint | None,
) -> Lesson:
    """What the task's loop works with."""
    return Lesson(
        recipe, tokens, base.loaded.tokenizer, trained.forward, trained.objective, scorer, caches.train, plan, store,
        hooks, runtime, recorder, resume,
    )  # fmt: skip


# ---- the plan ----


def plan(
    recipe: Recipe, task: Task, tokens: Tokenized, trained: Trained, runtime: Runtime, recorder: Recorder
) -> FitPlan:
    """Plain numbers for the loop."""
    t, e = recipe.training, recipe.evaluation
    assert isinstance(t.batch_size, int) and isinstance(t.learning_rate, float) and e.metric != "auto"
    updates = recipe.updates_per_iteration
    epoch = steps_per_epoch(len(tokens.train), recipe.rows_per_iteration) * updates
    total = t.max_steps * updates if t.max_steps else max(updates, round(float(t.epochs) * epoch / updates) * updates)
    return FitPlan(
        total_steps=total,
        steps_per_epoch=epoch,
        batch_size=t.batch_size,
        micro_batch_tokens=_micro_batch_tokens(recipe, tokens, trained, runtime, recorder),
        learning_rate=t.learning_rate,
        schedule=t.schedule,
        warmup_steps=int(total * t.warmup_fraction),
        weight_decay=t.weight_decay,
        max_grad_norm=t.max_grad_norm,
        evaluate_every=epoch if e.every == "epoch" else e.every * updates,
        evaluate_before=e.before,
        checkpoint_every=None if t.checkpoint_every == "evaluation" else t.checkpoint_every,
        log_every=updates if updates > 1 else max(1, total // 200),
        metric=f"validation/{e.metric}",
        higher_is_better=task.higher_is_better(e.metric),
        early_stopping=t.early_stopping,
        seed=t.seed,
    )


def _micro_batch_tokens(
    recipe: Recipe, tokens: Tokenized, trained: Trained, runtime: Runtime, recorder: Recorder
) -> int:
    if recipe.training.micro_batch_tokens != "auto":
        return recipe.training.micro_batch_tokens
    lengths = tokens.train.lengths
    need = bytes_per_token(trained.forward, trained.objective, tokens.train, lengths, trained.cached_layers)
    return largest_micro_batch(need, memory_available(), runtime.device, int(lengths.max()), recorder.say)


def build_caches(
    trained: Trained, tokens: Tokenized, runtime: Runtime, recorder: Recorder, shared: SharedCaches | None = None
) -> Caches:
    """Boundary activations of both parts, where something below the lowest trained layer can be kept.

    `shared`: kept there for other runs on the same base and rows, and never removed by this one.
    """
    forward, k = trained.forward, trained.cached_layers
    if k == 0:
        return Caches()
    parts = {"train": tokens.train, "validation": tokens.validation}
    need = sum(size_bytes(forward, p.lengths, k) for p in parts.values())
    free = shutil.disk_usage(recorder.folder.parent).free
    if need > free * CACHE_SHARE:
        recorder.say(
            f"boundary cache needs {need / 1e9:.1f} GB of {free / 1e9:.1f} GB free; running every layer instead",
            "warning",
        )
        return Caches()
    recorder.tell(Phase(f"computing the {k} frozen layers once ({need / 1e6:,.0f} MB)"))
    if shared is not None and not isinstance(tokens.train, ComparisonDataset):
        return Caches(shared.kept(forward, tokens.train, k), shared.kept(forward, tokens.validation, k))
    folder = recorder.folder / "cache" / f"rank-{runtime.rank}"
    built = {name: build(forward, part, part.lengths, k, folder / f"{name}.npy") for name, part in parts.items()}
    return Caches(built["train"], built["validation"], recorder.folder / "cache")


def identity(recipe: Recipe, task: Task, base: Base, caches: Caches, runtime: Runtime) -> dict[str, Any]:
    """What a resumed run must share with the checkpoint it continues."""
    elsewhere = {"micro_batch_tokens", "threads", "device", "precision"}  # named below, or decided anew
    body = recipe.model_dump(mode="json", exclude={"name": True, "training": elsewhere})
    body["data"] = {k: v for k, v in body["data"].items() if k not in ("train", "validation")}
    return {
        "recipe": body,
        "data": task.fingerprint,
        "base": base.fingerprint,
        "boundary": caches.fingerprint,
        "world_size": runtime.world_size,
        "threads": runtime.threads,
        "device": runtime.device,
        "precision": runtime.precision,
        "processor": _processor(runtime.device),
        **versions(),
    }


def _processor(device: str) -> str:
    """What rounds: the instructions that torch uses, or the name of the GPU."""
    on_gpu = device == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability()


def versions() -> dict[str, str]:
    """Library versions that decide the numbers."""
    return {"tunewright": __version__} | {name: version(name) for name in ("torch", "transformers", "peft")}


def checkpoints(
    recipe: Recipe,
    task: Task,
    base: Base,
    caches: Caches,
    runtime: Runtime,
    recorder: Recorder,
    resuming: bool,
    force: bool = False,
) -> tuple[CheckpointStore, Checkpoint | None]:
    """The run's checkpoints, and the one to continue from. `force` accepts differences that only move last bits."""
    store = CheckpointStore(
        recorder.folder / "checkpoints",
        identity(recipe, task, base, caches, runtime),
        recipe.training.keep_checkpoints,
        beside=(recorder.folder / "metrics.jsonl", recorder.folder / "samples.jsonl"),
    )
    if not resuming:
        return store, None
    if recorder.writes:
        store.tidy()
    runtime.barrier()
    found, said = store.newest()
    if found is None:
        recorder.say("no complete checkpoint: starting again from the base model")
        recorder.drop_rows_after(-1, -1)
        return store, None
    for sentence in [*said, *store.check_identity(found, force=force)]:
        recorder.say(sentence, "warning")
    recorder.say(f"resumed at step {found.step}")
    recorder.drop_rows_after(found.step, found.fit(FitState).evaluated_step)
    if recorder.writes:
        store.remove_after(found.step)
    runtime.barrier()
    return store, found


# ---- the end ----


def keep_best(recipe: Recipe, trained: Trained, state: FitState, store: CheckpointStore) -> int:
    """Put the kept checkpoint's weights in the model; returns its step."""
    if recipe.evaluation.keep == "last" or state.best_step in (None, state.step):
        return state.step
    assert state.best_step is not None
    load_trainable(trained.model, store.load(state.best_step).weights())
    return state.best_step


def save(recipe: Recipe, task: Task, base: Base, trained: Trained, tokens: Tokenized, recorder: Recorder) -> int:
    """The final model, reloaded and compared before anyone trusts it; returns its bytes."""
    from tunewright.models.saving import save_model, verify_saved

    if not recorder.writes:
        return 0
    assert isinstance(recipe.data.max_length, int)
    texts = tokens.validation
    texts = texts.each_text() if isinstance(texts, ComparisonDataset) else texts
    probe = [texts.tokens(i).tolist() for i in range(min(4, len(texts)))]
    if base.untrained:
        recorder.write_tensors("untrained.safetensors", base.untrained)

    give_back()  # what training held, before a second model is read

    def check(written: Path) -> None:
        task.put_beside(written, recipe)
        verify_saved(trained.forward, written, probe)

    saved = save_model(
        trained.model,
        base.loaded.tokenizer,
        recorder.folder / "model",
        base=base.source,
        labels=base.loaded.labels,
        max_length=recipe.data.max_length,
        truncate=recipe.data.truncate,
        check=check,
    )
    return saved.bytes
