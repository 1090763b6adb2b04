"""A finished classifier calibrated: a temperature, thresholds and "don't know", kept beside its weights.

    labelled rows it didn't learn -> logits -> temperature -> thresholds, abstention -> model/calibration.json

The rows are those held out by the run, whose logits it kept, or any other labelled file. What each part brings is
measured on rows that didn't fit it (`evaluation.calibration`, `evaluation.thresholds`). Weights stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import durable
from tunewright.data.survey import text_hash
from tunewright.errors import ModelError, UsageError, did_you_mean
from tunewright.evaluation.calibration import Calibration, calibrate, scaled
from tunewright.evaluation.metrics import Kind, correct, probabilities
from tunewright.evaluation.thresholds import (
    Aim,
    Covered,
    Threshold,
    abstain_below,
    coverage_curve,
    risk_area,
    threshold_for,
)
from tunewright.models.calibrated import FILE, Calibrated
from tunewright.recording import read_json_object, read_jsonl, write_atomically
from tunewright.runs import RunRef


@dataclass(frozen=True)
class Wish:
    """What is asked of one label, or of all answers: `positive: precision>=0.95`."""

    label: str
    aim: Aim
    wanted: float

    @classmethod
    def parse(cls, text: str, field: str = "--threshold") -> Wish:
        """From `LABEL:precision>=0.95`. Raises UsageError."""
        match = re.fullmatch(r"(.+?)\s*:\s*(precision|recall)\s*>=\s*([0-9.]+)", text.strip())
        wanted = _share(match[3]) if match else None
        if match is None or wanted is None:
            raise UsageError(
                f"can't read {text!r}; expected something like 'positive:precision>=0.95', at most 1", field=field
            )
        return cls(match[1].strip(), "precision" if match[2] == "precision" else "recall", wanted)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows that the model didn't learn, answered."""

    name: str
    logits: np.ndarray  # float [N, C]
    labels: np.ndarray  # as in `metrics`
    groups: np.ndarray  # int [N], equal texts by equal numbers
    kind: Kind
    names: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """What was found, and what of it is kept."""

    calibration: Calibration
    thresholds: dict[str, Threshold]
    abstain: Threshold | None
    curve: list[Covered]
    risk_area: float  # of answers by confidence: 0 is best
    kept: Calibrated

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.kept.measured)


def fit(
    rows: HeldOut, wishes: Sequence[Wish] = (), accuracy: float | None = None, *, surely: bool = False, seed: int = 0
) -> Fitted:
    """Everything that was asked for, on these rows. Raises UsageError for a label or an aim that can't be had.

    `accuracy`: what the answers must reach, the least sure ones being left unsaid. `surely`: the lower end of the
    95 % interval must reach an aim, not the estimate.
    """
    if rows.kind == "number":
        raise UsageError("this model answers numbers, which have no probabilities to calibrate")
    calibration = calibrate(rows.logits, rows.labels, rows.kind, groups=rows.groups, seed=seed)
    chances = probabilities(scaled(rows.logits, calibration.temperature), rows.kind)
    thresholds = {wish.label: _threshold(rows, chances, wish, surely, seed) for wish in wishes}
    abstain, curve, area = None, list[Covered](), float("nan")
    if rows.kind == "single":
        sure, right = chances.max(axis=1), correct(rows.logits, rows.labels, rows.kind)
        curve, area = coverage_curve(sure, right), risk_area(sure, right)
        abstain = _abstain(sure, right, accuracy, surely, rows.groups, seed) if accuracy is not None else None
    elif accuracy is not None:
        raise UsageError("not answering is for one label per text; give a threshold per label", field="--accuracy")
    kept = Calibrated(
        calibration.temperature,
        {name: threshold.value for name, threshold in thresholds.items()},
        abstain.value if abstain else 0.0,
        _measured(rows, calibration, thresholds, abstain, curve, area),
    )
    return Fitted(calibration, thresholds, abstain, curve, area, kept)


def keep(fitted: Fitted, model_folder: Path) -> Path:
    """Write calibration.json into a model folder, whole or not at all."""
    path = model_folder / FILE
    with durable.storing(path):
        write_atomically(path, fitted.kept.to_text())
    return path


