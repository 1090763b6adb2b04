"""Run folders as a finished run leaves them, without a model: the contract's files with plausible values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.evaluation import metrics as m
from tunewright.evaluation.evaluate import compare_rows, judge, overfitting_words

PROMPTS = (
    "It was good.",
    "Not a fan, don't recommed.",
    "Better than the first one.",
    "This is not worth watching even once.",
    "This one is a pass.",
)
REVIEWS = (
    "A warm, funny film that earns every one of its tears; I would see it again tomorrow.",
    "Two hours of people shouting in the rain. The plot could be written on a ticket stub, and the ticket was dearer.",
    "I expected nothing and got less, yet somehow I smiled through the last twenty minutes of it.",
    "The camera loves her, the script does not. Still: that final scene on the pier is worth the wait.",
    'Not <b>bad</b> at all. <script>document.title = "owned"</script> & nothing "special" either.',
)
RECIPE = """\
task: classify
model: minilm  # given
data:
  train: reviews.jsonl  # given
  validation: 0.1  # default
  max_length: 128  # auto: 95 of 100 texts need at most 118 tokens
trainable:
  method: lora  # default
  rank: {rank}  # auto: 8 for fewer than 20,000 rows
training:
  epochs: 4  # auto: 1,000 rows
  learning_rate: 0.0005  # auto: lora
  seed: 42  # default
"""


@dataclass(frozen=True)
class Spec:
    kind: m.Kind
    names: tuple[str, ...] = ()


def make_run(
    folder: Path,
    *,
    kind: m.Kind = "single",
    names: tuple[str, ...] = ("negative", "positive"),
    rows: int = 240,
    skill: float = 2.4,
    rank: int = 8,
    seed: int = 0,
) -> Path:
    """Write a whole run folder and return it."""
    spec = Spec(kind, () if kind == "number" else names)
    labels, before, after = _world(spec, rows, skill, seed)
    judgement = judge(after, labels, spec, bootstrap_samples=300, seed=1).to_json()
    (folder / "predictions").mkdir(parents=True)
    log = _log(m.metrics(before, labels, kind), judgement["metrics"])
    write_json(folder / "evaluation.json", judgement)
    write_json(folder / "run.json", _summary(folder.name, spec, labels, before, after, judgement, log))
    environment = {"python": "3.11.9", "packages": {"torch": "2.13.0", "peft": "0.21.2"}, "device": "cpu, 2 threads"}
    write_json(folder / "environment.json", environment)
    write_lines(folder / "metrics.jsonl", log)
    write_lines(folder / "samples.jsonl", _samples(spec, seed))
    write_lines(folder / "events.jsonl", [{"level": "info", "event": "state", "message": "running"}])
    write_lines(folder / "predictions" / "validation.jsonl", _predictions(spec, labels, before, after))
    (folder / "recipe.resolved.yaml").write_text(RECIPE.format(rank=rank), encoding="utf-8")
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _world(spec: Spec, n: int, skill: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and logits before and after training. The labels don't depend on the seed: runs share their rows."""
    rows, rng = np.random.default_rng(99), np.random.default_rng(seed)
    if spec.kind == "number":
        labels = rows.normal(3, 1, n)
        return labels, rng.normal(size=(n, 1)), (labels + rng.normal(0, 1 / skill, n))[:, None]
    classes = len(spec.names)
    truth = rows.integers(0, classes, n)
    hot = np.eye(classes)[truth]
    if spec.kind == "multi":
        hot = np.maximum(hot, rows.random((n, classes)) < 0.2)
    after = rng.normal(size=(n, classes)) + skill * hot - skill * (0.5 if spec.kind == "multi" else 0)
    return truth if spec.kind == "single" else hot, 0.05 * rng.normal(size=(n, classes)), after


