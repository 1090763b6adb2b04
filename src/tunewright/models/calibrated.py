"""calibration.json beside a classifier's weights: how its logits become probabilities, and those a decision.

Read with the model, used by `predict` and `evaluate`; written by `tasks.calibrating`, which says what it is made of. A
folder without the file answers as the model is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError, did_you_mean
from tunewright.scanning.settings import read_json

FILE = "calibration.json"
VERSION = 1


@dataclass(frozen=True)
class Calibrated:
    """What stands between logits and an answer."""

    temperature: float = 1.0  # logits are divided by it
    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])  # label -> probability it must reach
    abstain_below: float = 0.0  # a surest label below this probability is not said
    measured: Mapping[str, Any] = field(default_factory=dict[str, Any])  # on which rows, before and after: for people

    @property
    def decides(self) -> bool:
        """Whether the answer may differ from the likeliest label."""
        return bool(self.thresholds) or self.abstain_below > 0

    def to_text(self) -> str:
        """As stored."""
        body = {"version": VERSION, **{name: vars(self)[name] for name in vars(self)}}
        return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


AS_IT_IS = Calibrated()


def read_calibrated(folder: Path, labels: tuple[str, ...]) -> Calibrated:
    """The folder's, or one that changes nothing. Raises ModelError for a file that says something impossible."""
    path = folder / FILE
    if not path.is_file():
        return AS_IT_IS
    body = read_json(path)
    if not isinstance(body, dict) or body.get("version") != VERSION:
        found = body.get("version") if isinstance(body, dict) else type(body).__name__
        raise ModelError(f"version is {found!r}; expected {VERSION}. Calibrate the model again", where=str(path))
    thresholds, measured = body.get("thresholds") or {}, body.get("measured") or {}
    if not isinstance(thresholds, dict) or not isinstance(measured, dict):
        raise ModelError("thresholds and measured must be tables; calibrate the model again", where=str(path))
    for name in thresholds:
        if name not in labels:
            known = ", ".join(labels[:6])
            raise ModelError(
                f'"thresholds" names "{name}"; the labels are {known}.{did_you_mean(name, labels)}', where=str(path)
            )
    return Calibrated(
        _between(body.get("temperature", 1.0), "temperature", 1e-3, 1e3, path),
        {name: _between(value, name, 0.0, 1.0, path) for name, value in thresholds.items()},
        _between(body.get("abstain_below", 0.0), "abstain_below", 0.0, 1.0, path),
        measured,
    )


def _between(value: Any, name: str, low: float, high: float, path: Path) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high:
        raise ModelError(f'"{name}" is {value!r}; expected a number from {low:g} to {high:g}', where=str(path))
    return float(value)
