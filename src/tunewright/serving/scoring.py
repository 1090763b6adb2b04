"""Scores of a model on any labelled data, for `evaluate RUN --data FILE`: load, read, predict, judge.

Decides nothing of its own: labels are the model's, and so are lengths and the side that is cut.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tunewright.data.columns import find_columns
from tunewright.data.labels import LabelSpec
from tunewright.data.sources import open_data
from tunewright.data.survey import usable_texts, value_of
from tunewright.data.tokenizing import encode_texts
from tunewright.errors import DataError
from tunewright.evaluation.evaluate import Judgement, judge
from tunewright.models.inference import predict_logits
from tunewright.serving.predict import Predictor


def score(predictor: Predictor, data: str | Path, *, text: str = "auto", label: str = "auto") -> tuple[int, Judgement]:
    """Rows judged, and the judgement. A folder's or a Hub dataset's validation part is taken, if it has one."""
    splits = open_data(data)
    source = splits.validation or splits.train
    columns = find_columns(source, text, label)
    if columns.label is None:
        raise DataError("has no column of labels; name it with --label", where=source.name, field="label")
    ids: list[Any] = []
    labels: list[Any] = []
    block: list[str] = []
    for row, words in usable_texts(source, columns):
        labels.append(predictor.labels.encode(value_of(row, columns.label), row.where, columns.label))
        block.append(words)
        if len(block) == 1000:  # ids take a tenth of the texts' room
            ids += _ids(predictor, block)
            block = []
    ids += _ids(predictor, block)
    if not ids:
        raise DataError("has no row with a text", where=source.name)
    logits = predict_logits(predictor.forward, ids)
    return len(ids), judge(logits, as_array(labels, predictor.labels), predictor.labels)


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
