"""`models try`, `models ls` and `search` as a person types them: screens, files, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.choosing import small
from tunewright.choosing.workers import Processes
from tunewright.cli import boards, output


@pytest.fixture
def here(runs, monkeypatch) -> small.Watched:
    """Work is done in this process."""
    watched = small.Watched()
    monkeypatch.setattr(Processes, "do", lambda self, job, tell: watched.do(job, tell))
    return watched


def _try(*more: str) -> tuple[str, ...]:
    settings = {"training.threads": 1, "training.precision": "fp32", "training.device": "cpu", "training.epochs": 2.0}
    overrides = [part for key, value in settings.items() for part in ("-s", f"{key}={value}")]
    from tests import whole

    return ("models", "try", str(small.reviews()), "--validation", "0.3", "-s", f"model={whole.base()}", "--budget",
            "none", "--seeds", "1", "--methods", "head,lora", *overrides, *more)  # fmt: skip


def test_try(here, tunewright):
    code, out, err = tunewright(*_try())
    assert code == 0, err
    assert "bert lora" in out and "(TF-IDF + logistic regression)" in out and "95 % interval" in out
    assert "tunewright train runs/noisy-80-try/best.yaml" in out
    assert "trial 1 of 2: bert head, seed 1\n" in err and err.count("trial 1 of 2") == 1
    assert Path("runs/noisy-80-try/report.html").exists()

    code, out, err = tunewright(*_try("--json"))
    found = json.loads(out)
    assert code == 0 and found["state"] == "compared" and len(here.trained) == 2
    assert {row["name"] for row in found["rows"]} >= {"bert head", "bert lora"}
    code, out, _ = tunewright(*_try("-q"))
    assert (code, out) == (0, "runs/noisy-80-try/best.yaml\n")
    code, out, _ = tunewright("train", "runs/noisy-80-try/best.yaml", "-q")
    assert code == 0 and Path("runs", out.strip(), "model").is_dir()


def test_the_screen_fits(here, tunewright):
    from tunewright.choosing.trying import try_models

    outcome = try_models(small.request(seeds=2), Path("runs"), here)
    for fit in (60, 80, 110):
        for line in boards.lines(outcome, output.Marks(), fit):
            assert len(line) <= fit or "tunewright train" in line or "report" in line, (fit, line)
    wide = boards.table(outcome.board, output.Marks(), 140)
    assert "rows/s" in wide[0] and "memory" in wide[0]
    assert "memory" not in boards.table(outcome.board, output.Marks(), 80)[0]


def _search_file(**search: Any) -> str:
    recipe = small.labelled(training={"epochs": 2.0}).model_dump(exclude_unset=True)
    Path("s.yaml").write_text(json.dumps({**recipe, "search": search}), encoding="utf-8")
    return "s.yaml"


def test_search(here, tunewright):
    code, out, err = tunewright("search", _search_file(**{"training.learning_rate": [1e-3, 1e-2]}))
    assert code == 0, err
    assert "2 trials by grid" in out and "learning rate 0.01" in out
    assert len(here.trained) == 2
    code, out, _ = tunewright("search", "s.yaml", "--json")
    assert code == 0 and json.loads(out)["state"] == "searched"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("models", "try", "none.jsonl"), 3, "none.jsonl"),
        (("models", "try", "{data}", "--methods", "laura"), 2, 'Did you mean "lora"'),
        (("models", "try", "{data}", "--models", "./nowhere"), 4, "no such folder"),
        (("models", "try", "{data}", "--budget", "soon"), 2, "expected something like 20m"),
        (("models", "try", "{data}", "--task", "reward"), 2, ""),
        (("models", "try", "s.yaml"), 2, "that is for: tunewright search"),
        (("models", "tyr"), 2, "tyr"),
        (("search", "{data}"), 2, "is no recipe"),
        (("search", "plain.yaml"), 2, 'has no "search:" block'),
        (("search", "s.yaml", "--address", "x"), 2, "--address goes with --on ray"),
        (("search", "s.yaml", "--on", "ray"), 5, "tunewright[ray]"),
        (("search", "s.yaml", "--jobs", "0"), 2, "jobs"),
    ],
)
def test_mistakes_are_one_line(here, tunewright, monkeypatch, command, code, says):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    _search_file(**{"trainable.rank": [2, 4]})
    Path("plain.yaml").write_text("data: {train: x.jsonl}\n", encoding="utf-8")
    found, out, err = tunewright(*[word.format(data=small.reviews()) for word in command])
    assert found == code, err
    lines = [line for line in err.splitlines() if line.startswith("error[")]
    assert len(lines) == 1 and says in lines[0], err
    assert out == "" and "Traceback" not in err


def test_a_search_block_is_not_trained(here, tunewright):
    code, _, err = tunewright("train", _search_file(**{"trainable.rank": [2, 4]}))
    assert code == 2 and "search" in err


def test_ls(runs, tunewright):
    code, out, _ = tunewright("models", "ls")
    assert code == 0 and "minilm" in out and "gemma3-270m" in out and "run:" in out
    code, out, _ = tunewright("models", "ls", "--json")
    assert code == 0 and {"minilm", "gemma3-270m"} <= {one["name"] for one in json.loads(out)["models"]}


def test_stopped_it_says_how_to_go_on(runs, tunewright, monkeypatch):
    from tunewright.choosing.work import Result

    monkeypatch.setattr(Processes, "do", lambda self, job, tell: Result("stopped"))
    code, _, err = tunewright(*_try())
    assert code == 130
    assert "to go on from here, give the same command again: tunewright" in err
