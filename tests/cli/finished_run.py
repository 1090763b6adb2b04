"""A finished run's folder and the events of its training, written by hand."""

from __future__ import annotations

import json
from pathlib import Path

from tunewright.progress import Evaluated, Finished, Header, Phase, Said, Stepped

RUN = "20261124-0900-reviews"

EVALUATIONS = [
    {"step": 0, "epoch": 0.0, "validation/loss": 0.702, "validation/accuracy": 0.523},
    {"step": 125, "epoch": 1.0, "train/loss": 0.412, "validation/loss": 0.331, "validation/accuracy": 0.873},
    {"step": 250, "epoch": 2.0, "train/loss": 0.224, "validation/loss": 0.402, "validation/accuracy": 0.865},
]

EVENTS = [
    Phase("reading the data"),
    Said("text column: text (guessed from 3 columns)"),
    Said("2 texts appear twice", "warning"),
    Header(
        f"train · {RUN}",
        (("model", "minilm · 22,713,216 parameters"), ("plan", "2 epochs · 250 steps · batch 16")),
        Path("runs") / RUN,
    ),
    Phase("scoring the untrained model"),
    Evaluated(0, 0.0, EVALUATIONS[0], "validation/accuracy", False, 2.0),
    *(Stepped(step, 250, step / 125, 0.7 - step / 1000, 3404.2, 1_930_000_000, 738.0) for step in range(5, 126, 5)),
    Phase("evaluating"),
    Evaluated(125, 1.0, EVALUATIONS[1], "validation/accuracy", True, 82.0),
    *(Stepped(step, 250, step / 125, 0.3, 3404.2, 1_930_000_000, 60.0) for step in range(130, 251, 5)),
    Phase("evaluating"),
    Evaluated(250, 2.0, EVALUATIONS[2], "validation/accuracy", False, 81.0),
    Finished(Path("runs") / RUN),
]

SUMMARY = {
    "id": RUN,
    "name": "reviews",
    "state": "succeeded",
    "task": "classify",
    "error": None,
    "created": "2026-11-24T09:00:00.000+00:00",
    "seconds": 171.4,
    "model": {"name": "minilm", "base_bytes": 90_900_000, "saved_bytes": 1_200_000},
    "data": {"train": "reviews.jsonl", "validation": 0.1, "train_rows": 1000, "validation_rows": 111},
    "best": {"step": 125, "epoch": 1.0, "metric": "validation/accuracy", "value": 0.873},
    "metrics": {"accuracy": 0.873, "macro_f1": 0.871, "loss": 0.331},
    "intervals": {"accuracy": [0.811, 0.928]},
    "baseline": {"accuracy": 0.505},
    "comparison": {
        "before": {"accuracy": 0.523},
        "after": {"accuracy": 0.873},
        "fixed": 47,
        "broke": 6,
        "p_value": 1.2e-8,
    },
    "overfitting": "validation loss rose after epoch 1 while train loss fell: likely overfitting; kept epoch 1",
    "notes": [],
    "tokens_per_second": 3404.2,
    "peak_memory_bytes": 1_930_000_000,
}

SAMPLES = [
    ("It was good.", ("negative", 0.51), ("positive", 0.98)),
    ("This one is a pass.", ("negative", 0.5), ("positive", 0.61)),
]


def write_run(runs: Path, name: str = RUN, rate: float = 1e-3, **changes: object) -> Path:
    """A finished run's folder."""
    folder = runs / name
    (folder / "model").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(SUMMARY | {"id": name} | changes))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EVALUATIONS))
    rows = [
        {"step": step, "epoch": 0, "prompt_id": i, "prompt": prompt, **_answer(*answer)}
        for step, which in ((0, 1), (125, 2))
        for i, (prompt, *answers) in enumerate(SAMPLES)
        for answer in [answers[which - 1]]
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 250, "torn')
    (folder / "recipe.resolved.yaml").write_text(
        f"task: classify\ntraining: {{learning_rate: {rate}, epochs: 2}}  # auto\n"
    )
    (folder / "recipe.yaml").write_text("task: classify\ndata: {train: reviews.jsonl}\n")
    (folder / "report.html").write_text("<p>report</p>")
    return folder


def _answer(label: str, share: float) -> dict[str, object]:
    other = {"positive": "negative", "negative": "positive"}[label]
    return {"prediction": label, "probabilities": {label: share, other: round(1 - share, 2)}}
