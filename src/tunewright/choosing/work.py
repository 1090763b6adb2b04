"""One piece of work of a comparison, in a process of its own: a trial, a measurement, or a base that is only prompted.

    python -m tunewright.choosing.work JOB.json     on stdout lines of JSON: {"say": …} on the way, {"result": …} last

A process each keeps the memory of one trial out of the next one's measurement, and a crash out of all others. It stops
(with a checkpoint) when whoever started it is gone: its standard input ends then. Which work is done when, `trying`
and `searching` decide; `workers` starts it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.errors import StoppedError, TunewrightError
from tunewright.planning.search import is_poor
from tunewright.progress import Evaluated, Event, Phase, Stepped
from tunewright.recipe import Recipe
from tunewright.recipe_files import load_recipe
from tunewright.recording import read_json_object, read_jsonl, write_atomically
from tunewright.runs import read_summary

Tell = Callable[[str], None]
State = Literal["succeeded", "paused", "poor", "stopped", "failed"]
TEXTS_TIMED, ANSWERS_TIMED = 64, 8  # rows answered to see how fast a model answers
SPEED = "speed.json"  # in a trial's folder


@dataclass(frozen=True)
class Job:
    """What is to be done, as plain values."""

    kind: Literal["train", "measure", "prompt"]
    recipe: str  # path of its YAML
    folder: str  # of the runs; of the answers, where a base is prompted
    resume: str | None = None  # a run of this folder to go on with
    shared: str | None = None  # folder of boundary caches
    pause_at: int | None = None  # step whose evaluation ends this session
    limits: tuple[tuple[float, float], ...] = ()  # (epoch, what must be reached by then)
    higher_is_better: bool = True
    shots: int = 0  # examples in the prompt


@dataclass(frozen=True)
class Result:
    """How it ended."""

    state: State
    run: str | None = None  # name of the run's folder
    found: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None  # code, message, where, field, exit_code

    def raise_error(self) -> None:
        """The error that ended it, as it was raised there."""
        if self.error is not None:
            raise error_of(self.error)


class Paused(StoppedError):
    """A rung is reached."""


class Poor(StoppedError):
    """Behind the others."""


def run(job: Job, tell: Tell = lambda words: None) -> Result:
    """Do it, in this process. Errors of `tunewright.errors` become a result; anything else is raised."""
    work = {"train": _train, "measure": _measure, "prompt": _prompt}[job.kind]
    try:
        return work(job, tell)
    except Paused:
        return Result("paused")
    except Poor:
        return Result("poor")
    except StoppedError as error:
        return Result("stopped", error=_plain(error))
    except TunewrightError as error:
        return Result("failed", error=_plain(error))
    except KeyboardInterrupt:
        return Result("stopped", error=_plain(StoppedError("stopped from the keyboard")))


# ---- a trial ----


def _train(job: Job, tell: Tell) -> Result:
    from tunewright.pipeline import fine_tune

    folder, resume = Path(job.folder), job.resume
    if resume is not None and read_summary(folder / resume).get("state") == "succeeded":
        _time_answers(folder / resume, tell)
        return Result("succeeded", resume)
    listener = _Watching(job, tell, folder / resume if resume else None)
    if is_poor(listener.course, job.limits, higher_is_better=job.higher_is_better):
        return Result("poor", resume)  # killed between the evaluation and its end
    recipe = load_recipe(Path(job.recipe)) if resume is None else None
    shared = Path(job.shared) if job.shared else None
    found = fine_tune(recipe, runs=folder, resume=resume, listener=listener, shared=shared)
    _time_answers(found.folder, tell)
    return Result("succeeded", found.id)


class _Watching:
    """The listener of a trial: passes on what is done, and ends the session at a rung or when it is poor.

    It raises while the loop evaluates, which then saves a checkpoint as for any other wish to stop.
    """

    def __init__(self, job: Job, tell: Tell, there: Path | None) -> None:
        self.job, self.tell = job, tell
        self.course: list[tuple[float, float]] = []
        if there is not None:
            self.course = course_of(there, load_recipe(there / "recipe.yaml").evaluation.metric)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Phase):
            self.tell(event.name)
        elif isinstance(event, Stepped):
            self.tell(f"step {event.step:,} of {event.total_steps:,}")
        elif isinstance(event, Evaluated) and event.step > 0:
            self._judge(event)

    def _judge(self, event: Evaluated) -> None:
        if event.metric in event.metrics:
            self.course = [(at, v) for at, v in self.course if at < event.epoch - 1e-9]
            self.course.append((event.epoch, event.metrics[event.metric]))
        if self.job.pause_at is not None and event.step >= self.job.pause_at:
            raise Paused(f"paused at step {event.step:,}, to be compared with the other trials")
        if is_poor(self.course, self.job.limits, higher_is_better=self.job.higher_is_better):
            raise Poor(f"stopped at step {event.step:,}: behind the median of the other trials")


def course_of(run: Path, metric: str) -> list[tuple[float, float]]:
    """(epoch, metric) of every evaluation of a run after its first step."""
    name = f"validation/{metric}"
    rows = read_jsonl(run / "metrics.jsonl")
    return [(row["epoch"], row[name]) for row in rows if name in row and row["step"] > 0]


def _time_answers(run: Path, tell: Tell) -> None:
    """How many rows a second the saved model answers, read anew as a person would; kept beside the run."""
    if (run / SPEED).exists():
        return
    tell("timing its answers")
    recipe = load_recipe(run / "recipe.yaml")
    found = _timed_writer(run, recipe) if recipe.task == "generate" else _timed_classifier(run, recipe)
    write_atomically(run / SPEED, json.dumps(found))


def _timed_classifier(run: Path, recipe: Recipe) -> dict[str, float]:
    from tunewright.serving.predict import Predictor

    if recipe.task != "classify":
        return {}
    predictor = Predictor.load(run / "model", _device(recipe))
    rows = itertools.islice(read_jsonl(run / "predictions" / "validation.jsonl"), TEXTS_TIMED)
    texts = [row["text"] for row in rows]
    predictor.predict(texts[:4])  # what only the first texts pay
    return {"rows_per_second": _per_second(len(texts), lambda: predictor.predict(texts))}


def _timed_writer(run: Path, recipe: Recipe) -> dict[str, float]:
    from tunewright.data.sources import open_data
    from tunewright.serving.writer import Writer

    writer = Writer.load(run / "model", _device(recipe))
    splits = open_data(recipe.data.train, validation=_held_out(recipe), revision=recipe.data.revision)
    wanted = recipe.evaluation.generate_rows
    source = splits.validation or splits.train
    prompts = [writer.prompt(row).ids for row in itertools.islice(source.rows(), int(wanted))]
    if not prompts:
        return {}
    timed = prompts[:ANSWERS_TIMED]
    return {
        "rows_per_second": _per_second(len(timed), lambda: writer.write(timed)),
        "prompt_tokens": sum(map(len, prompts)) / len(prompts),
    }


def _held_out(recipe: Recipe) -> Any:
    given = recipe.data.validation
    return given if isinstance(given, str) and given != "auto" else None


def _device(recipe: Recipe) -> str:
    return recipe.training.device


def _per_second(rows: int, work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return rows / max(time.perf_counter() - begin, 1e-9)


# ---- what a trial would cost ----


def _measure(job: Job, tell: Tell) -> Result:
    """The plan of a run as long as the recipe wants it, some steps of it run."""
    from tunewright.planned import plan_run

    def listener(event: Event) -> None:
        if isinstance(event, Phase):
            tell(event.name)

    planned = plan_run(load_recipe(Path(job.recipe)), runs=Path(job.folder), listener=listener, before_seconds=_age())
    if planned.problem is not None:
        return Result("failed", error=_plain(planned.problem))
    data, facts = planned.facts["data"], planned.facts
    parts = {part.name: part.amount for part in planned.estimate.time.parts}
    tokens = data["train_tokens"] * facts["epochs"]
    training = sum(v for name, v in parts.items() if name.startswith("training"))
    once = sum(v for name, v in parts.items() if name.startswith("computing the frozen"))
    judged = sum(v for name, v in parts.items() if name.startswith("evaluating"))
    answering = sum(v / 2 for name, v in parts.items() if name.startswith("answering"))  # once more at the end
    return Result(
        "succeeded",
        found={
            "fixed_seconds": sum(parts.values()) - training - once - judged - answering,
            "once_seconds": once,
            "evaluation_seconds": judged + answering,
            "seconds_per_token": training / max(tokens, 1),
            "tokens_per_step": tokens / facts["steps"],
            "epoch_tokens": data["train_tokens"],
            "full_tokens": tokens,
            "full_steps": facts["steps"],
        },
    )


def _age() -> float:
    """Seconds since this process began, imports and all."""
    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())


# ---- a base that is only prompted ----


def _prompt(job: Job, tell: Tell) -> Result:
    from tunewright.choosing.prompting import prompted

    return Result("succeeded", found=prompted(load_recipe(Path(job.recipe)), Path(job.folder), job.shots, tell))


# ---- errors between processes ----


def _plain(error: TunewrightError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "where": error.where, "field": error.field,
            "exit_code": error.exit_code}  # fmt: skip


def error_of(values: Mapping[str, Any]) -> TunewrightError:
    """The error that `_plain` wrote down."""
    if values["code"] == StoppedError.code:
        return StoppedError(values["message"], signal_number=int(values["exit_code"]) - 128)
    kinds = {kind.code: kind for kind in _all_kinds(TunewrightError)}
    kind = kinds.get(values["code"], TunewrightError)
    return kind(values["message"], where=values.get("where"), field=values.get("field"))


def _all_kinds(kind: type[TunewrightError]) -> list[type[TunewrightError]]:
    below = [one for own in kind.__subclasses__() if own.__module__ == kind.__module__ for one in _all_kinds(own)]
    return [kind, *below]


# ---- the process ----


def main() -> int:
    """Do the job of a file; the result is the last line."""
    values = read_json_object(Path(sys.argv[1]))
    values["limits"] = tuple(map(tuple, values["limits"]))
    threading.Thread(target=_stop_with_parent, daemon=True).start()

    def put(line: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    try:
        result = run(Job(**values), lambda words: put({"say": words}))
    except Exception as error:  # our own bug: said as one line there, in full in the log here
        traceback.print_exc()
        result = Result("failed", error=_plain(TunewrightError(f"{type(error).__name__}: {error}")))
    put({"result": asdict(result)})
    return 0


def _stop_with_parent() -> None:
    """The other end of standard input is held open by whoever started this, and by nobody else."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
