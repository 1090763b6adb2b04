"""Whole runs on tiny models, for tests of the top level: data of each kind of label, each choice of what learns."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests import tiny
from tunewright.library import train
from tunewright.runs import Run

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("single", "multi", "number")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"trainable.rank": 4, "trainable.dropout": 0.1},
    "full": {"trainable.method": "full"},
    "head": {"trainable.method": "head"},
    "last 1": {"trainable.rank": 4, "trainable.layers": "last 1", "trainable.dropout": 0.1},
}
# fp32 and one thread: the same bytes on any machine that runs this twice.
SETTINGS: dict[str, Any] = {
    "training.threads": 1,
    "training.precision": "fp32",
    "training.device": "cpu",
    "training.epochs": 2.0,
    "training.batch_size": 8,
    "training.learning_rate": 1e-2,
    "evaluation.bootstrap_samples": 100,
    "evaluation.prompts": ["a really good film", "the dull plot"],
}


@cache
def scratch() -> Path:
    """A folder that lives as long as the tests."""
    folder = Path(tempfile.mkdtemp(prefix="tunewright-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def base(kind: str = "bert") -> Path:
    """A tiny base model on disk."""
    return tiny.save(kind, scratch() / kind)


def rows(labels: str = "single", n: int = 46) -> list[dict[str, Any]]:
    """Toy reviews with one label, several, or a number; n isn't a multiple of the batch size."""
    reviews = tiny.sentences(n)
    for i, row in enumerate(reviews):
        if labels == "multi":
            row["label"] = [name for name, there in ((row["label"], True), ("long", len(row["text"]) > 60)) if there]
            row["label"] = row["label"] if i % 5 else []
        elif labels == "number":
            row["label"] = round((1.0 if row["label"] == "positive" else -1.0) + i / 100, 3)
    return reviews


@cache
def data_file(labels: str = "single", n: int = 46) -> Path:
    """The toy reviews as JSON lines."""
    folder = scratch() / f"{labels}-{n}"
    folder.mkdir(exist_ok=True)
    path = folder / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(labels, n)), encoding="utf-8")
    return path


def start(runs: Path, labels: str = "single", method: str = "lora", data: Any = None, **arguments: Any) -> Run:
    """Train a tiny model; `settings` go on top of the usual ones."""
    settings = SETTINGS | METHODS[method] | arguments.pop("settings", {})
    return train(
        str(base(arguments.pop("kind", "bert"))),
        data if data is not None else str(data_file(labels)),
        settings=settings,
        runs=runs,
        **arguments,
    )


@cache
def finished(labels: str = "single", method: str = "lora") -> Run:
    """A finished run that tests may read but not change."""
    return start(scratch() / "runs", labels, method, name=f"{labels}-{method.replace(' ', '')}")


def tensors(folder: Path) -> dict[str, Any]:
    """Every tensor of a folder's safetensors, by file and name."""
    return {
        f"{path.name}/{name}": tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


TIMES = ("time", "train/tokens_per_second")


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a JSONL file of a run, without what a clock wrote."""
    text = (folder / name).read_text(encoding="utf-8")
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.split("\n") if line]


def stop_after(monkeypatch: Any, step: int, number: int = signal.SIGTERM) -> None:
    """This process gets the signal when the loop has taken this many steps, once."""
    from tunewright.judging import Judge

    real, asked = Judge.stepped, []

    def stepped(self: Any, state: Any, loss: float, tokens: int) -> None:
        real(self, state, loss, tokens)
        if state.step >= step and not asked:
            asked.append(os.kill(os.getpid(), number))

    monkeypatch.setattr(Judge, "stepped", stepped)


def raise_at_step(monkeypatch: Any, step: int, make: Callable[[], BaseException]) -> None:
    """The run breaks when the loop has taken this many steps."""
    from tunewright.judging import Judge

    real = Judge.stepped

    def stepped(self: Any, state: Any, loss: float, tokens: int) -> None:
        real(self, state, loss, tokens)
        if state.step >= step:
            raise make()

    monkeypatch.setattr(Judge, "stepped", stepped)


def child_environment() -> dict[str, str]:
    """What a child process needs to import the package, offline, on one thread."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CI": "true",
        "PYTHONUNBUFFERED": "1",
    }


def train_command(runs: Path, *more: str, method: str = "lora", labels: str = "single", **settings: Any) -> list[str]:
    """Arguments of `tunewright train` for the same run as `start`."""
    flat = SETTINGS | METHODS[method] | settings
    overrides = [part for key, value in flat.items() for part in ("-s", f"{key}={json.dumps(value)}")]
    return ["train", str(data_file(labels)), "--model", str(base()), "--runs", str(runs), *overrides, *more]


PYTHON = sys.executable
