"""The judge of a run: scores the model before, at each evaluation and at the end, and writes down what it saw.

Handed to the loop as its `evaluate`; the loop knows nothing else of it. How a model is scored, the task's scorer knows.
Decides nothing about learning.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tunewright.errors import StoppedError
from tunewright.evaluation.evaluate import overfitting_words
from tunewright.learning.clock import Clock
from tunewright.learning.loop import FitPlan, FitState
from tunewright.progress import Evaluated, Phase, Stepped
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, read_jsonl
from tunewright.runtime import Runtime, memory_in_use
from tunewright.tasks.task import Scorer

QUIET_SECONDS = 0.2  # between two Stepped events


class Judge:
    """Scores, samples and the words of the progress, for one run."""

    def __init__(
        self,
        recipe: Recipe,
        scorer: Scorer,
        plan: FitPlan,
        recorder: Recorder,
    ) -> None:
        self.recipe, self.scorer, self.plan, self.recorder = recipe, scorer, plan, recorder
        self.clock = Clock()
        self.last_row = self.last_shown = time.perf_counter()
        self.last_evaluation_seconds = 0.0
        self.loss_shown: list[float] = []

    # ---- what the loop calls ----

    def evaluate(self, step: int, epoch: float) -> dict[str, float]:
        """Metrics of the validation rows now, named validation/…"""
        begin = time.perf_counter()
        self.recorder.tell(Phase("scoring the untrained model" if step == 0 else "evaluating"))
        scored = self.scorer.score(first=step == 0)
        if step == 0:
            self.scorer.keep("before")
        self.recorder.samples(self._samples(step, epoch))
        self.last_evaluation_seconds = time.perf_counter() - begin
        return {f"validation/{name}": value for name, value in scored.items()}

    def evaluated(self, row: dict[str, float], best: bool) -> None:
        """Write the row and tell the listener; keep the answers of the model that may become the final one."""
        if best or self.recipe.evaluation.keep == "last":
            self.scorer.keep("validation")
        self.recorder.metrics(row)
        now = time.perf_counter()
        self.recorder.tell(Evaluated(int(row["step"]), row["epoch"], row, self.plan.metric, best, now - self.last_row))
        self.last_row = now
        self.clock.restart()

    def log(self, row: dict[str, float]) -> None:
        """Write a row of the training curve."""
        self.recorder.metrics({**row, "train/tokens_per_second": round(self.clock.tokens_per_second, 1)})

    def stepped(self, state: FitState, loss: float, tokens: int) -> None:
        """Count a step; show it if the last one shown is a while ago."""
        self.clock.step(tokens)
        self.loss_shown.append(loss)
        now = time.perf_counter()
        if now - self.last_shown < QUIET_SECONDS and state.step < self.plan.total_steps:
            return
        self.last_shown = now
        self.recorder.tell(
            Stepped(
                state.step,
                self.plan.total_steps,
                state.step / self.plan.steps_per_epoch,
                float(np.mean(self.loss_shown)),
                self.clock.tokens_per_second,
                memory_in_use(),
                self._seconds_left(state),
            )
        )
        self.loss_shown = []

    def _seconds_left(self, state: FitState) -> float:
        steps = self.plan.total_steps - state.step
        tokens = steps * state.tokens / max(state.step, 1)
        evaluations = -(-self.plan.total_steps // self.plan.evaluate_every) - state.step // self.plan.evaluate_every
        return tokens * self.clock.seconds_per_token + evaluations * self.last_evaluation_seconds

    # ---- the end ----

    def finish(self, step: int) -> dict[str, Any]:
        """Judge the final model: files of the folder, and the fields of run.json."""
        samples = self._samples(step, step / self.plan.steps_per_epoch)
        self.recorder.samples([{**row, "final": True} for row in samples])
        found = self.scorer.finish()
        rows = [r for r in read_jsonl(self.recorder.folder / "metrics.jsonl") if self.plan.metric in r]
        return {"best": self._best(rows, step), **found, "overfitting": overfitting_words(rows)}

    def _best(self, rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
        value = next((r[self.plan.metric] for r in rows if r["step"] == step), None)
        epoch = step / self.plan.steps_per_epoch
        return {"step": step, "epoch": round(epoch, 6), "metric": self.plan.metric, "value": value}

    def _samples(self, step: int, epoch: float) -> list[dict[str, Any]]:
        return [{"step": step, "epoch": round(epoch, 6), **row} for row in self.scorer.samples()]


def stopping(stop_signal: Callable[[], int], runtime: Runtime) -> Callable[[], None]:
    """What an evaluation calls before each batch. Raises StoppedError when asked to stop."""

    def stop_if_asked() -> None:
        # Ranks may hear a signal at different times; with several, only the loop's own exchange decides.
        number = stop_signal() if runtime.world_size == 1 else 0
        if number:
            raise StoppedError("stopped during an evaluation; continue with --resume", signal_number=number)

    return stop_if_asked
