"""The rows of a comparison, fixed once: what every trial learns from, and what all of them are judged by.

A split that the recipe leaves to chance hangs on the seed, and trials have several seeds; so it is made once, with the
recipe's own seed, and written down as two files that every trial reads. Also knows the truth about the judged rows,
from which any trial's answers become a metric that can be resampled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from tunewright import stages
from tunewright.data.examples import Row, Source
from tunewright.data.values import plain
from tunewright.errors import ModelError, UsageError
from tunewright.evaluation.metrics import HIGHER_IS_BETTER, default_metric
from tunewright.evaluation.resampling import Measured, of_logits, of_texts
from tunewright.evaluation.texts import HIGHER_IS_BETTER as TEXTS_HIGHER
from tunewright.evaluation.texts import score_likelihoods, score_texts
from tunewright.recipe import Recipe
from tunewright.recording import Recorder, read_jsonl, write_atomically
from tunewright.tasks.labelled_rows import LabelledRows, read_rows
from tunewright.tasks.write import Write

LIKELIHOODS = ("loss", "perplexity", "token_accuracy")
DEFAULT_TEXT_METRIC = "f1"  # of answers: a loss per token means another thing for another tokenizer
ROWS_ANSWERED = 64  # validation rows answered in text, where the recipe doesn't say
TASKS = ("classify", "generate", "continue")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts with labels, for the baselines that count words."""

    texts: list[str]
    labels: np.ndarray
    groups: np.ndarray  # equal texts by equal numbers


@dataclass(frozen=True, eq=False)
class ComparedRows:
    """What is learnt and what is judged, the same for every trial."""

    metric: str
    higher_is_better: bool
    kind: str  # single, multi, number, text
    data: dict[str, Any]  # settings under `data` that every trial's recipe takes
    evaluation: dict[str, Any]  # the same under `evaluation`
    num_train: int
    num_judged: int  # rows behind the metric
    said: tuple[str, ...] = ()
    labels: np.ndarray | None = None  # of the judged rows
    references: tuple[tuple[str, ...], ...] = ()  # accepted answers of the rows that are answered
    num_outputs: int = 0
    train: Labelled | None = None
    judged_texts: list[str] = field(default_factory=list[str])

    def measured(self, run: Path) -> Measured:
        """The metric of a trial, from the answers that its folder keeps of its latest evaluation."""
        folder = run / "predictions"
        if self.labels is not None:
            logits = load_file(_there(folder / "validation-logits.safetensors"))["logits"].numpy()
            return self.of_logits(logits)
        if self.metric in LIKELIHOODS:
            found = load_file(_there(folder / "validation-likelihoods.safetensors"))
            return of_texts(score_likelihoods(*(found[key].numpy() for key in ("nats", "tokens", "hits"))), self.metric)
        rows = list(read_jsonl(_there(folder / "validation-answers.jsonl")))
        return self.of_answers([row["text"] for row in rows], [row["stopped"] != "length" for row in rows])

    def of_logits(self, logits: np.ndarray) -> Measured:
        """The metric of logits [N, C] for the judged rows, in their order."""
        assert self.labels is not None
        if len(logits) != len(self.labels):
            raise ModelError(f"{len(logits):,} answers to {len(self.labels):,} rows; remove the folder and start again")
        return of_logits(logits, self.labels, self.kind, self.metric)  # type: ignore[arg-type]

    def of_answers(self, answers: Sequence[str], stopped: Sequence[bool]) -> Measured:
        """The metric of written answers to the rows that are answered, in their order."""
        pairs = [(a, r, s) for a, r, s in zip(answers, self.references, stopped, strict=True) if r]
        return of_texts(score_texts([a for a, _, _ in pairs], [r for _, r, _ in pairs], [s for *_, s in pairs]),
                        self.metric)  # fmt: skip


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ModelError("the trial kept no answers to the validation rows; remove the folder and start again",
                         where=str(path))  # fmt: skip
    return path


def fix_rows(recipe: Recipe, folder: Path, runs: Path) -> ComparedRows:
    """Read the recipe's data, fix the split under `folder`. UsageError for a task that has no such comparison."""
    if recipe.task not in TASKS:
        raise UsageError(
            f"trials are compared for task {', '.join(TASKS[:-1])} or {TASKS[-1]}, and the task is {recipe.task}; "
            "train the runs by themselves, and put them side by side with: tunewright compare",
            field="task",
        )
    if recipe.task == "classify":
        return _labelled(recipe, read_rows(recipe, runs), folder)
    return _written(recipe, folder, runs)


# ---- labels ----


