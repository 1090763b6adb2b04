"""Scores of a model on any labelled data, for `evaluate RUN --data FILE`: load, read, predict, judge.

Decides nothing of its own: labels are the model's, and so are lengths and the side that is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.columns import find_columns
from tunewright.data.labels import LabelSpec
from tunewright.data.sources import open_data
from tunewright.data.survey import text_hash, usable_texts, value_of
from tunewright.data.tokenizing import encode_texts
from tunewright.errors import DataError
from tunewright.evaluation.calibration import scaled
from tunewright.evaluation.evaluate import Judgement, judge
from tunewright.models.inference import predict_logits
from tunewright.serving.predict import Predictor


@dataclass(frozen=True, eq=False)
class Answered:
    """Labelled rows and the model's answers to them, as the model is: no temperature."""

    logits: np.ndarray  # float32 [N, outputs]
    labels: np.ndarray  # as in `metrics`
    hashes: list[int]  # of each text; equal texts, equal number


def score(predictor: Predictor, data: str | Path, *, text: str = "auto", label: str = "auto") -> tuple[int, Judgement]:
    """Rows judged, and the judgement. A folder's or a Hub dataset's validation part is taken, if it has one."""
    rows = answered(predictor, data, text=text, label=label)
    logits = scaled(rows.logits, predictor.calibrated.temperature)
    return len(logits), judge(logits, rows.labels, predictor.labels)


def answered(predictor: Predictor, data: str | Path, *, text: str = "auto", label: str = "auto") -> Answered:
    """Every labelled row with its logits."""
    splits = open_data(data)
    source = splits.validation or splits.train
    columns = find_columns(source, text, label)
    if columns.label is None:
        raise DataError("has no column of labels; name it with --label", where=source.name, field="label")
    ids: list[Any] = []
    labels: list[Any] = []
    hashes: list[int] = []
    block: list[str] = []
    for row, words in usable_texts(source, columns):
        labels.append(predictor.labels.encode(value_of(row, columns.label), row.where, columns.label))
        hashes.append(text_hash(words))
        block.append(words)
        if len(block) == 1000:  # ids take a tenth of the texts' room
            ids += _ids(predictor, block)
            block = []
    ids += _ids(predictor, block)
    if not ids:
        raise DataError("has no row with a text", where=source.name)
    return Answered(predict_logits(predictor.forward, ids), as_array(labels, predictor.labels), hashes)


def _ids(predictor: Predictor, texts: list[str]) -> list[np.ndarray]:
    encoded = encode_texts(texts, predictor.tokenizer, predictor.max_length, predictor.truncate) if texts else []
    return [np.asarray(ids, np.int32) for ids in encoded]


def as_array(labels: list[Any], spec: LabelSpec) -> np.ndarray:
    """int64 [N], float32 [N], or float32 multi-hot [N, K]."""
    if spec.kind != "multi":
        return np.array(labels, np.int64 if spec.kind == "single" else np.float32)
    hot = np.zeros((len(labels), spec.num_outputs), np.float32)
    for row, indices in enumerate(labels):
        hot[row, list(indices)] = 1
    return hot
