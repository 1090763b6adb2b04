"""Scores of a saved model on any labelled data, for `evaluate RUN --data FILE`.

One call per step of the flow: load, read, tokenise, predict, judge. Decides nothing of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunewright.errors import DataError

_SEED = 42
_BOOTSTRAP_SAMPLES = 1_000


def judge_data(model_folder: Path, data: str, *, text: str, label: str) -> dict[str, Any]:
    """Metrics and intervals of the model on the rows; of a folder or Hub dataset, on its validation part if any."""
    import numpy as np

    from tunewright.data.columns import find_columns
    from tunewright.data.sources import open_data
    from tunewright.data.survey import usable_texts, value_of
    from tunewright.data.tokenizing import encode_texts
    from tunewright.evaluation.evaluate import judge
    from tunewright.models.forward import Forward
    from tunewright.models.inference import predict_logits
    from tunewright.models.loading import load_saved

    loaded = load_saved(model_folder, device="auto")
    splits = open_data(data)
    source = splits.validation or splits.train
    columns = find_columns(source, text, label)
    if columns.label is None:
        raise DataError("has no column of labels; name it with --label", where=source.name, field="--label")
    usable = [(row, words) for row, words in usable_texts(source, columns)]
    if not usable:
        raise DataError("has no row with a text", where=source.name)
    labels = [loaded.labels.encode(value_of(row, columns.label), row.where, columns.label) for row, _ in usable]
    tokens = encode_texts([words for _, words in usable], loaded.tokenizer, loaded.max_length, loaded.truncate)
    logits = predict_logits(Forward.checked(loaded.model), [np.asarray(ids) for ids in tokens])
    judgement = judge(
        logits, _as_array(labels, loaded.labels), loaded.labels, bootstrap_samples=_BOOTSTRAP_SAMPLES, seed=_SEED
    )
    return {
        "data": data,
        "rows": len(usable),
        "metrics": dict(judgement.metrics),
        "intervals": {name: [interval.low, interval.high] for name, interval in judgement.intervals.items()},
    }


def _as_array(labels: list[Any], spec: Any) -> Any:
    """int64 [N], float32 [N], or float32 multi-hot [N, K]."""
    import numpy as np

    if spec.kind == "single":
        return np.array(labels, np.int64)
    if spec.kind == "number":
        return np.array(labels, np.float32)
    hot = np.zeros((len(labels), spec.num_outputs), np.float32)
    for row, indices in enumerate(labels):
        hot[row, list(indices)] = 1
    return hot