def _labelled(recipe: Recipe, rows: LabelledRows, folder: Path) -> ComparedRows:
    data, spec, part = rows.data, rows.data.labels, rows.train
    learnt = data.train_rows
    judged_part, judged = (part, data.validation_rows) if rows.validation is None else (rows.validation, None)
    judged = np.arange(len(judged_part)) if judged is None else judged
    named: Any = "number" if spec.kind == "number" else dict(zip(spec.raw, spec.names, strict=True))
    fixed: dict[str, Any] = {"text": data.columns.text, "label": data.columns.label, "labels": named}
    if rows.validation is None:
        sides = {
            "train": (part.rows[i] for i in learnt.tolist()),
            "validation": (part.rows[i] for i in judged.tolist()),
        }
        fixed |= _write_split(folder, sides)
    else:
        fixed |= _own_files(recipe)
    metric = default_metric(spec.kind) if recipe.evaluation.metric == "auto" else recipe.evaluation.metric
    texts, judged_texts = rows.texts(part), rows.texts(judged_part)
    found = ComparedRows(
        metric=metric,
        higher_is_better=HIGHER_IS_BETTER.get(metric, True),
        kind=spec.kind,
        data=fixed,
        evaluation={"metric": metric, "retain": "none"},
        num_train=len(learnt),
        num_judged=len(judged),
        said=data.said,
        labels=judged_part.labels[judged],
        num_outputs=spec.num_outputs,
        train=Labelled([texts[i] for i in learnt.tolist()], part.labels[learnt], part.hashes[learnt]),
        judged_texts=[judged_texts[i] for i in judged.tolist()],
    )
    found.of_logits(np.zeros((len(judged), spec.num_outputs)))  # a metric that these labels haven't: said now
    return found


# ---- words ----


def _written(recipe: Recipe, folder: Path, runs: Path) -> ComparedRows:
    recorder = Recorder(Path("no-folder"), lambda event: None, writes=False)
    task = stages.read_data(recipe, None, None, runs, recorder)
    assert isinstance(task, Write)
    metric = _text_metric(recipe)
    wanted = recipe.evaluation.generate_rows
    answered = 0 if recipe.task == "continue" else min(
        wanted if isinstance(wanted, int) else ROWS_ANSWERED, len(task.validation_rows)
    )  # fmt: skip
    if metric not in LIKELIHOODS and not answered:
        raise UsageError(f"{metric} needs written answers; give evaluation.generate_rows", field="evaluation.metric")
    judged = _rows(task.validation_source, task.validation_rows)
    asked = list(itertools.islice(judged, answered)) if metric not in LIKELIHOODS else []
    fixed = _own_files(recipe)
    if task.splits.validation is None:
        sides = {"train": task.train_rows, "validation": task.validation_rows}
        fixed = _write_split(folder, {k: (r.values for r in _rows(task.splits.train, v)) for k, v in sides.items()})
        if recipe.task == "continue" and recipe.data.text != "auto":
            fixed["text"] = "text"  # as the column was called once it was the only one
    evaluation: dict[str, Any] = {"metric": metric, "retain": "none"}
    if recipe.task == "generate":
        evaluation["generate_rows"] = answered if metric not in LIKELIHOODS else 0
    references = tuple(task.format.references(row) for row in asked)
    if metric not in LIKELIHOODS and not any(references):
        raise UsageError("no validation row has an answer to compare with", field="evaluation.metric")
    return ComparedRows(
        metric=metric,
        higher_is_better=TEXTS_HIGHER.get(metric, True),
        kind="text",
        data=fixed,
        evaluation=evaluation,
        num_train=len(task.train_rows),
        num_judged=sum(map(bool, references)) if references else len(task.validation_rows),
        said=task.said,
        references=references,
    )


def _text_metric(recipe: Recipe) -> str:
    metric = recipe.evaluation.metric
    if metric != "auto":
        return metric
    return "loss" if recipe.task == "continue" else DEFAULT_TEXT_METRIC


def _rows(source: Source, rows: np.ndarray) -> Iterator[Row]:
    wanted = set(map(int, rows))
    return (row for row in source.rows() if row.number in wanted)


def refuse_other_tokenizers(metric: str, folders: Mapping[str, Path]) -> None:
    """A loss per token can't be compared between tokenizers. Raises UsageError naming two of the models."""
    if metric not in LIKELIHOODS:
        return
    prints = {name: _tokenizer_print(folder) for name, folder in folders.items()}
    first, *others = prints
    if other := next((name for name in others if prints[name] != prints[first]), None):
        raise UsageError(
            f"{metric} counts per token, and {first} and {other} have different tokens; choose a metric of the "
            "written answers, such as f1, rouge_l or exact_match",
            field="evaluation.metric",
        )


def _tokenizer_print(folder: Path) -> str:
    there = next((folder / name for name in ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")
                  if (folder / name).is_file()), None)  # fmt: skip
    if there is None:
        return str(folder)
    if there.name != "tokenizer.json":
        return hashlib.sha256(there.read_bytes()).hexdigest()
    model = json.loads(there.read_text(encoding="utf-8")).get("model", {})  # how texts are cut at the end isn't in it
    return hashlib.sha256(json.dumps(model.get("vocab"), sort_keys=True).encode()).hexdigest()


# ---- files ----


def _write_split(folder: Path, sides: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """Both sides as files, unless an earlier start wrote them; the settings that name them."""
    fixed: dict[str, Any] = {"revision": None}
    for side, rows in sides.items():
        path = folder / "data" / f"{side}.jsonl"
        if not path.is_file():
            write_atomically(path, (json.dumps(dict(row), ensure_ascii=False, default=_plain) + "\n" for row in rows))
        fixed[side] = str(path.resolve())
    return fixed


def _plain(value: Any) -> Any:
    found = plain(value)
    return str(value) if found is value else found


def _own_files(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own data, found from wherever the trial is resumed."""
    fixed: dict[str, Any] = {}
    for name in ("train", "validation"):
        given = getattr(recipe.data, name)
        if isinstance(given, str) and Path(given).expanduser().exists():
            fixed[name] = str(Path(given).expanduser().resolve())
    return fixed
