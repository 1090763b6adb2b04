"""What this run will cost on this machine: reads the numbers off model, tokens and plan; `planning` adds them up.

Called by the pipeline once all is decided, and by `planned` for `tunewright plan`. Refuses what won't fit, with what to
change; at the end says how far the estimate was from what was measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tunewright.data.preparing import Tokenized
from tunewright.errors import MachineError
from tunewright.evaluation.wording import bytes_size as size
from tunewright.evaluation.wording import duration
from tunewright.learning.loop import FitPlan
from tunewright.models.boundary import size_bytes
from tunewright.models.inference import MAX_TOKENS
from tunewright.planning.components import Holdings, memory_by_component, what_would_fit
from tunewright.planning.counting import count
from tunewright.planning.disk import estimate_disk
from tunewright.planning.estimate import Estimate, Part
from tunewright.planning.machine import gemm_rate, memory_bandwidth
from tunewright.planning.memory import bytes_per_token, memory_free, memory_held
from tunewright.planning.probe import Steps, choose_steps, probe
from tunewright.planning.time import BF16_SHARE, WRITING, Answers, Course, Practice, Speeds, estimate_time
from tunewright.recipe import Recipe
from tunewright.recording import Recorder
from tunewright.runtime import Runtime, give_back, peak_memory
from tunewright.stages import CACHE_SHARE, Base, Trained
from tunewright.tasks.task import FIRST_ROWS

SHORT_RUN = 60.0  # seconds that nobody needs to know better
PROBE_SHARE = 0.05  # of the run that a probe in `train` may take
FEW_PARAMETERS = 5_000_000  # below this, moving them costs nothing worth measuring
USUAL_BANDWIDTH = 20e9


@dataclass(frozen=True)
class Costs:
    """The estimate, and what it was computed from."""

    estimate: Estimate
    holdings: Holdings


def estimated(
    recipe: Recipe,
    base: Base,
    tokens: Tokenized,
    trained: Trained,
    plan: FitPlan,
    runtime: Runtime,
    folder: Path,
    *,
    passed: Callable[[], float],
    probing: Literal["always", "worthwhile", "never"] = "worthwhile",
    writing: float | None = None,
) -> Costs:
    """Memory, time and disk. `passed` gives the seconds since the run began; `folder` is where it will write."""
    lengths = tokens.train.lengths
    k, cache = _boundary(trained, tokens, folder)
    course = _course(recipe, trained, base, tokens, plan, k)
    speeds = _speeds(course, runtime, writing)
    steps = choose_steps(lengths, tokens.validation.lengths, plan.batch_size, plan.seed)
    holdings = _holdings(trained, tokens, plan, steps, k, cache, runtime)
    arithmetic = estimate_time(course, speeds, None, Part("start-up", passed(), "measured"))
    worthwhile = _worthwhile(course, steps, arithmetic.seconds, runtime)
    found, start = None, passed()
    if memory_by_component(holdings, None).fits and (probing == "always" or (probing == "worthwhile" and worthwhile)):
        found = probe(
            trained.forward, trained.objective, tokens.train, tokens.validation, steps, k, plan.micro_batch_tokens,
            runtime,
        )  # fmt: skip
        start = passed() if worthwhile else start  # `train` probes, and so takes that long, only where it is worthwhile
    spent = estimate_time(course, speeds, found, Part("start-up", start, "measured"))
    estimate = Estimate(
        memory_by_component(holdings, found),
        spent,
        _disk(recipe, tokens, course, cache, folder),
        found is not None,
        course.training_flops,
        speeds.gemm,
    )
    return Costs(estimate, holdings)


def _course(recipe: Recipe, trained: Trained, base: Base, tokens: Tokenized, plan: FitPlan, k: int) -> Course:
    train = tokens.train
    weights, adapters, _ = _model_bytes(trained.model)
    full = recipe.trainable.method == "full"
    return Course(
        plan=plan,
        works=count(trained.forward, trained.objective, train, train.lengths, k),
        train_lengths=train.lengths,
        validation_lengths=tokens.validation.lengths,
        trainable=trained.report.trainable,
        model_bytes=weights + adapters,
        saved_bytes=weights if full else 4 * trained.report.trainable,
        cached=k > 0,
        bootstrap_samples=recipe.evaluation.bootstrap_samples,
        answers=_answers(recipe, tokens),
        practice=_practice(recipe, tokens, plan),
    )


def _answers(recipe: Recipe, tokens: Tokenized) -> Answers | None:
    """Rows answered and prompts shown at each evaluation; their prompts are taken to be like all others."""
    new, rows = recipe.evaluation.max_new_tokens, recipe.evaluation.generate_rows
    if not isinstance(new, int):
        return None
    shown = len(recipe.evaluation.prompts) or FIRST_ROWS
    number = min(rows if isinstance(rows, int) else 0, len(tokens.validation)) + shown
    return Answers(np.resize(tokens.validation.lengths, number), new)


def _practice(recipe: Recipe, tokens: Tokenized, plan: FitPlan) -> Practice | None:
    """What is sampled in an iteration, where completions are."""
    new = recipe.evaluation.max_new_tokens
    if not (recipe.samples_completions and isinstance(new, int)):
        return None
    texts = recipe.align.group_size if recipe.align.method == "grpo" else 1
    lengths = np.resize(tokens.train.lengths - new, recipe.rows_per_iteration * texts)
    iterations = plan.total_steps // recipe.updates_per_iteration
    return Practice(Answers(lengths, new), iterations, texts, recipe.align.ppo_epochs)


def _speeds(course: Course, runtime: Runtime, writing: float | None) -> Speeds:
    many = course.trainable > FEW_PARAMETERS or course.answers is not None
    bandwidth = memory_bandwidth(runtime.device) if many else USUAL_BANDWIDTH
    share = BF16_SHARE if runtime.device == "cpu" and runtime.precision == "bf16" else 1.0
    rate = gemm_rate(runtime.device, runtime.precision)
    return Speeds(rate, bandwidth, WRITING if writing is None else writing, share)


def _holdings(
    trained: Trained, tokens: Tokenized, plan: FitPlan, steps: Steps, k: int, cache: int, runtime: Runtime
) -> Holdings:
    lengths, held_out = tokens.train.lengths, tokens.validation.lengths
    longest = int(lengths.max())
    weights, adapters, embeddings = _model_bytes(trained.model)
    per_token = bytes_per_token(trained.forward, trained.objective, tokens.train, lengths, k)
    give_back()  # what counting freed is no part of what the process needs
    return Holdings(
        held_bytes=memory_held(runtime.device),
        peak_so_far=peak_memory(),
        free_bytes=memory_free(runtime.device),
        weights=weights,
        embeddings=embeddings,
        adapters=adapters,
        trainable=trained.report.trainable,
        per_token=per_token,
        tokens=min(max(plan.micro_batch_tokens, longest), steps.longest_step),
        scoring_tokens=int(min(max(MAX_TOKENS, held_out.max()), held_out.sum())),
        width=int(trained.forward.config.hidden_size),
        cache_bytes=cache,
        longest=longest,
        on_cpu=runtime.device == "cpu",
    )


def _model_bytes(model: Any) -> tuple[int, int, int]:
    """Bytes of base and head, of adapters, and of the input embeddings."""
    named = dict(model.named_parameters())
    adapters = sum(p.nbytes for name, p in named.items() if ".lora_" in name)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    embeddings = sum(p.nbytes for p in inner.get_input_embeddings().parameters())
    return sum(p.nbytes for p in named.values()) - adapters, adapters, embeddings


def _boundary(trained: Trained, tokens: Tokenized, folder: Path) -> tuple[int, int]:
    """Layers that run once, and the bytes of their cache; none where `stages.build_caches` would build none."""
    k = trained.cached_layers
    if not k:
        return 0, 0
    need = sum(size_bytes(trained.forward, part.lengths, k) for part in (tokens.train, tokens.validation))
    return (k, need) if need <= _free_disk(folder) * CACHE_SHARE else (0, 0)


def _disk(recipe: Recipe, tokens: Tokenized, course: Course, cache: int, folder: Path) -> Any:
    parts = (tokens.train, tokens.validation)
    return estimate_disk(
        trainable=course.trainable,
        keep_checkpoints=recipe.training.keep_checkpoints,
        num_checkpoints=course.num_checkpoints,
        saved_bytes=course.saved_bytes,
        cache_bytes=cache,
        token_bytes=4 * sum(part.num_tokens for part in parts),
        validation_tokens=tokens.validation.num_tokens,
        validation_rows=len(tokens.validation),
        free_bytes=_free_disk(folder),
    )


def _free_disk(folder: Path) -> int:
    """Where a folder lies that may not exist yet."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def _worthwhile(course: Course, steps: Steps, seconds: float, runtime: Runtime) -> bool:
    """Whether a probe costs less than its share of the run, by arithmetic. Ranks must agree, so several never probe."""
    trained = [course.train_lengths[indices] for indices in steps.training]
    scored = [course.validation_lengths[indices] for indices in (steps.scoring[-1], *steps.scoring)]
    share = sum(course.works.training.flops(n) for n in trained) + sum(course.works.scoring.flops(n) for n in scored)
    times = course.num_evaluations + course.plan.evaluate_before
    whole = course.training_flops + times * course.works.scoring.flops(course.validation_lengths)
    return runtime.world_size == 1 and seconds > SHORT_RUN and share < PROBE_SHARE * whole


