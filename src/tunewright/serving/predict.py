"""Using a model: texts in, labels with probabilities out; files streamed in constant memory, in their order.

Works on a run's model, one of its checkpoints, its untrained state, any adapter or classifier folder, or a Hub id.
How answered rows are written, `writing` knows.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors.torch import load_file

from tunewright.data.columns import find_columns
from tunewright.data.encoding import Side
from tunewright.data.examples import Row
from tunewright.data.json_rows import json_line_rows
from tunewright.data.labels import LabelSpec
from tunewright.data.reading import open_file
from tunewright.data.survey import text_of
from tunewright.data.tokenizing import encode_texts
from tunewright.errors import DataError, ModelError
from tunewright.evaluation.calibration import scaled
from tunewright.evaluation.metrics import probabilities
from tunewright.evaluation.thresholds import UNKNOWN, decide
from tunewright.learning.tensors import load_weights
from tunewright.models import architectures
from tunewright.models.calibrated import AS_IT_IS, Calibrated
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import BaseModel, Loaded, load_base, load_saved, resolve_base
from tunewright.scanning.files import scan_run
from tunewright.scanning.headers import check_headers
from tunewright.serving.writing import STANDARD, check_target, write_rows

BLOCK = 256  # rows read, answered and written together: enough to sort by length, little to hold
UNKNOWN_LENGTH = 512  # tokens, where neither the tokenizer nor the model says how long a text may be
ANSWER = ("prediction", "probabilities")  # the columns that each row gets


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text."""

    prediction: str | float | list[str] | None  # a label, a number, or the labels that hold; None: it doesn't know
    probabilities: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        if isinstance(self.prediction, float):
            return f"{self.prediction:.3f}"
        if self.prediction is None:
            return f"don't know {max(self.probabilities.values()):.2f}"
        if isinstance(self.prediction, list):
            return ", ".join(self.prediction) or "none"
        return f"{self.prediction} {self.probabilities[str(self.prediction)]:.2f}"


@dataclass(frozen=True)
class Predictor:
    """A loaded classifier."""

    model: Any  # the plain transformers or PEFT object
    tokenizer: Any
    labels: LabelSpec
    max_length: int
    truncate: Side
    forward: Forward
    calibrated: Calibrated = AS_IT_IS

    @classmethod
    def load(cls, model: Path | str, device: str = "auto", *, weights: Path | None = None) -> Predictor:
        """From a model or adapter folder or a Hub id; `weights`: a checkpoint folder of the same run, put on top."""
        return cls.of(load_saved(model, which_device(device)), weights=weights)

    @classmethod
    def of(cls, loaded: Loaded, *, weights: Path | None = None) -> Predictor:
        """What was loaded. Raises ModelError where it has no labels."""
        if loaded.labels is None:
            raise ModelError("this model writes text and knows no labels; tunewright.load gives what it can do")
        if weights is not None:
            check_headers(weights)
            load_weights(loaded.model, load_file(weights / "weights.safetensors"))
            loaded = replace(loaded, calibrated=AS_IT_IS)  # it was fitted to the final model
        return cls._of(loaded)

    @classmethod
    def load_untrained(cls, run_folder: Path, device: str = "auto") -> Predictor:
        """The model of a run as it was before its first step: the base under the same new head."""
        scan_run(run_folder)
        check_headers(run_folder)
        summary = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
        tuned = load_saved(run_folder / "model")
        assert tuned.labels is not None  # a model that writes has no untrained head: `Writer.untrained`
        loaded = load_base(base_of_run(summary, run_folder), tuned.labels, seed=0)
        load_weights(loaded.model, load_file(run_folder / "untrained.safetensors"))
        loaded.model.to(which_device(device)).eval()
        return cls._of(Loaded(loaded.model, tuned.tokenizer, tuned.labels, max_length=tuned.max_length,
                              truncate=tuned.truncate))  # fmt: skip

    @classmethod
    def _of(cls, loaded: Loaded) -> Predictor:
        assert loaded.labels is not None
        forward = Forward.checked(loaded.model)
        side = cast(Side, loaded.truncate)
        return cls(loaded.model, loaded.tokenizer, loaded.labels, _longest(loaded), side, forward, loaded.calibrated)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order. Raises ModelError where the model's answer is no number."""
        if not texts:
            return []
        ids = encode_texts(list(texts), self.tokenizer, self.max_length, self.truncate)
        logits = predict_logits(self.forward, ids)
        if not np.isfinite(logits).all():
            raise ModelError("the model answers NaN or infinity; its weights are damaged, or its training diverged")
        return [self._prediction(row) for row in logits]

    def stream(self, rows: Iterable[Row], column: str, block: int = BLOCK) -> Iterator[dict[str, Any]]:
        """Each row's own columns, then `prediction` and `probabilities`.

        Raises DataError naming a row whose text is empty, or whose own columns the answer would replace.
        """
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, block)):
            texts = [_text(row, column) for row in chunk]
            for row, said in zip(chunk, self.predict(texts), strict=True):
                yield {**row.values, **dict(zip(ANSWER, (said.prediction, dict(said.probabilities)), strict=True))}

    def _prediction(self, logits: np.ndarray) -> Prediction:
        if self.labels.kind == "number":
            return Prediction(float(logits[0]))
        names, kind, rule = self.labels.names, self.labels.kind, self.calibrated
        shares = probabilities(scaled(logits[None], rule.temperature), kind)
        named = {name: float(share) for name, share in zip(names, shares[0], strict=True)}
        limits = {names.index(name): value for name, value in rule.thresholds.items()}
        said = decide(shares, kind, limits, rule.abstain_below)[0]
        if kind == "multi":
            return Prediction([name for name, holds in zip(names, said, strict=True) if holds], named)
        return Prediction(None if said == UNKNOWN else names[int(said)], named)


