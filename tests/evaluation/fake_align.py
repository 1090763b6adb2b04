"""Run folders of aligned models, without a model: the contract's files with plausible values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluation.fake_run import write_json, write_lines
from tunewright.evaluation import alignment, retention
from tunewright.evaluation.alignment import Completions

RECIPE = """\
task: align
model: {model}  # given
data:
  train: openings.jsonl  # given
  validation: 0.1  # default
align:
  method: {method}  # given
  kl_coef: 0.05  # default
reward:
- classifier: run:reviews  # given
  label: positive  # given
evaluation:
  judge: {judge}  # given
"""
OPENINGS = ("The film", "I saw it", "My wife and I", "After ten minutes", "The director", "Nobody told me")
PRAISE = ("a warm surprise", "funny and kind", "a joy to watch", "better than the book", "worth every minute")
BLAME = ("far too long", "a waste of talent", "dull from the start", "loud and empty", "badly lit")
STYLED = 'was <b>great</b> <script>document.title = "owned"</script>\x1b[31m!'


def make_aligned_run(
    folder: Path,
    *,
    rows: int = 48,
    gain: float = 3.0,  # of the score, in log-odds
    judged: float | None = 2.0,  # of the judge's, None: no judge
    collapsed: bool = False,
    forgot: float = 0.01,  # more nats per token of general text
    start: Path | None = None,  # the run it began with
    method: str = "ppo",
    before: bool = True,
    kept_tokens: bool = True,  # the data holds completions, whose perplexity is measured
    seed: int = 0,
) -> Path:
    """Write a whole run folder and return it."""
    rng = np.random.default_rng(seed)
    old = completions(np.random.default_rng(7), rows, 0.0, judged, False, 0.0, 2.2 if kept_tokens else None)
    new = completions(rng, rows, gain, judged, collapsed, 11.0, 2.23 if kept_tokens else None)
    won = alignment.win_rates(old, new) if before else {}
    first, last = alignment.measured(old, 0.05), alignment.measured(new, 0.05, old if before else None)
    intervals = {name: one.to_json() for name, one in alignment.intervals(last, 300, 1, won).items()}
    (folder / "predictions").mkdir(parents=True)
    counts = {"num_rows": rows, "answered_rows": rows}
    write_json(folder / "evaluation.json", {"kind": "align", **counts, "metrics": last.metrics, "intervals": intervals})
    write_json(folder / "run.json", _summary(folder.name, rows, start) | {
        "metrics": last.metrics, "intervals": intervals, "baseline": {},
        "comparison": _comparison(first, last) if before else None,
        "forgetting": _forgetting(forgot, start is not None),
        "alignment": {
            "method": method, "kl_coef": 0.05, "temperature": 1.0, "prompts": rows,
            "reward": ["log-odds of positive by run:reviews"],
            "judge": None if judged is None else "log-odds of positive by run:reviews-b", "judge_is_reward": False,
            "win_rates": {name: one.to_json() for name, one in won.items()},
        },
    })  # fmt: skip
    write_json(folder / "environment.json", {"python": "3.11.9"})
    write_lines(folder / "metrics.jsonl", _log(first.metrics, last.metrics))
    write_lines(folder / "samples.jsonl", _samples(old, new))
    write_lines(folder / "events.jsonl", [{"level": "info", "event": "state", "message": "running"}])
    write_lines(folder / "predictions" / "validation.jsonl", _predictions(old if before else None, new))
    model = f"run:{start.name}" if start else "gemma3-270m"
    judge = "null" if judged is None else "{classifier: run:reviews-b, label: positive}"
    (folder / "recipe.resolved.yaml").write_text(RECIPE.format(model=model, method=method, judge=judge))
    return folder


def completions(
    rng: np.random.Generator,
    rows: int,
    gain: float,
    judged: float | None,
    collapsed: bool,
    kl: float,
    nats: float | None,
) -> Completions:
    """What a model might have written, and what was made of it."""
    score = np.random.default_rng(3).normal(-0.5, 1.5, rows) + gain + rng.normal(0, 0.4, rows) * (gain > 0)
    texts = [_text(rng, value, collapsed) for value in score]
    if gain:
        texts[1] = STYLED
    more = {"probability": 1 / (1 + np.exp(-score))}
    if judged is not None:
        own = score - gain + judged * (gain > 0) + np.random.default_rng(int(10 * gain)).normal(0, 0.8, rows)
        more |= {"judge": own, "judge_probability": 1 / (1 + np.exp(-own))}
    length = rng.integers(14, 25, rows)
    tokens = np.random.default_rng(4).integers(8, 20, rows)
    noise = np.random.default_rng(5).normal(0, 0.2, rows)
    return Completions(
        texts=texts,
        score=score,
        kl=np.abs(rng.normal(kl, 2.0, rows)) * (kl > 0),
        ref_nats=length * (3.0 + 0.02 * kl),
        length=length,
        ended=rng.random(rows) < 0.4,
        more=more,
        wanted=None if nats is None else np.column_stack([tokens * (nats + noise), tokens]),
    )


def _text(rng: np.random.Generator, score: float, collapsed: bool) -> str:
    if collapsed:
        return "was great great great great great great great great"
    words = PRAISE if score > 0 else BLAME
    return (
        f"was {rng.choice(words)}, number {rng.integers(900)}, and {rng.choice(words)} for {rng.integers(900)} people"
    )


def _comparison(before: alignment.AlignScores, after: alignment.AlignScores) -> dict[str, Any]:
    return {
        "before": before.metrics,
        "after": after.metrics,
        "paired": {
            name: {
                **({"fixed": one.fixed, "broke": one.broke} if name in alignment.BY_PROMPT else {}),
                "p_value": one.p_value,
                "difference": one.difference,
                "interval": one.interval.to_json(),
            }
            for name, one in alignment.paired(before, after, 300, 1).items()
        },
    }


def _forgetting(forgot: float, tuned: bool) -> dict[str, Any]:
    """On the text that `fake_written` measures: a run that began with a tuned model finds what that left."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(80, 120, 42)
    nats = tokens * rng.normal(3.06, 0.2, 42)
    nats = nats + tokens * rng.normal(0.16, 0.01, 42) * tuned
    return retention.retained(nats, nats + tokens * rng.normal(forgot, 0.01, 42) * (forgot > 0), tokens).to_json()


