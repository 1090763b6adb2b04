"""Whatever a model is for: opened by what its folder holds, and a file answered with it.

A classifier becomes a `Predictor`, a model that writes a `Writer`, one that scores completions a `RewardModel`;
commands and library ask here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.data.columns import find_columns
from tunewright.data.examples import Row
from tunewright.errors import UsageError
from tunewright.models.finding import from_hub
from tunewright.models.loading import load_saved
from tunewright.models.sampling import Sampling
from tunewright.serving.predict import Predictor, Seen, predict_file, rows_of, which_device
from tunewright.serving.reward_model import RewardModel, is_reward_model
from tunewright.serving.writer import Writer
from tunewright.serving.writing import check_target, write_rows

Opened = Predictor | Writer | RewardModel


def open_model(model: Path | str, device: str = "auto", *, weights: Path | None = None) -> Opened:
    """From a model or adapter folder or a Hub id; `weights`: a checkpoint folder of the same run, put on top."""
    folder = Path(model) if Path(model).is_dir() else Path(from_hub(str(model)).path)
    loaded = load_saved(folder, which_device(device))
    if loaded.labels is None:
        return Writer.of(loaded, folder, weights=weights)
    if is_reward_model(folder):
        return RewardModel.of(loaded, folder, weights=weights)
    return Predictor.of(loaded, weights=weights)


@dataclass
class FileAnswers:
    """What happened to a file."""

    rows: int = 0
    cut_rows: int = 0  # whose prompt was too long
    cut_tokens: int = 0

    def cut(self, row: Row, tokens: int) -> None:
        """Count one."""
        self.cut_rows += 1
        self.cut_tokens += tokens


def answer_file(
    model: Opened, source: Path | str, target: Path | str, *, text: str | None = None, **settings: Any
) -> FileAnswers:
    """Answer each row of a file and write it again, whatever the model is for; see `predict_file` and `write_file`.

    `settings` are those of `Sampling` that somebody asked for. UsageError for a model that draws nothing.
    """
    if isinstance(model, Writer):
        return write_file(model, source, target, text=text, sampling=model.sampling(**settings))
    if settings:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise UsageError(f"{names} is for models that write, and this one doesn't")
    if isinstance(model, RewardModel):
        return score_file(model, source, target, text=text)
    return FileAnswers(predict_file(model, source, target, text=text or "auto"))


def score_file(model: RewardModel, source: Path | str, target: Path | str, *, text: str | None = None) -> FileAnswers:
    """Score the completion of each row of a file (`-`: JSON Lines on stdin); see `RewardModel.stream`."""
    if text is not None:
        says = "a reward model reads the columns it was trained with and completion, so there is no column to choose"
        raise UsageError(says, field="--text")
    check_target(target, source)
    return FileAnswers(write_rows(model.stream(rows_of(source)), target))


def write_file(
    writer: Writer,
    source: Path | str,
    target: Path | str,
    *,
    text: str | None = None,
    sampling: Sampling | None = None,
) -> FileAnswers:
    """Answer each row of a file (`-`: JSON Lines on stdin) and write it with `prediction` and `stopped`.

    The run's template is applied to the row's columns; `text` names a column that holds the whole question instead. A
    model without a format takes the column of the text. The target is as for classifiers, whole or not there.
    """
    check_target(target, source)
    found = FileAnswers()
    rows, column = _rows(writer, source, text)
    found.rows = write_rows(writer.stream(rows, sampling, column=column, on_cut=found.cut), target)
    return found


def _rows(writer: Writer, source: Path | str, text: str | None) -> tuple[Iterable[Row], str | None]:
    """Rows, and the column that holds the whole question where it isn't the format's business."""
    rows = iter(rows_of(source))
    first = list(itertools.islice(rows, 1))
    every = itertools.chain(first, rows)
    if text is not None:
        writer.format.row("")  # refused before a model has worked, where the template reads several columns
        return every, text
    knows = writer.has_own_format or not first or set(writer.format.reading.columns) <= set(first[0].values)
    if not knows:
        return every, find_columns(Seen(first), "auto", need_label=False).text
    return every, None


def needs_writer(model: Opened, what: str) -> Writer:
    """The model, if it writes. UsageError: `what` it can't do."""
    if isinstance(model, Writer):
        return model
    kind = "reward model" if isinstance(model, RewardModel) else "classifier"
    raise UsageError(f"{what} is for models that write, and this is a {kind}")
