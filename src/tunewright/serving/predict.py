"""Using a model: texts in, labels with probabilities out; files streamed in constant memory, in their order.

Works on a run's model, one of its checkpoints, its untrained state, any adapter or classifier folder, or a Hub id.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors.torch import load_file

from tunewright.data.columns import find_columns
from tunewright.data.examples import Row
from tunewright.data.json_rows import json_line_rows
from tunewright.data.labels import LabelSpec
from tunewright.data.reading import open_file
from tunewright.data.survey import text_of
from tunewright.data.tokenizing import encode_texts
from tunewright.errors import DataError, MachineError, ModelError
from tunewright.evaluation.metrics import probabilities
from tunewright.learning.checkpoints import load_weights
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.models.loading import BaseModel, Loaded, load_base, load_saved, resolve_base

BLOCK = 256  # rows read, answered and written together: enough to sort by length, little to hold


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text."""

    prediction: str | float | list[str]  # a label, a number, or the labels that hold
    probabilities: Mapping[str, float] = field(default_factory=dict[str, float])

    def __str__(self) -> str:
        if isinstance(self.prediction, float):
            return f"{self.prediction:.3f}"
        if isinstance(self.prediction, list):
            return ", ".join(self.prediction) or "none"
        return f"{self.prediction} {self.probabilities[self.prediction]:.2f}"


@dataclass(frozen=True)
class Predictor:
    """A loaded classifier."""

    model: Any  # the plain transformers or PEFT object
    tokenizer: Any
    labels: LabelSpec
    max_length: int
    truncate: str
    forward: Forward

    @classmethod
    def load(cls, model: Path | str, device: str = "auto", *, weights: Path | None = None) -> Predictor:
        """From a model or adapter folder or a Hub id; `weights`: a checkpoint folder of the same run, put on top."""
        loaded = load_saved(model, _device(device))
        if weights is not None:
            load_weights(loaded.model, load_file(weights / "weights.safetensors"))
        return cls._of(loaded)

    @classmethod
    def load_untrained(cls, run_folder: Path, device: str = "auto") -> Predictor:
        """The model of a run as it was before its first step: the base under the same new head."""
        summary = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
        tuned = load_saved(run_folder / "model")
        path = summary["model"]["path"]
        base = BaseModel(path, path, "folder") if Path(path).is_dir() else _elsewhere(summary, run_folder)
        loaded = load_base(base, tuned.labels, seed=0)
        load_weights(loaded.model, load_file(run_folder / "untrained.safetensors"))
        loaded.model.to(_device(device)).eval()
        return cls._of(Loaded(loaded.model, tuned.tokenizer, tuned.labels, max_length=tuned.max_length,
                              truncate=tuned.truncate))  # fmt: skip

    @classmethod
    def _of(cls, loaded: Loaded) -> Predictor:
        longest = loaded.max_length or getattr(loaded.model.config, "max_position_embeddings", 512)
        forward = Forward.checked(loaded.model)
        return cls(loaded.model, loaded.tokenizer, loaded.labels, longest, loaded.truncate, forward)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text, in order."""
        if not texts:
            return []
        ids = encode_texts(list(texts), self.tokenizer, self.max_length, self.truncate)
        return [self._prediction(row) for row in predict_logits(self.forward, ids)]

    def stream(self, rows: Iterable[Row], column: str, block: int = BLOCK) -> Iterator[dict[str, Any]]:
        """Each row's own columns, then `prediction` and `probabilities`. Raises DataError naming an empty text."""
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, block)):
            texts = [_text(row, column) for row in chunk]
            for row, said in zip(chunk, self.predict(texts), strict=True):
                yield {**row.values, "prediction": said.prediction, "probabilities": dict(said.probabilities)}

    def _prediction(self, logits: np.ndarray) -> Prediction:
        if self.labels.kind == "number":
            return Prediction(float(logits[0]))
        shares = probabilities(logits[None], self.labels.kind)[0]
        named = {name: float(share) for name, share in zip(self.labels.names, shares, strict=True)}
        if self.labels.kind == "multi":
            return Prediction([name for name, share in named.items() if share >= 0.5], named)
        return Prediction(self.labels.names[int(shares.argmax())], named)


def _device(device: str) -> str:
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _elsewhere(summary: Mapping[str, Any], run_folder: Path) -> BaseModel:
    """The base of a run that was made on another machine: by its name."""
    model = summary["model"]
    try:
        return resolve_base(model["hub_id"] or model["name"], model["revision"], run_folder.parent)
    except (ModelError, OSError) as error:
        raise ModelError(f"the untrained model can't be shown: its base is not here ({error})") from None


def _text(row: Row, column: str) -> str:
    text = text_of(row, column)
    if not text:
        raise DataError("the text is empty; remove the row or fill it in", where=row.where, field=column)
    return text


# ---- files ----


def predict_file(predictor: Predictor, source: Path | str, target: Path | str, text: str = "auto") -> int:
    """Label a file (JSONL, CSV and the others that training reads; `-` is JSONL on stdin); returns the rows written.

    The target is JSONL, or CSV where its name says so (probabilities as JSON text); it appears whole or not at all.
    """
    rows, column = _opened(source, text)
    answered = predictor.stream(rows, column)
    if str(target) == "-":
        return _write(answered, sys.stdout, as_csv=False)
    path = Path(target)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            count = _write(answered, stream, as_csv=path.suffix.lower() == ".csv")
        temporary.replace(path)
    except MachineError:
        raise
    except OSError as error:
        raise MachineError(f"can't be written ({error.strerror})", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _opened(source: Path | str, text: str) -> tuple[Iterable[Row], str]:
    """Rows and the name of the text column; stdin is read once, so its first row decides."""
    if str(source) != "-":
        opened = open_file(Path(source))
        return opened.rows(), find_columns(opened, text, need_label=False).text
    rows = json_line_rows(sys.stdin.buffer, "stdin")
    first = next(rows, None)
    if first is None:
        raise DataError("is empty; expected one JSON object per line", where="stdin")
    column = find_columns(_Seen([first]), text, need_label=False).text
    return itertools.chain([first], rows), column


@dataclass
class _Seen:
    """Rows already read, as a source for guessing columns."""

    seen: list[Row]
    name: str = "stdin"

    def rows(self) -> Iterator[Row]:
        return iter(self.seen)

    def fingerprint(self) -> str:
        return ""


def _write(rows: Iterator[dict[str, Any]], stream: IO[str], *, as_csv: bool) -> int:
    count = 0
    for line in _csv_lines(rows) if as_csv else (json.dumps(row, ensure_ascii=False) + "\n" for row in rows):
        stream.write(line)
        count += 1
    return count - 1 if as_csv and count else count


def _csv_lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A header and one record per row; what isn't text or a number is written as JSON."""
    columns: list[str] | None = None
    for row in rows:
        if columns is None:
            columns = list(row)
            yield _csv_line(columns)
        yield _csv_line([_cell(row.get(name)) for name in columns])


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value


def _csv_line(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