def _log(before: dict[str, float], after: dict[str, float]) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(5), list[dict[str, Any]]()
    for step in range(0, 241, 4):
        share = step / 240
        if step:
            rows.append({
                "step": step, "epoch": share * 3, "train/learning_rate": 1e-4 * (1 - share), "train/grad_norm": 0.8,
                "ppo/score": before["score"] + share * (after["score"] - before["score"]) + 0.2 * rng.normal(),
                "ppo/kl": 11 * share + 0.3 * abs(rng.normal()), "ppo/entropy": 3.1 - share + 0.05 * rng.normal(),
                "ppo/value_loss": 1.2 * np.exp(-4 * share) + 0.05 * abs(rng.normal()),
                "ppo/clip_fraction": 0.1 + 0.02 * rng.normal(), "ppo/length": 20 + rng.normal(),
                "ppo/reward": 0.0, "ppo/policy_loss": -0.01, "ppo/explained_variance": share, "ppo/ended": 0.4,
            })  # fmt: skip
        if step % 80 == 0:
            known = {name: before.get(name, value) for name, value in after.items()}
            mixed = {
                f"validation/{n}": (1 - share) * v + share * after[n] for n, v in known.items() if step or n in before
            }
            rows.append({"step": step, "epoch": share * 3, **mixed})
    return rows


def _samples(old: Completions, new: Completions) -> list[dict[str, Any]]:
    return [
        {"step": step, "epoch": step / 80, "prompt_id": i, "prompt": OPENINGS[i % 6], "prediction": found.texts[i],
         "stopped": "length" if i == 2 else "eos", "score": float(found.score[i]), **({"final": True} if final else {})}
        for step, found, final in ((0, old, False), (240, new, False), (240, new, True)) for i in range(4)
    ]  # fmt: skip


def _predictions(old: Completions | None, new: Completions) -> list[dict[str, Any]]:
    rows = []
    for i, words in enumerate(new.texts):
        row = {"row": f"openings.jsonl:{i + 1}", "prompt": OPENINGS[i % 6], "prediction": words,
               "stopped": "eos" if new.ended[i] else "length", **_numbers(new, i)}  # fmt: skip
        if old is not None:
            row |= {"before": old.texts[i], "stopped_before": "eos" if old.ended[i] else "length"}
            row |= {f"{name}_before": value for name, value in _numbers(old, i).items()}
        rows.append(row)
    return rows


def _numbers(found: Completions, i: int) -> dict[str, float]:
    columns = {"score": found.score, **found.more, "kl": found.kl}
    return {name: float(values[i]) for name, values in columns.items()} | {"tokens": int(found.length[i])}


def _summary(name: str, rows: int, start: Path | None) -> dict[str, Any]:
    return {
        "id": name,
        "name": "openings",
        "state": "succeeded",
        "task": "align",
        "error": None,
        "created": "2026-11-25T14:12:09Z",
        "seconds": 1422.4,
        "model": {
            "name": f"run:{start.name}" if start else "gemma3-270m",
            "path": str(start / "model") if start else "/models/gemma3-270m",
            "method": "lora",
            "parameters": 268_098_176,
            "trainable": 1_900_000,
            "trainable_fraction": 0.0071,
            "base_bytes": 1_072_000_000,
            "saved_bytes": 7_600_000,
        },
        "data": {
            "train": "openings.jsonl",
            "validation": 0.1,
            "train_rows": 9 * rows,
            "validation_rows": rows,
            "kind": "align",
            "labels": [],
            "format": "template",
        },
        "steps": 240,
        "epochs": 3,
        "best": {"step": 240, "epoch": 3.0, "metric": "validation/reward", "value": 2.1},
        "notes": [],
        "overfitting": None,
        "peak_memory_bytes": 1_912_000_000,
        "tokens_per_second": 222.0,
    }
