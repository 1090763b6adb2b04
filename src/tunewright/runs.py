"""Runs on disk: find one by name, list them with the truth about dead ones, and a `Run` to work with.

Reads what `recording` writes; writes nothing but removals. A name, a unique prefix, `latest`, a path or a Hub id names
a run; `RUN:best` and `RUN:step-400` name a checkpoint of it.
"""

from __future__ import annotations

import html
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright import durable, locking
from tunewright.errors import ModelError, UsageError, did_you_mean
from tunewright.recording import ACTIVE, read_json_object, read_jsonl
from tunewright.scanning.files import scan_run

if TYPE_CHECKING:
    from tunewright.serving.answering import Opened
    from tunewright.serving.predict import Prediction
    from tunewright.serving.writer import Written


@dataclass(frozen=True)
class RunRef:
    """A run, or one checkpoint of it."""

    folder: Path
    checkpoint: str | None = None  # None: the final model; "best" or "step-400"

    def __post_init__(self) -> None:
        scan_run(self.folder)  # before anything in it is read or written; it may be a stranger's

    @property
    def model_folder(self) -> Path:
        """The folder that from_pretrained loads. Raises ModelError when the run has no model yet."""
        if not (self.folder / "model").is_dir():
            state = read_summary(self.folder).get("state", "unknown")
            raise ModelError(
                f"this run has no model (state: {state}); continue it with --resume", where=str(self.folder)
            )
        return self.folder / "model"

    @property
    def step(self) -> int | None:
        """Step of the checkpoint, or None for the final model."""
        if self.checkpoint is None:
            return None
        if self.checkpoint == "best":
            best = read_summary(self.folder).get("best")
            if not best:
                raise ModelError("this run has no best checkpoint yet", where=str(self.folder))
            return int(best["step"])
        return int(self.checkpoint.removeprefix("step-"))

    @property
    def weights(self) -> Path | None:
        """Folder of the named checkpoint, verified; None for the final model. Raises ModelError."""
        if self.step is None:
            return None
        from tunewright.learning.checkpoints import verify

        path = self.folder / "checkpoints" / f"step-{self.step:06d}"
        if not path.is_dir():
            there = sorted(p.name for p in path.parent.glob("step-*"))
            raise ModelError(
                f"no checkpoint of step {self.step}; there are {', '.join(there) or 'none'}", where=str(path)
            )
        verify(path)
        return path

    def load(self) -> Opened:
        """The model this names, ready to predict or to write."""
        from tunewright.serving.answering import open_model

        return open_model(self.model_folder, weights=self.weights)


def find_run(name: str | Path, runs: Path = Path("runs")) -> RunRef:
    """The run of this name, unique prefix, `latest`, or path, with `:best` or `:step-N`. Raises UsageError."""
    text, checkpoint = _checkpoint(str(name))
    direct = Path(text)
    if (direct / "run.json").is_file():
        return RunRef(direct, checkpoint)
    names = sorted(folder.name for folder in run_folders(runs))
    if text == "latest":
        if not names:
            raise UsageError(f"no runs in {runs} yet; start one with: tunewright train reviews.jsonl")
        return RunRef(max((runs / n for n in names), key=_created), checkpoint)
    matches = [n for n in names if n == text] or [n for n in names if n.startswith(text)]
    matches = matches or [n for n in names if read_summary(runs / n).get("name") == text]
    if len(matches) == 1:
        return RunRef(runs / matches[0], checkpoint)
    if matches:
        shown = ", ".join(matches[:5])
        raise UsageError(f'"{text}" could be {shown}{" …" if len(matches) > 5 else ""}; write more of the name')
    raise UsageError(f'no run "{text}" in {runs}.{did_you_mean(text, [*names, *_plain_names(names)])}')


def run_folders(runs: Path) -> list[Path]:
    """Folders of runs; one that is half removed has a name that starts with a dot."""
    return [p.parent for p in runs.glob("*/run.json") if not p.parent.name.startswith(".")] if runs.is_dir() else []


def _checkpoint(text: str) -> tuple[str, str | None]:
    stem, colon, last = text.rpartition(":")
    if colon and (last == "best" or (last.startswith("step-") and last[5:].isdigit())):
        return stem, last
    return text, None


def _plain_names(names: Sequence[str]) -> list[str]:
    """Names without their date, which is what people remember."""
    return [n.split("-", 2)[2] for n in names if n.count("-") >= 2]


def _created(folder: Path) -> tuple[str, str]:
    return read_summary(folder).get("created") or "", folder.name


def read_summary(folder: Path) -> dict[str, Any]:
    """run.json, with the truth about a process that is gone. Raises ModelError if it can't be read."""
    from tunewright.summaries import checked  # pydantic, which `--help` does without

    summary = checked(read_json_object(folder / "run.json"), folder)
    if summary.get("state") in ACTIVE and not is_alive(folder, summary):
        summary["state"] = "interrupted"
    return summary


