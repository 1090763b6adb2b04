"""The judge of a run: scores the model before, at each evaluation and at the end, and writes down what it saw.

Handed to the loop as its `evaluate`; the loop knows nothing else of it. Decides nothing about learning.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.examples import Row
from tunewright.data.preparing import ReadData, Tokenized
from tunewright.data.tokenizing import encode_texts
from tunewright.errors import StoppedError
from tunewright.evaluation.evaluate import Judgement, compare_rows, judge, overfitting_words
from tunewright.evaluation.metrics import majority_baseline, metrics, probabilities, row_losses
from tunewright.learning.clock import Clock
from tunewright.learning.loop import FitPlan, FitState
from tunewright.models.boundary import BoundaryCache
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.progress import Evaluated, Phase, Stepped
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, read_jsonl
from tunewright.runtime import Runtime, memory_in_use

QUIET_SECONDS = 0.2  # between two Stepped events


class Judge:
    """Scores, samples and the words of the progress, for one run."""

    def __init__(
        self,
        recipe: Recipe,
        data: ReadData,
        tokens: Tokenized,
        tokenizer: Any,
        forward: Forward,
        cache: BoundaryCache | None,
        plan: FitPlan,
        runtime: Runtime,
        recorder: Recorder,
        stop_signal: Callable[[], int],
    ) -> None:
        self.stop_signal = stop_signal
        self.recipe, self.data, self.tokens, self.forward, self.cache = recipe, data, tokens, forward, cache
        self.plan, self.runtime, self.recorder = plan, runtime, recorder
        assert isinstance(recipe.data.max_length, int)
        prompts = list(recipe.evaluation.prompts)
        self.prompt_ids = encode_texts(prompts, tokenizer, recipe.data.max_length, recipe.data.truncate)
        self.logits: np.ndarray | None = None  # of the latest evaluation
        self.clock = Clock()
        self.last_row = self.last_shown = time.perf_counter()
        self.last_evaluation_seconds = 0.0
        self.loss_shown: list[float] = []

    # ---- what the loop calls ----

    def evaluate(self, step: int, epoch: float) -> dict[str, float]:
        """Metrics of the validation rows now, named validation/…"""
        begin = time.perf_counter()
        self.recorder.tell(Phase("scoring the untrained model" if step == 0 else "evaluating"))
        self.logits = self._predict()
        if step == 0:
            self._keep("before", self.logits)
        self.recorder.samples(self._samples(step, epoch))
        scored = metrics(self.logits, self.tokens.validation.labels, self.data.labels.kind)
        self.last_evaluation_seconds = time.perf_counter() - begin
        return {f"validation/{name}": value for name, value in scored.items()}

    def evaluated(self, row: dict[str, float], best: bool) -> None:
        """Write the row and tell the listener; keep the logits of the model that may become the final one."""
        if best or self.recipe.evaluation.keep == "last":
            assert self.logits is not None
            self._keep("validation", self.logits)
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
        after = self._kept("validation")
        before = self._kept("before")
        labels, kind = self.tokens.validation.labels, self.data.labels.kind
        self.recorder.samples([{**row, "final": True} for row in self._samples(step, step / self.plan.steps_per_epoch)])
        judgement = judge(
            after,
            labels,
            self.data.labels,
            bootstrap_samples=self.recipe.evaluation.bootstrap_samples,
            seed=self.recipe.training.seed,
        )
        self.recorder.write("evaluation.json", json.dumps(judgement.to_json(), ensure_ascii=False))
        self.recorder.write_rows("predictions/validation.jsonl", self._predictions(after, before))
        rows = [r for r in read_jsonl(self.recorder.folder / "metrics.jsonl") if self.plan.metric in r]
        return {
            "best": self._best(rows, step),
            "metrics": judgement.metrics,
            "intervals": {name: [i.low, i.high] for name, i in judgement.intervals.items()},
            "baseline": majority_baseline(self.tokens.train.labels, labels, kind),
            "comparison": self._comparison(before, after, judgement),
            "overfitting": overfitting_words(rows),
        }

    def _best(self, rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
        value = next((r[self.plan.metric] for r in rows if r["step"] == step), None)
        epoch = step / self.plan.steps_per_epoch
        return {"step": step, "epoch": round(epoch, 6), "metric": self.plan.metric, "value": value}

    def _comparison(self, before: np.ndarray | None, after: np.ndarray, judgement: Judgement) -> dict[str, Any] | None:
        if before is None:
            return None
        labels, kind = self.tokens.validation.labels, self.data.labels.kind
        paired = compare_rows(before, after, labels, kind)
        return {
            "before": metrics(before, labels, kind),
            "after": judgement.metrics,
            "fixed": paired.fixed,
            "broke": paired.broke,
            "p_value": paired.p_value,
        }

    # ---- parts ----

    def _predict(self) -> np.ndarray:
        part = self.tokens.validation
        ids = [part.tokens(i) for i in range(len(part))]
        return predict_logits(
            self.forward, ids, cache=self.cache, runtime=self.runtime, before_batch=self._stop_if_asked
        )

    def _stop_if_asked(self) -> None:
        # Ranks may hear a signal at different times; with several, only the loop's own exchange decides.
        number = self.stop_signal() if self.runtime.world_size == 1 else 0
        if number:
            raise StoppedError("stopped during an evaluation; continue with --resume", signal_number=number)

    def _samples(self, step: int, epoch: float) -> list[dict[str, Any]]:
        prompts = self.recipe.evaluation.prompts
        if not prompts:
            return []
        logits = predict_logits(self.forward, self.prompt_ids, runtime=self.runtime)
        return [
            {"step": step, "epoch": round(epoch, 6), "prompt_id": i, "prompt": prompt, **self._answer(row)}
            for i, (prompt, row) in enumerate(zip(prompts, logits, strict=True))
        ]

    def _answer(self, logits: np.ndarray) -> dict[str, Any]:
        """`prediction` and `probabilities` of one row of logits."""
        spec = self.data.labels
        if spec.kind == "number":
            return {"prediction": float(logits[0]), "probabilities": {}}
        shares = probabilities(logits[None], spec.kind)[0]
        named = {name: round(float(p), 6) for name, p in zip(spec.names, shares, strict=True)}
        chosen = [n for n, p in named.items() if p >= 0.5] if spec.kind == "multi" else spec.names[int(shares.argmax())]
        return {"prediction": chosen, "probabilities": named}

    def _predictions(self, after: np.ndarray, before: np.ndarray | None) -> Iterator[dict[str, Any]]:
        """One row per validation example, in the order of the source."""
        part = self.tokens.validation
        losses = row_losses(after, part.labels, self.data.labels.kind)
        position = {int(row): i for i, row in enumerate(part.rows)}
        for row in self.data.validation_source.rows():
            if (i := position.get(row.number)) is not None:
                yield self._prediction(row, i, after, before, float(losses[i]))

    def _prediction(
        self, row: Row, i: int, after: np.ndarray, before: np.ndarray | None, loss: float
    ) -> dict[str, Any]:
        return {
            "row": row.where,
            "text": row.values[self.data.columns.text],
            "label": self._label(self.tokens.validation.labels[i]),
            **self._answer(after[i]),
            "loss": round(loss, 6),
            "before": self._answer(before[i])["prediction"] if before is not None else None,
        }

    def _label(self, value: Any) -> str | float | list[str]:
        spec = self.data.labels
        if spec.kind == "number":
            return float(value)
        if spec.kind == "multi":
            return [name for name, there in zip(spec.names, value, strict=True) if there]
        return spec.names[int(value)]

    def _keep(self, name: str, logits: np.ndarray) -> None:
        """Logits survive a kill: the final table needs those of the best step and of the untrained model."""
        self.recorder.write_tensors(f"predictions/{name}-logits.safetensors", {"logits": torch.from_numpy(logits)})

    def _kept(self, name: str) -> Any:
        path = self._path(name)
        return load_file(path)["logits"].numpy() if path.exists() else None

    def _path(self, name: str) -> Path:
        return self.recorder.folder / "predictions" / f"{name}-logits.safetensors"