def priced(
    recipe: Recipe, base: Base, tokens: Tokenized, trained: Trained, plan: FitPlan, runtime: Runtime, recorder: Recorder
) -> Estimate:
    """The estimate of a run that begins, in its run.json. Raises MachineError where it won't fit."""
    resumed = bool(recorder.summary.get("resumed"))
    costs = estimated(
        recipe, base, tokens, trained, plan, runtime, recorder.folder,
        passed=lambda: recorder.seconds, probing="never" if resumed else "worthwhile",
    )  # fmt: skip
    refuse_what_does_not_fit(costs, recipe, trained.forward.num_layers)
    if not resumed:  # the estimate that the whole run is measured against is the first one
        recorder.update(estimate=costs.estimate.to_json())
    return costs.estimate


def in_short(estimate: Estimate) -> str:
    """One line for the header."""
    how = "measured on three steps" if estimate.probed else "by arithmetic"
    return (
        f"about {duration(estimate.time.seconds)} · {size(estimate.memory.peak_bytes)} of memory · "
        f"{size(estimate.disk.need_bytes)} of disk · {how}"
    )


# ---- what to do about it ----


def refuse_what_does_not_fit(costs: Costs, recipe: Recipe, num_layers: int) -> None:
    """Raises MachineError with the mildest change that makes it fit."""
    memory, disk = costs.estimate.memory, costs.estimate.disk
    if not memory.fits:
        raise MachineError(
            f"this run needs {size(memory.need_bytes)} of memory ({memory.moment}), and {size(memory.free_bytes)} are "
            f"free beside the {size(memory.held_bytes)} it holds; {_advice(costs, recipe, num_layers)}",
            field="training.micro_batch_tokens",
        )
    if not disk.fits:
        largest = max(disk.parts, key=lambda part: part.amount)
        raise MachineError(
            f"this run writes {size(disk.need_bytes)}, and {size(disk.free_bytes)} are free (the most for "
            f"{largest.name}: {size(largest.amount)}); make room, or choose another folder with --runs"
        )


