"""Run folders of models that write, without a model: the contract's files with plausible values."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluation.fake_run import write_json, write_lines
from tunewright.evaluation import retention, texts

RECIPE = """\
task: generate
model: gemma3-270m  # given
data:
  train: squad.jsonl  # given
  template: question-answer  # auto
trainable:
  method: {method}  # given
training:
  epochs: 2  # auto
"""
COUNTRIES = ("Peru", "Chad", "Laos", "Fiji", "Iran", "Togo", "Cuba", "Oman")
CAPITALS = ("Lima", "N'Djamena", "Vientiane", "Suva", "Tehran", "Lomé", "Havana", "Muscat")
STYLED = 'Is <b>this</b> shown? <script>document.title = "owned"</script>\x1b[31m red'
LONG = "A long passage that goes on and on about rivers, bridges and towns. " * 30


def make_written_run(
    folder: Path,
    *,
    method: str = "lora",
    skill: float = 0.7,
    forgot: float = 0.16,
    rows: int = 90,
    answers: bool = True,
    seed: int = 0,
) -> Path:
    """Write a whole run folder and return it. `skill`: share of right answers; `forgot`: more nats per token.

    Two of three validation rows are answered in text.
    """
    chosen, answered = random.Random(seed), 2 * rows // 3
    questions = [f"What is the capital of {COUNTRIES[i % 8]}? ({i})" for i in range(answered)]
    references = [[CAPITALS[i % 8]] for i in range(answered)]
    before = ["I don't know. What is the capital? " + COUNTRIES[i % 8] for i in range(answered)]
    after = [refs[0] if chosen.random() < skill else "Paris" for refs in references]
    pairs = [(_likely(rows, 3.4), _likely(rows, 2.1))]
    if answers:
        stopped = [True] * answered
        pairs.insert(0, (texts.score_texts(before, references, stopped), texts.score_texts(after, references, stopped)))
    old, new = (texts.joined(*side) for side in zip(*pairs, strict=True))
    paired = {name: one for pair in pairs for name, one in texts.paired(*pair, 300).items()}
    intervals = {name: one.to_json() for _, side in pairs for name, one in texts.intervals(side, 300).items()}
    (folder / "predictions").mkdir(parents=True)
    judged = {"kind": "text", "num_rows": rows, "answered_rows": answered if answers else 0, "metrics": new.metrics}
    write_json(folder / "evaluation.json", judged | {"intervals": intervals, "notes": []})
    write_json(
        folder / "run.json",
        _summary(folder.name, method, rows) | {
            "metrics": new.metrics,
            "intervals": intervals,
            "baseline": {},
            "comparison": {
                "before": old.metrics,
                "after": new.metrics,
                "paired": {name: _paired(one) for name, one in paired.items()},
            },
            "forgetting": _forgetting(forgot),
        },
    )  # fmt: skip
    write_json(folder / "environment.json", {"python": "3.11.9"})
    write_lines(folder / "metrics.jsonl", _log(old.metrics, new.metrics))
    write_lines(folder / "samples.jsonl", _samples(questions, references, before, after))
    write_lines(folder / "events.jsonl", [{"level": "info", "event": "state", "message": "running"}])
    found = zip(questions, references, before, after, strict=True)
    write_lines(
        folder / "predictions" / "validation.jsonl",
        [
            {"row": f"squad.jsonl:{i}", "prompt": q, "references": r, "prediction": a, "stopped": "eos", "before": b}
            for i, (q, r, b, a) in enumerate(found, 1)
        ] if answers else [],
    )  # fmt: skip
    (folder / "recipe.resolved.yaml").write_text(RECIPE.format(method=method), encoding="utf-8")
    return folder


def _likely(rows: int, nats: float) -> texts.TextScores:
    rng = np.random.default_rng(3)
    tokens = rng.integers(2, 9, rows)
    return texts.score_likelihoods(tokens * (nats + rng.normal(0, 0.3, rows)), tokens, tokens // 2)


def _paired(one: Any) -> dict[str, Any]:
    counts = {"fixed": one.fixed, "broke": one.broke, "p_value": one.p_value, "difference": one.difference}
    return {**counts, "interval": one.interval.to_json()}


def _forgetting(forgot: float) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    tokens = rng.integers(80, 120, 42)
    nats = tokens * rng.normal(3.06, 0.2, 42)
    return retention.retained(nats, nats + tokens * rng.normal(forgot, 0.01, 42) * (forgot > 0), tokens).to_json()


def _log(before: dict[str, float], after: dict[str, float]) -> list[dict[str, Any]]:
    def named(metrics: dict[str, float]) -> dict[str, float]:
        return {f"validation/{name}": value for name, value in metrics.items()}

    half = {name: (before[name] + after[name]) / 2 for name in after}
    return [
        {"step": 0, "epoch": 0.0, **named(before)},
        {"step": 100, "epoch": 1.0, "train/loss": 2.6, **named(half)},
        {"step": 200, "epoch": 2.0, "train/loss": 2.0, **named(after)},
    ]


def _samples(
    questions: list[str], references: list[list[str]], before: list[str], after: list[str]
) -> list[dict[str, Any]]:
    prompts = [*questions[:3], LONG + "Q: Which river?", STYLED]
    wanted: list[str | None] = [refs[0] for refs in references[:3]] + ["the Rhine", None]
    first, last = [*before[:3], "rambling " * 120, ""], [*after[:3], "the Rhine", "Yes."]
    return [
        {"step": step, "epoch": step / 100, "prompt_id": i, "prompt": prompt, "prediction": texts_now[i],
         "stopped": "length" if step == 0 and i == 3 else "eos", **({"reference": wanted[i]} if wanted[i] else {}),
         **({"final": True} if final else {})}
        for step, texts_now, final in ((0, first, False), (100, first, False), (200, last, False), (200, last, True))
        for i, prompt in enumerate(prompts)
    ]  # fmt: skip


def _summary(name: str, method: str, rows: int) -> dict[str, Any]:
    trainable = {"full": 268_098_176, "head": 167_772_160, "lora": 1_900_000}[method]
    return {
        "id": name,
        "name": "squad",
        "state": "succeeded",
        "task": "generate",
        "error": None,
        "created": "2026-11-24T14:12:09Z",
        "seconds": 222.4,
        "model": {
            "name": "gemma3-270m",
            "method": method,
            "parameters": 268_098_176,
            "trainable": trainable,
            "trainable_fraction": trainable / 268_098_176,
            "base_bytes": 1_072_000_000,
            "saved_bytes": 7_600_000,
        },
        "data": {
            "train": "squad.jsonl",
            "validation": 0.1,
            "train_rows": 9 * rows,
            "validation_rows": rows,
            "kind": "text",
            "labels": [],
            "format": "questions and answers",
            "learn": "completion",
        },
        "steps": 200,
        "epochs": 2,
        "best": {"step": 200, "epoch": 2.0, "metric": "validation/loss", "value": 2.1},
        "notes": ["format: questions and answers (question, answer), template question-answer"],
        "overfitting": None,
        "peak_memory_bytes": 812_000_000,
        "tokens_per_second": 222.0,
    }