def is_alive(folder: Path, summary: dict[str, Any]) -> bool:
    """Whether a process still writes the run: it holds the lock. A process number could be another's by now."""
    # Locks of another machine may not be seen through a network file system, so its word is taken.
    return locking.is_held(folder / "lock") or summary.get("host") != socket.gethostname()


def list_runs(runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """run.json of every run, oldest first; a damaged one shows its state as `unreadable`."""
    rows = []
    for folder in run_folders(runs):
        try:
            rows.append(read_summary(folder))
        except ModelError as error:
            rows.append({"id": folder.name, "state": "unreadable", "error": {"message": str(error)}})
    return sorted(rows, key=lambda row: (row.get("created") or "", row.get("id") or ""))


def remove_run(ref: RunRef) -> None:
    """Delete a run's folder. Raises UsageError while it is running, MachineError if it can't be removed."""
    if read_summary(ref.folder).get("state") in ACTIVE:
        raise UsageError(f"{ref.folder.name} is running; stop it first")
    with durable.storing(ref.folder, "can't be removed"):
        held = locking.hold(ref.folder / "lock")  # nobody resumes what is being removed
        if held is None:
            raise UsageError(f"{ref.folder.name} is in use by {locking.owner(ref.folder / 'lock')}; stop it first")
        durable.remove_folder(ref.folder)
        held.release()


@dataclass(frozen=True)
class Table:
    """Rows to print, or to show in a notebook."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        widths = [max(len(r[i]) for r in (self.columns, *self.rows)) for i in range(len(self.columns))]
        lines = [_aligned(self.columns, widths), *(_aligned(row, widths) for row in self.rows)]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell.ljust(width) if not cell[:1].isdigit() else cell.rjust(width)
        for cell, width in zip(cells, widths, strict=True)
    )


@dataclass(frozen=True)
class Comparison:
    """The same texts before and after."""

    rows: tuple[tuple[str, Prediction | Written | None, Prediction | Written], ...]  # text, untrained, tuned

    @property
    def table(self) -> Table:
        return Table(
            ("text", "before", "after"),
            tuple((text, str(before) if before else "-", str(after)) for text, before, after in self.rows),
        )

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


@dataclass(frozen=True, repr=False)
class Run:
    """One run, finished or not."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def summary(self) -> dict[str, Any]:
        """run.json, read now."""
        return read_summary(self.folder)

    @property
    def state(self) -> str:
        return self.summary["state"]

    @property
    def metrics(self) -> dict[str, float]:
        """Validation metrics of the final model."""
        return self.summary.get("metrics") or {}

    @property
    def report_path(self) -> Path:
        return self.folder / "report.html"

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl that hold an evaluation; step 0 is the untrained model."""
        return [r for r in read_jsonl(self.folder / "metrics.jsonl") if any(k.startswith("validation/") for k in r)]

    @property
    def table(self) -> Table:
        """One row per evaluation."""
        metric = (self.summary.get("best") or {}).get("metric", "accuracy").removeprefix("validation/")
        best = (self.summary.get("best") or {}).get("step")
        names = ["train/loss", "validation/loss", f"validation/{metric}"]
        rows = [
            (
                f"{row['epoch']:g}" + (" *" if row["step"] == best else ""),
                str(row["step"]),
                *(f"{row[name]:.3f}" if name in row else "-" for name in names),
            )
            for row in self.evaluations
        ]
        return Table(("epoch", "step", "train loss", "validation loss", metric), tuple(rows))

    @cached_property
    def predictor(self) -> Opened:
        """The final model, loaded once."""
        return RunRef(self.folder).load()

    @cached_property
    def untrained(self) -> Opened | None:
        """The model as it was before the first step: the base, of a classifier with the same new head."""
        from tunewright.serving.predict import Predictor
        from tunewright.serving.reward_model import RewardModel
        from tunewright.serving.writer import Writer

        if isinstance(self.predictor, Writer):
            return self.predictor.without_adapter() or Writer.untrained(self.folder)
        kind = RewardModel if isinstance(self.predictor, RewardModel) else Predictor
        there = (self.folder / "untrained.safetensors").exists()
        return kind.load_untrained(self.folder) if there else None

    def predict(self, texts: Sequence[str | Mapping[str, Any]]) -> list[Prediction] | list[Written]:
        """What the tuned model says of each text; a model that writes takes rows of its template's columns too."""
        return self.predictor.predict(texts)  # type: ignore[arg-type]

    def compare(self, texts: Sequence[str | Mapping[str, Any]]) -> Comparison:
        """The same texts before and after."""
        before = self.untrained.predict(texts) if self.untrained else [None] * len(texts)  # type: ignore[arg-type]
        shown = [text if isinstance(text, str) else ", ".join(map(str, text.values())) for text in texts]
        return Comparison(tuple(zip(shown, before, self.predict(texts), strict=True)))

    def model(self) -> Any:
        """The plain transformers or PEFT object."""
        return self.predictor.model

    def push(self, repo_id: str, *, private: bool = True) -> str:
        """Upload the model with its card; returns the address."""
        from tunewright.serving.hub import push

        return push(self.folder, repo_id, private=private)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, state={self.state!r})"
