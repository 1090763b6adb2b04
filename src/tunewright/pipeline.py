"""The flow of a run, one call per arrow; what each arrow does is in its own place.

    recipe -> data -> base model -> decisions -> tokens -> trainable -> plan
           -> [boundary cache] -> learn -> model -> report

`stages` holds the arrows that take more than a line, `judging` the scores; this file says the order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import costing, describing, judging, opening, stages
from tunewright.data.preparing import Tokenized
from tunewright.learning.checkpoints import Checkpoint
from tunewright.learning.loop import FitPlan, Hooks
from tunewright.models.shared_boundary import SharedCaches
from tunewright.progress import Finished, Listener, Phase, silent
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, Stopwatch, now
from tunewright.runs import Run
from tunewright.runtime import Runtime, peak_memory, started
from tunewright.tasks.task import Task


def fine_tune(
    recipe: Recipe | None,
    *,
    data: Any = None,
    validation: Any = None,
    runs: Path = Path("runs"),
    resume: str | None = None,
    force: bool = False,
    listener: Listener = silent,
    shared: Path | None = None,
) -> Run:
    """Run a recipe from data to report and return the run.

    `data` and `validation` are Python objects that stand for the recipe's files. `resume` names a run to continue; it
    keeps the recipe it began with; `force` continues it on other versions, threads or device. `shared`: a folder in
    which runs on the same base and rows keep what the frozen layers give. Raises the errors of `tunewright.errors`;
    StoppedError when asked to stop, after a checkpoint was saved.
    """
    watch = Stopwatch()
    recorder, recipe, resuming = opening.open_run(recipe, runs, resume, listener, force=force)
    t = recipe.training
    with recorder.recording(), opening.signals() as stop_signal, started(t.device, t.precision, t.threads) as runtime:
        recorder.state("preparing", "reading the data")
        ready = prepared(recipe, data, validation, runs, runtime, recorder)
        task, base, resolved = ready.task, ready.base, ready.recipe
        tokens, trained, plan = ready.tokens, ready.trained, ready.plan
        _announce(ready, runtime, recorder)

        kept = SharedCaches(shared, base.fingerprint) if shared else None
        caches = stages.build_caches(trained, tokens, runtime, recorder, kept)
        if kept:
            recorder.update(frozen_seconds=kept.seconds)
        parts = stages.scoring(
            resolved, tokens, base, trained, caches, runtime, recorder, judging.stopping(stop_signal, runtime)
        )
        scorer = task.scorer(parts)
        judge = judging.Judge(resolved, scorer, plan, recorder)
        store, checkpoint = stages.checkpoints(resolved, task, base, caches, runtime, recorder, resuming, force)
        recorder.state("running", "training")
        hooks = Hooks(judge.log, judge.evaluate, judge.evaluated, judge.stepped, recorder.say, stop_signal)
        lesson = stages.lesson(
            resolved, tokens, base, trained, scorer, caches, plan, store, hooks, runtime, recorder, checkpoint
        )
        with watch.timing("fit"):
            state = task.learn(lesson)

        stop_signal.at_once()
        recorder.state("saving", "saving the model")
        step = stages.keep_best(resolved, trained, state, store)
        saved_bytes = stages.save(resolved, task, base, trained, tokens, recorder)
        stop_signal.at_once()
        recorder.state("evaluating", "judging the final model")
        recorder.update(
            **judge.finish(step), **_spent(watch, state.tokens, checkpoint, recorder), **_size(recorder, saved_bytes)
        )
        _finish(recorder, caches, runtime)
    run = Run(recorder.folder)
    recorder.tell(Finished(recorder.folder, recorder.summary))
    return run


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first step."""

    task: Task
    base: stages.Base
    recipe: Recipe  # nothing left to decide
    origins: dict[str, str]  # path -> given, default, auto: why
    tokens: Tokenized
    trained: stages.Trained
    plan: FitPlan


def prepared(recipe: Recipe, data: Any, validation: Any, runs: Path, runtime: Runtime, recorder: Recorder) -> Prepared:
    """The arrows up to the first step, the same for a run and for `plan`."""
    task = stages.read_data(recipe, data, validation, runs, recorder)
    base = stages.load_base(recipe, task, runs, recorder)
    resolved, origins = stages.resolve(recipe, task, base)
    tokens = stages.tokenize(resolved, task, base, runtime, recorder)
    trained = stages.choose_trainable(resolved, task, tokens, base, runtime, recorder)
    plan = stages.plan(resolved, task, tokens, trained, runtime, recorder)
    return Prepared(task, base, resolved, origins, tokens, trained, plan)


def _announce(ready: Prepared, runtime: Runtime, recorder: Recorder) -> None:
    """What was decided and what it will cost: in the run's folder, and to whoever watches. MachineError: won't fit."""
    task, base, resolved, plan = ready.task, ready.base, ready.recipe, ready.plan
    tokens, trained = ready.tokens, ready.trained
    if not (recorder.folder / "recipe.resolved.yaml").exists():
        text = describing.resolved_text(resolved, ready.origins, plan.micro_batch_tokens, runtime)
        recorder.write("recipe.resolved.yaml", text)
    recorder.write("environment.json", json.dumps(describing.environment(runtime), indent=1))
    recorder.update(**describing.facts(resolved, task, tokens, base, trained, plan))
    cost = costing.in_short(costing.priced(resolved, base, tokens, trained, plan, runtime, recorder))
    recorder.tell(describing.header(resolved, task, tokens, base, trained, plan, runtime, recorder.folder, cost))


def _finish(recorder: Recorder, caches: stages.Caches, runtime: Runtime) -> None:
    """The report, then the word that all is well; the caches have served."""
    from tunewright.evaluation.report import write_report

    runtime.barrier()
    if recorder.writes:
        costing.compare_with_measured(recorder)
        caches.remove()
        recorder.tell(Phase("writing the report"))
        recorder.update(finished=now())
        write_report(recorder.folder)  # before the word: whatever has succeeded has a report
        recorder.update(state="succeeded")
        recorder.event("state", "succeeded")


def _spent(watch: Stopwatch, tokens: int, checkpoint: Checkpoint | None, recorder: Recorder) -> dict[str, Any]:
    """Seconds of the whole run; speed, training seconds and memory of this process, which may have resumed it."""
    begun = checkpoint.state["fit"]["tokens"] if checkpoint else 0
    return {
        "seconds": recorder.seconds,
        "train_seconds": round(watch.spent["fit"], 3),
        "train_tokens_seen": tokens,
        "tokens_per_second": round((tokens - begun) / watch.spent["fit"], 1),
        "peak_memory_bytes": peak_memory(),
    }


def _size(recorder: Recorder, saved_bytes: int) -> dict[str, Any]:
    return {"model": {**recorder.summary["model"], "saved_bytes": saved_bytes}}
