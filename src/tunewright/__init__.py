"""tunewright: turn a general language model into your specialist, on the machine you have, and know what you got.

    import tunewright as tw

    run = tw.train("minilm", "reviews.jsonl", task="classify", lora=4)
    print(run.table)
    print(run.compare(["It was good.", "Not a fan."]))
    tw.load(run).predict(["Great!"])

Nothing here prints or exits. Errors are `tunewright.errors`. Importing this imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tunewright.errors import (
    DataError,
    DivergedError,
    GateError,
    MachineError,
    ModelError,
    NetworkError,
    RecipeError,
    StoppedError,
    TunewrightError,
    UsageError,
)

if TYPE_CHECKING:
    from tunewright.library import load, train
    from tunewright.recipe import Recipe
    from tunewright.runs import Run
    from tunewright.serving.predict import Prediction, Predictor

__version__ = "0.1.0"

_LATE = {
    "train": "tunewright.library",
    "load": "tunewright.library",
    "Recipe": "tunewright.recipe",
    "Run": "tunewright.runs",
    "Prediction": "tunewright.serving.predict",
    "Predictor": "tunewright.serving.predict",
}

__all__ = [
    "DataError",
    "DivergedError",
    "GateError",
    "MachineError",
    "ModelError",
    "NetworkError",
    "Prediction",
    "Predictor",
    "Recipe",
    "RecipeError",
    "Run",
    "StoppedError",
    "TunewrightError",
    "UsageError",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    # Heavy parts are imported when first used, so that `tunewright --help` stays instant.
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'tunewright' has no attribute {name!r}")