def which_device(device: str) -> str:
    """The device that `auto` means here; any other as it is."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _longest(loaded: Loaded) -> int:
    """Tokens of a text that are read: as many as were in training, and never more than the model has positions for."""
    config = loaded.model.config
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions is None:
        return loaded.max_length or UNKNOWN_LENGTH
    row = architectures.find(loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model)
    if row is not None and row.positions_start == "after_padding":
        positions -= config.pad_token_id + 1
    return min(loaded.max_length or positions, positions)


def base_of_run(summary: Mapping[str, Any], run_folder: Path) -> BaseModel:
    """The base that a run.json names: where it was, or by its name, when the run was made on another machine."""
    model = summary["model"]
    if Path(model["path"]).is_dir():
        return BaseModel(model["path"], model["path"], "folder")
    try:
        return resolve_base(model["hub_id"] or model["name"], model["revision"], run_folder.parent)
    except (ModelError, OSError) as error:
        raise ModelError(f"the untrained model can't be shown: its base is not here ({error})") from None


def _text(row: Row, column: str) -> str:
    """The row's text, once it is sure that the row can be answered."""
    refuse_taken(row, ANSWER)
    text = text_of(row, column)
    if not text:
        raise DataError("the text is empty; remove the row or fill it in", where=row.where, field=column)
    return text


def refuse_taken(row: Row, names: Sequence[str]) -> None:
    """DataError where the row has one of these columns already."""
    for name in (name for name in names if name in row.values):
        raise DataError(
            f'there is a column "{name}" already, which the answer would replace; rename or remove it',
            where=row.where,
            field=name,
        )


# ---- files ----


def predict_file(predictor: Predictor, source: Path | str, target: Path | str, text: str = "auto") -> int:
    """Label a file (JSONL, CSV and the others that training reads; `-` is JSONL on stdin); returns the rows written.

    The target is JSONL, or CSV or TSV where its name says so (probabilities as JSON text); `-` is JSONL on stdout. A
    file appears whole or not at all.
    """
    check_target(target, source)
    rows, column = _rows_and_column(source, text)
    return write_rows(predictor.stream(rows, column), target)


def rows_of(source: Path | str) -> Iterable[Row]:
    """The rows of a file, or of JSON Lines on stdin."""
    return json_line_rows(sys.stdin.buffer, "stdin") if str(source) == STANDARD else open_file(Path(source)).rows()


def _rows_and_column(source: Path | str, text: str) -> tuple[Iterable[Row], str]:
    """Rows and the name of the text column; stdin is read once, so its first row decides."""
    if str(source) != STANDARD:
        opened = open_file(Path(source))
        return opened.rows(), find_columns(opened, text, need_label=False).text
    rows = json_line_rows(sys.stdin.buffer, "stdin")
    first = next(rows, None)
    if first is None:
        raise DataError("is empty; expected one JSON object per line", where="stdin")
    column = find_columns(Seen([first]), text, need_label=False).text
    return itertools.chain([first], rows), column


@dataclass
class Seen:
    """Rows already read, as a source for guessing columns."""

    seen: list[Row]
    name: str = "stdin"

    def rows(self) -> Iterator[Row]:
        return iter(self.seen)

    def fingerprint(self) -> str:
        return ""
