"""`plan`: the pipeline up to the first step, without a run folder: every decision with its origin, and the cost.

The same arrows in the same order as `pipeline`, which takes over where this stops. Only the cache of token arrays is
written, as `train` would write it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import costing, describing, opening
from tunewright.data.preparing import HELD_OUT
from tunewright.errors import MachineError
from tunewright.pipeline import prepared
from tunewright.planning.estimate import Estimate
from tunewright.progress import Listener, Phase, silent
from tunewright.recipe import Recipe
from tunewright.recording import Recorder
from tunewright.runtime import started

WRITTEN_BYTES = 16 << 20


@dataclass(frozen=True)
class Planned:
    """What a run would do, and cost."""

    name: str
    recipe: Recipe  # nothing left to decide
    origins: dict[str, str]  # path -> given, default, auto: why
    facts: dict[str, Any]  # what run.json would say of model and data
    rows: tuple[tuple[str, str], ...]  # of the header
    notes: tuple[str, ...]
    estimate: Estimate
    problem: MachineError | None  # why it can't run here

    def to_json(self) -> dict[str, Any]:
        """The object of `plan --json`."""
        decided = self.recipe.model_dump(mode="json")
        return {
            "plan": self.name,
            **self.facts,
            "recipe": decided,
            "origins": self.origins,
            "notes": list(self.notes),
            **self.estimate.to_json(),
            "error": _plain(self.problem),
        }


def _plain(problem: MachineError | None) -> dict[str, Any] | None:
    return {"code": problem.code, "message": problem.message, "param": problem.field} if problem else None


class _NoFolder(Recorder):
    """Keeps what is said, tells the listener, writes nothing."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(Path("no-folder"), listener, writes=False)

    def tell(self, event: Any) -> None:
        self.listener(event)


def plan_run(
    recipe: Recipe,
    *,
    data: Any = None,
    validation: Any = None,
    runs: Path = Path("runs"),
    listener: Listener = silent,
    before_seconds: float = 0.0,
    probing: bool = True,
) -> Planned:
    """Decide and measure as `train` would. `before_seconds`: how old the process was at the call."""
    begin, t = time.perf_counter(), recipe.training
    recorder = _NoFolder(listener)
    with started(t.device, t.precision, t.threads) as runtime:
        recorder.tell(Phase("reading the data"))
        ready = prepared(recipe, data, validation, runs, runtime, recorder)
        task, base, resolved, origins = ready.task, ready.base, ready.recipe, ready.origins
        tokens, trained, plan = ready.tokens, ready.trained, ready.plan
        recorder.tell(Phase("running three steps" if probing else "counting"))
        costs = costing.estimated(
            resolved, base, tokens, trained, plan, runtime, runs,
            passed=lambda: before_seconds + time.perf_counter() - begin,
            probing="always" if probing else "never", writing=_writing_speed(runs),
        )  # fmt: skip
        facts = describing.facts(resolved, task, tokens, base, trained, plan)
        decided, why = describing.decided_here(resolved, origins, plan.micro_batch_tokens, runtime)
        decided, why = _with_data(decided, why, facts["data"], task.splits.validation is None)
        name = recipe.name or opening._name_of(recipe)
        header = describing.header(
            resolved, task, tokens, base, trained, plan, runtime, runs / name, costing.in_short(costs.estimate)
        )
        return Planned(
            name,
            decided,
            why,
            facts,
            header.rows,
            tuple(recorder.summary.get("notes", ())),
            costs.estimate,
            _problem(costs, resolved, trained.forward.num_layers),
        )


def _with_data(
    recipe: Recipe, origins: dict[str, str], data: dict[str, Any], held_out: bool
) -> tuple[Recipe, dict[str, str]]:
    """What the data itself decided; recipe.resolved.yaml leaves it `auto`, since it is read anew on resume."""
    found: dict[str, Any] = {}
    if "text_column" in data:
        found = {"text": data["text_column"], "label": data["label_column"], "labels": data["labels"] or "number"}
    found["validation"] = HELD_OUT if held_out else "the folder's own"
    settled = {key: value for key, value in found.items() if getattr(recipe.data, key) == "auto"}
    origins = origins | {f"data.{key}": "auto: found in the data" for key in settled}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=settled)}), origins


def _problem(costs: costing.Costs, recipe: Recipe, num_layers: int) -> MachineError | None:
    try:
        costing.refuse_what_does_not_fit(costs, recipe, num_layers)
    except MachineError as error:
        return error
    return None


def _writing_speed(runs: Path) -> float | None:
    """Bytes/s written, checksummed and synced where runs lie; None where nothing can be written now."""
    there = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.is_dir())
    body = bytes(WRITTEN_BYTES)
    try:
        with tempfile.TemporaryFile(dir=there) as stream:
            begin = time.perf_counter()
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
            hashlib.sha256(body)
            return WRITTEN_BYTES / (time.perf_counter() - begin)
    except OSError:
        return None
