"""From finished trials and baselines to the leaderboard, and from its leader to a recipe that can be trained.

Reads the trials' folders; what is better than what, `evaluation.leaderboard` decides on resamples of the judged rows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file

from tunewright import durable, recipe_files
from tunewright.choosing.crew import SHARED, Crew
from tunewright.choosing.rows import ComparedRows
from tunewright.choosing.work import SPEED
from tunewright.errors import UsageError
from tunewright.evaluation.leaderboard import RESAMPLES, Board, BoardRow, Candidate, Trial, board
from tunewright.evaluation.resampling import Measured, resampled, value
from tunewright.evaluation.winner import Expected, expected_of_winner
from tunewright.planning.trials import given_values
from tunewright.recipe import Recipe
from tunewright.recording import read_json_object, write_atomically

BASE_SEED = 0  # of the resamples: the same for every trial, so that differences are paired


@dataclass(frozen=True, eq=False)
class Entry:
    """A candidate with what is known of it."""

    name: str
    measured: tuple[Measured, ...]  # of each seed
    costs: tuple[dict[str, float], ...]
    baseline: bool = False

    def as_candidate(self) -> Candidate:
        trials = [
            Trial(seed, value(one), resampled(one, RESAMPLES, BASE_SEED), costs)
            for seed, (one, costs) in enumerate(zip(self.measured, self.costs, strict=True))
        ]
        return Candidate(self.name, tuple(trials), self.baseline)


@dataclass(frozen=True)
class Left:
    """A candidate that didn't go to the end."""

    name: str
    why: str  # a sentence
    value: float | None = None  # the metric when it was left
    behind: float | None = None  # the leader of that moment, and its interval
    behind_interval: tuple[float, float] | None = None
    p_value: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Outcome:
    """A finished comparison."""

    name: str
    folder: Path
    board: Board
    expected: Expected | None
    left: tuple[Left, ...]
    facts: dict[str, Any]  # rows, tokens, budget, seeds, metric, kind …
    said: tuple[str, ...] = ()
    runs: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # candidate -> folders of its trials
    best: Path | None = None  # recipe of the best trained one
    cheaper: tuple[str, Path] | None = None  # name and recipe of one as good that costs less

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in leaderboard.json."""
        expected = None if self.expected is None else dict(vars(self.expected))
        return {
            "name": self.name,
            "folder": str(self.folder),
            **self.board.to_json(),
            "expected_of_best": expected,
            "left": [one.to_json() for one in self.left],
            "facts": self.facts,
            "notes": list(self.said),
            "runs": self.runs,
            "best": str(self.best) if self.best else None,
            "cheaper": None if self.cheaper is None else {"name": self.cheaper[0], "recipe": str(self.cheaper[1])},
        }


def make_board(entries: Sequence[Entry], rows: ComparedRows) -> tuple[Board, Expected | None]:
    """The board, and what its leader would show on new rows."""
    found = board([one.as_candidate() for one in entries], rows.metric, higher_is_better=rows.higher_is_better)
    # Never as one of several: the leader was chosen among all of these.
    chosen = [entry.measured for entry in entries]
    return found, expected_of_winner(chosen, higher_is_better=rows.higher_is_better, seed=BASE_SEED)


def costs_of(run: Path) -> dict[str, float]:
    """What a finished trial cost; its seconds of training are all of them, however often it was stopped."""
    summary = read_json_object(run / "run.json")
    speed = read_json_object(run / SPEED) if (run / SPEED).exists() else {}
    tokens, rate = summary.get("train_tokens_seen"), summary.get("tokens_per_second")
    found: dict[str, Any] = {
        "train_seconds": tokens / rate + (summary.get("frozen_seconds") or 0.0) if tokens and rate else None,
        "peak_memory_bytes": summary.get("peak_memory_bytes"),
        "saved_bytes": (summary.get("model") or {}).get("saved_bytes"),
        **speed,
    }
    return {name: float(amount) for name, amount in found.items() if amount is not None}


# ---- at a rung ----


def keep_mark(path: Path, measured: Measured) -> None:
    """A trial's metric and its resamples as they are now: its next evaluation replaces the answers behind them."""
    import torch

    drawn = resampled(measured, RESAMPLES, BASE_SEED)
    with durable.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"value": torch.tensor([value(measured)], dtype=torch.float64), "resampled": torch.from_numpy(drawn)}
        durable.write_tensors(path, tensors)


def board_of_marks(marks: Mapping[str, Path], rows: ComparedRows) -> Board:
    """The candidates at a rung, one seed each."""
    found: list[Candidate] = []
    for name, path in marks.items():
        kept = {key: tensor.numpy() for key, tensor in load_file(path).items()}
        found.append(Candidate(name, (Trial(0, float(kept["value"][0]), kept["resampled"], {}),)))
    return board(found, rows.metric, higher_is_better=rows.higher_is_better)