def _log(before: dict[str, float], after: dict[str, float]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = [{"step": 0, "epoch": 0.0} | {f"validation/{k}": v for k, v in before.items()}]
    start, end = before["loss"], after["loss"]
    for step in range(5, 401, 5):
        train = end * 0.4 + (start - end * 0.4) * np.exp(-step / 110) + 0.03 * rng.normal() * start
        rows.append({"step": step, "epoch": step / 100, "train/loss": train, "train/learning_rate": 5e-4})
        if step % 100 == 0:
            epoch = step // 100
            loss = {1: 0.5 * (start + end), 2: end, 3: 1.08 * end, 4: 1.21 * end}[epoch]
            # Numbers keep their best values in epoch 2, as the others do.
            drift = {1: 0.9, 2: 1.0, 3: 0.995, 4: 0.985}[epoch]
            near = {k: v * drift if m.HIGHER_IS_BETTER[k] else v / drift for k, v in after.items()} | {"loss": loss}
            rows.append(
                {"step": step, "epoch": float(epoch), "train/loss": train}
                | {f"validation/{k}": v for k, v in near.items()}
            )
    return rows


def _summary(
    name: str,
    spec: Spec,
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    judgement: dict[str, Any],
    log: list[dict[str, Any]],
) -> dict[str, Any]:
    paired = compare_rows(before, after, labels, spec.kind)
    metric = m.default_metric(spec.kind)
    counts = {label: int(n) for label, n in zip(spec.names, _support(spec, labels), strict=True)}
    return {
        "id": name,
        "name": "reviews",
        "state": "succeeded",
        "task": "classify",
        "error": None,
        "created": "2026-11-23T14:12:09Z",
        "seconds": 222.4,
        "model": {
            "name": "minilm",
            "hub_id": "sentence-transformers/all-MiniLM-L6-v2",
            "model_type": "bert",
            "method": "lora",
            "parameters": 22_861_442,
            "trainable": 594_436,
            "trainable_fraction": 0.026,
            "base_bytes": 90_868_376,
            "saved_bytes": 2_391_004,
        },
        "data": {
            "train": "reviews.jsonl",
            "validation": "0.1 of train",
            "train_rows": 9 * len(labels),
            "validation_rows": len(labels),
            "train_tokens": 281_904,
            "validation_tokens": 31_120,
            "truncated_rows": 12,
            "truncated_tokens": 801,
            "max_length": 128,
            "truncate": "left",
            "labels": list(spec.names),
            "kind": spec.kind,
            "text_column": "review",
            "label_column": "label",
            "label_counts": {label: 9 * n + 31 for label, n in counts.items()},
        },
        "steps": 400,
        "epochs": 4,
        "best": {"step": 200, "epoch": 2.0, "metric": metric, "value": judgement["metrics"][metric]},
        "metrics": judgement["metrics"],
        "baseline": m.majority_baseline(labels, labels, spec.kind),
        "intervals": judgement["intervals"],
        "comparison": {
            "before": m.metrics(before, labels, spec.kind),
            "after": judgement["metrics"],
            "fixed": paired.fixed,
            "broke": paired.broke,
            "p_value": paired.p_value,
        },
        "notes": ["text column: review (guessed from 4 columns)."],
        "overfitting": overfitting_words(log),
        "peak_memory_bytes": 812_000_000,
        "train_seconds": 181.2,
        "tokens_per_second": 6222.0,
    }


def _support(spec: Spec, labels: np.ndarray) -> np.ndarray:
    if spec.kind == "number":
        return np.zeros(0)
    return labels.sum(axis=0) if spec.kind == "multi" else np.bincount(labels, minlength=len(spec.names))


def _samples(spec: Spec, seed: int) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(seed), []
    truth = (1, 0, 1, 0, 0)
    for step in (0, 100, 200):
        for i, prompt in enumerate(PROMPTS):
            width = len(spec.names) or 1
            logits = (
                rng.normal(size=(1, width)) * (0.3 if step == 0 else 1) + (step / 60) * np.eye(width)[truth[i] % width]
            )
            rows.append({"step": step, "epoch": step / 100, "prompt_id": i, "prompt": prompt} | _answer(spec, logits))
    return rows


def _predictions(spec: Spec, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[dict[str, Any]]:
    losses, rows = m.row_losses(after, labels, spec.kind), []
    for i, label in enumerate(labels):
        row = {"row": f"reviews.jsonl:{i + 1}", "text": REVIEWS[i % len(REVIEWS)], "label": _label(spec, label)}
        earlier = _answer(spec, before[i : i + 1])["prediction"]
        rows.append(row | _answer(spec, after[i : i + 1]) | {"loss": float(losses[i]), "before": earlier})
    return rows


def _label(spec: Spec, value: Any) -> Any:
    if spec.kind == "number":
        return float(value)
    return spec.names[value] if spec.kind == "single" else [n for n, on in zip(spec.names, value, strict=True) if on]


def _answer(spec: Spec, logits: np.ndarray) -> dict[str, Any]:
    chances = m.probabilities(logits, spec.kind)[0]
    prediction = _label(spec, m.predictions(logits, spec.kind)[0])
    return {"prediction": prediction, "probabilities": dict(zip(spec.names, map(float, chances), strict=False))}