def _advice(costs: Costs, recipe: Recipe, num_layers: int) -> str:
    change = what_would_fit(
        costs.holdings, method=recipe.trainable.method, layers_share=1 / max(num_layers, 1) if num_layers else 1.0
    )
    if change is None:
        return "no setting makes it fit: choose a smaller model, or free memory"
    settings = " ".join(f"-s '{s}'" if " " in s else f"-s {s}" for s in change.settings)
    return f"with {settings} it needs {size(change.need_bytes)}"


# ---- afterwards ----


def compare_with_measured(recorder: Recorder) -> None:
    """Estimate against measured, in run.json and in a sentence; an interrupted run was measured in part only."""
    summary = recorder.summary
    estimate, peak, seconds = (summary.get(name) for name in ("estimate", "peak_memory_bytes", "seconds"))
    if not (estimate and peak and seconds) or summary.get("resumed"):
        return
    expected = estimate["time"]["seconds"]
    measured = {"seconds": seconds, "seconds_error": round(expected / seconds - 1, 4)}
    said = f"time {duration(expected)}, took {duration(seconds)} ({expected / seconds - 1:+.0%})"
    # A process that was larger before this run says nothing of it.
    if estimate["memory"]["moment"] != "before":
        most = estimate["memory"]["peak_bytes"]
        measured |= {"peak_bytes": peak, "memory_error": round(most / peak - 1, 4)}
        said += f"; memory {size(most)}, took {size(peak)} ({most / peak - 1:+.0%})"
    recorder.update(estimate={**estimate, "measured": measured})
    recorder.say(f"estimated {said}")