def held_out_of_run(ref: RunRef) -> HeldOut:
    """The run's own validation rows with the logits it kept of them. Raises ModelError where it kept none."""
    from safetensors.torch import load_file

    path = ref.folder / "predictions" / "validation-logits.safetensors"
    summary = read_json_object(ref.folder / "run.json")
    data: Mapping[str, Any] = summary.get("data") or {}
    if summary.get("task") != "classify" or data.get("kind") not in ("single", "multi", "number"):
        raise UsageError("only a classifier has probabilities to calibrate", where=str(ref.folder))
    if not path.is_file():
        raise ModelError("the run kept no answers to its validation rows; give labelled rows with --data",
                         where=str(ref.folder))  # fmt: skip
    names = tuple(map(str, data.get("labels") or ()))
    logits = load_file(path)["logits"].numpy()
    rows = list(read_jsonl(ref.folder / "predictions" / "validation.jsonl"))
    if len(rows) != len(logits):
        raise ModelError(f"{len(rows):,} predictions and {len(logits):,} rows of logits; they aren't of one run",
                         where=str(path.parent))  # fmt: skip
    # logits are in the order of the token arrays, predictions in that of the file: both rise with the row
    labels = _labels([row.get("label") for row in rows], names, data["kind"], str(path.parent))
    return HeldOut("its held-out rows", logits, labels, _groups([str(row.get("text")) for row in rows]),
                   data["kind"], names)  # fmt: skip


def held_out_of_file(ref: RunRef, data: str, *, text: str = "auto", label: str = "auto") -> HeldOut:
    """Any labelled rows, answered now, without an earlier calibration."""
    from tunewright.serving.predict import Predictor
    from tunewright.serving.scoring import answered

    predictor = ref.load()
    if not isinstance(predictor, Predictor):
        raise UsageError("only a classifier has probabilities to calibrate", where=str(ref.folder))
    rows = answered(predictor, data, text=text, label=label)
    return HeldOut(data, rows.logits, rows.labels, np.array(rows.hashes, np.uint64), predictor.labels.kind,
                   predictor.labels.names)  # fmt: skip


# ---- parts ----


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def _threshold(rows: HeldOut, chances: np.ndarray, wish: Wish, surely: bool, seed: int) -> Threshold:
    if wish.label not in rows.names:
        raise UsageError(
            f'no label "{wish.label}"; there are {", ".join(rows.names[:6])}.{did_you_mean(wish.label, rows.names)}',
            field="--threshold",
        )
    column = rows.names.index(wish.label)
    positive = rows.labels[:, column] > 0 if rows.kind == "multi" else rows.labels == column
    found = threshold_for(
        chances[:, column], positive, wish.aim, wish.wanted, surely=surely, groups=rows.groups, seed=seed
    )
    if found is None:
        raise UsageError(
            f'no threshold gives "{wish.label}" a {wish.aim} of {wish.wanted:g}{_sure_words(surely)} on '
            f"{len(positive):,} rows; ask for less, or give more rows",
            field="--threshold",
        )
    return found


def _abstain(
    sure: np.ndarray, right: np.ndarray, accuracy: float, surely: bool, groups: np.ndarray, seed: int
) -> Threshold:
    found = abstain_below(sure, right, accuracy, surely=surely, groups=groups, seed=seed)
    if found is None:
        raise UsageError(
            f"even the surest answers don't reach an accuracy of {accuracy:g}{_sure_words(surely)} on {len(sure):,} "
            "rows; ask for less, or give more rows",
            field="--accuracy",
        )
    return found


def _sure_words(surely: bool) -> str:
    return " for sure (lower end of its 95 % interval)" if surely else ""


def _measured(
    rows: HeldOut,
    calibration: Calibration,
    thresholds: Mapping[str, Threshold],
    abstain: Threshold | None,
    curve: Sequence[Covered],
    area: float,
) -> dict[str, Any]:
    points = [vars(point) | {"interval": point.interval.to_json()} for point in curve]
    found: dict[str, Any] = {
        "data": rows.name,
        "calibration": calibration.to_json(),
        "thresholds": {name: threshold.to_json() for name, threshold in thresholds.items()},
        "abstain": abstain.to_json() if abstain else None,
        "coverage": points,
        "risk_area": area if points else None,
    }
    return json.loads(json.dumps(_finite(found)))


def _finite(value: Any) -> Any:
    """A number that isn't one becomes null: JSON has none."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _labels(given: list[Any], names: tuple[str, ...], kind: Kind, where: str) -> np.ndarray:
    index = {name: i for i, name in enumerate(names)}
    try:
        if kind == "number":
            return np.array(given, np.float32)
        if kind == "single":
            return np.array([index[label] for label in given], np.int64)
        hot = np.zeros((len(given), len(names)), np.float32)
        for i, labels in enumerate(given):
            hot[i, [index[label] for label in labels]] = 1
        return hot
    except (KeyError, TypeError, ValueError):
        raise ModelError("a label of the predictions isn't one of the run's", where=where) from None


def _groups(texts: list[str]) -> np.ndarray:
    return np.array([text_hash(text) for text in texts], np.uint64)
