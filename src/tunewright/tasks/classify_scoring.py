"""Scores of a classifier during and after a run: logits of the validation rows, and the words for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tunewright.data.examples import Row
from tunewright.data.preparing import ReadData
from tunewright.data.tokenizing import encode_texts
from tunewright.evaluation.evaluate import Judgement, compare_rows, judge
from tunewright.evaluation.metrics import majority_baseline, metrics, probabilities, row_losses
from tunewright.models.inference import predict_logits
from tunewright.tasks.retaining import Retaining
from tunewright.tasks.task import ScoringParts


class ClassifyScorer:
    """The `Scorer` of task classify."""

    def __init__(self, data: ReadData, parts: ScoringParts) -> None:
        self.data, self.parts = data, parts
        recipe = parts.recipe
        assert isinstance(recipe.data.max_length, int)
        self.prompts = list(recipe.evaluation.prompts)
        self.prompt_ids = encode_texts(self.prompts, parts.tokenizer, recipe.data.max_length, recipe.data.truncate)
        self.retaining = Retaining(parts)
        self.logits: np.ndarray | None = None  # of the latest evaluation

    def score(self, first: bool) -> dict[str, float]:
        """Metrics of the validation rows now."""
        if first:
            self.retaining.remember()
        part = self.parts.tokens.validation
        self.logits = predict_logits(
            self.parts.forward,
            [part.tokens(i) for i in range(len(part))],
            cache=self.parts.cache,
            runtime=self.parts.runtime,
            before_batch=self.parts.stop_if_asked,
        )
        return metrics(self.logits, part.labels, self.data.labels.kind)

    def keep(self, name: str) -> None:
        """Logits survive a kill: the final table needs those of the best step and of the untrained model."""
        assert self.logits is not None
        tensors = {"logits": torch.from_numpy(self.logits)}
        self.parts.recorder.write_tensors(f"predictions/{name}-logits.safetensors", tensors)

    def samples(self) -> list[dict[str, Any]]:
        if not self.prompts:
            return []
        logits = predict_logits(self.parts.forward, self.prompt_ids, runtime=self.parts.runtime)
        return [
            {"prompt_id": i, "prompt": prompt, **self._answer(row)}
            for i, (prompt, row) in enumerate(zip(self.prompts, logits, strict=True))
        ]

    def finish(self) -> dict[str, Any]:
        after, before = self._kept("validation"), self._kept("before")
        tokens, recipe = self.parts.tokens, self.parts.recipe
        labels, kind = tokens.validation.labels, self.data.labels.kind
        judgement = judge(
            after,
            labels,
            self.data.labels,
            bootstrap_samples=recipe.evaluation.bootstrap_samples,
            seed=recipe.training.seed,
        )
        recorder = self.parts.recorder
        recorder.write("evaluation.json", json.dumps(judgement.to_json(), ensure_ascii=False))
        recorder.write_rows("predictions/validation.jsonl", self._predictions(after, before))
        return {
            "metrics": judgement.metrics,
            "intervals": {name: [i.low, i.high] for name, i in judgement.intervals.items()},
            "baseline": majority_baseline(tokens.train.labels, labels, kind),
            "comparison": self._comparison(before, after, judgement),
            "forgetting": self.retaining.forgotten(),
        }

    # ---- parts ----

    def _comparison(self, before: np.ndarray | None, after: np.ndarray, judgement: Judgement) -> dict[str, Any] | None:
        if before is None:
            return None
        labels, kind = self.parts.tokens.validation.labels, self.data.labels.kind
        paired = compare_rows(before, after, labels, kind)
        return {
            "before": metrics(before, labels, kind),
            "after": judgement.metrics,
            "fixed": paired.fixed,
            "broke": paired.broke,
            "p_value": paired.p_value,
        }

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
        part = self.parts.tokens.validation
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
            "label": self._label(self.parts.tokens.validation.labels[i]),
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

    def _kept(self, name: str) -> Any:
        path = self._path(name)
        return load_file(path)["logits"].numpy() if path.exists() else None

    def _path(self, name: str) -> Path:
        return self.parts.recorder.folder / "predictions" / f"{name}-logits.safetensors"