def left_at(row: BoardRow, words: str) -> Left:
    """A candidate that dropped out at a rung."""
    interval = (row.behind_interval.low, row.behind_interval.high)
    return Left(row.name, words, row.value, row.behind, interval, row.p_value)


# ---- baselines on disk ----


def keep_baseline(path: Path, name: str, costs: Mapping[str, float], **more: Any) -> None:
    """A baseline's answers, so that a start after a stop doesn't ask again."""
    plain = {key: item.tolist() if isinstance(item, np.ndarray) else item for key, item in more.items()}
    write_atomically(path, json.dumps({"name": name, "costs": dict(costs), **plain}))


def baseline_entry(path: Path, rows: ComparedRows) -> Entry:
    """The same as an entry of the board."""
    kept = read_json_object(path)
    if "logits" in kept:
        measured = rows.of_logits(np.asarray(kept["logits"], np.float64))
    else:
        measured = rows.of_answers(kept["answers"], kept["ended"])
    return Entry(kept["name"], (measured,), (dict(kept["costs"]),), baseline=True)


# ---- what to take ----


def finish(
    entries: Sequence[Entry],
    rows: ComparedRows,
    crew: Crew,
    *,
    name: str,
    left: Sequence[Left],
    said: Sequence[str],
    facts: Mapping[str, Any],
    begin: float,
    values: Callable[[str], Mapping[str, Any]],
) -> Outcome:
    """The board, the recipes of what to take, leaderboard.json and the report; what was shared is removed.

    `values` gives a candidate's recipe as the person would have written it.
    """
    from tunewright.choosing.report import write_report

    crew.tell("comparing")
    if not any(not entry.baseline for entry in entries):
        raise UsageError(
            f"no trial came to its end: {left[-1].why if left else 'none was run'}", where=str(crew.folder)
        )
    found, expected = make_board(entries, rows)
    crew.ledger.put(seconds=round(float(crew.ledger.get("seconds", 0.0)) + time.monotonic() - begin, 1))
    trained, cheap = best_trained(found), cheaper_one(found)
    assert trained is not None

    def recipe(file: str, row: BoardRow, words: str) -> Path:
        comment = f"{row.name}: {words} of {facts['candidates']} candidates; see report.html beside this file"
        return write_recipe(crew.folder / f"{file}.yaml", values(row.name), [comment])

    outcome = Outcome(
        name=name,
        folder=crew.folder,
        board=found,
        expected=expected,
        left=tuple(left),
        facts=_facts_of(rows) | dict(facts) | {"seconds": crew.ledger.get("seconds")},
        said=tuple(dict.fromkeys([*rows.said, *said])),
        runs=crew.folders(),
        best=recipe("best", trained, "the best"),
        cheaper=(cheap.name, recipe("cheaper", cheap, "as good as the best, for less,")) if cheap else None,
    )
    write_atomically(crew.folder / "leaderboard.json", json.dumps(outcome.to_json(), indent=1, default=str))
    write_report(outcome)
    shutil.rmtree(crew.folder / SHARED, ignore_errors=True)
    return outcome


def _facts_of(rows: ComparedRows) -> dict[str, Any]:
    return {"kind": rows.kind, "train_rows": rows.num_train, "judged_rows": rows.num_judged}


def best_trained(found: Board) -> BoardRow | None:
    """The best of those that were trained."""
    return next((row for row in found.rows if not row.baseline), None)


def cheaper_one(found: Board, cost: str = "train_seconds") -> BoardRow | None:
    """The cheapest of those that can't be told from a trained leader, where that isn't the leader."""
    leader = found.leader
    if leader.baseline:
        return None
    prices = [(row.costs[cost], row) for row in found.rows[1:]
              if row.as_good and not row.baseline and cost in row.costs]  # fmt: skip
    below = [pair for pair in prices if cost in leader.costs and pair[0] < leader.costs[cost]]
    return min(below, key=lambda pair: pair[0])[1] if below else None


def write_recipe(path: Path, values: Mapping[str, Any], comments: Sequence[str] = ()) -> Path:
    """Given values as a recipe that `tunewright train` runs from anywhere; a comment a line on top."""
    checked = recipe_files.build_recipe(values)
    lines = [f"# {comment}" for comment in comments]
    for name, item in given_values(_found_anywhere(checked)).items():
        text = yaml.dump({name: item}, Dumper=recipe_files._Dumper, sort_keys=False, allow_unicode=True, width=10**9)
        lines.append(text.rstrip("\n"))
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _found_anywhere(recipe: Recipe) -> Recipe:
    """Paths of data and model as absolute ones."""
    changes = {
        name: str(Path(given).expanduser().resolve())
        for name in ("train", "validation")
        if isinstance(given := getattr(recipe.data, name), str) and Path(given).expanduser().exists()
    }
    model = Path(recipe.model).expanduser()
    folder = {"model": str(model.resolve())} if model.is_dir() and len(model.parts) > 1 else {}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes), **folder})
