"""The report: one file without script or request, true to the folder, whatever the folder holds."""

from __future__ import annotations

import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.fake_run import PROMPTS, make_run, write_json, write_lines
from tunewright.evaluation import metrics as m
from tunewright.evaluation.report import write_report

FILES = ("run.json", "evaluation.json", "environment.json", "metrics.jsonl", "samples.jsonl", "events.jsonl")
FILES += ("recipe.resolved.yaml", "predictions/validation.jsonl")


class Page(HTMLParser):
    """Tags, attributes and visible text of a page, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _report(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "20261123-1412-reviews")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / run.name))


def test_the_page_can_run_nothing_and_ask_for_nothing(run: Path) -> None:
    page = _report(run)
    seen = Page(page)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    links = [value or "" for name, value in seen.attributes if name in ("href", "src", "xlink:href", "action")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not re.search(r"@import|url\(", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page


def test_a_script_in_a_review_is_shown(run: Path) -> None:
    assert '<script>document.title = "owned"</script>' in Page(_report(run)).text


def test_the_verdict_has_its_interval_and_what_was_fixed(run: Path) -> None:
    stored = json.loads((run / "run.json").read_text())
    words = Page(_report(run)).text
    low, high = stored["intervals"]["accuracy"]
    before, after = stored["comparison"]["before"]["accuracy"], stored["metrics"]["accuracy"]
    assert "Better than before training." in words
    assert f"Accuracy {before:.3f} → {after:.3f} [{low:.3f}, {high:.3f}] on 240 validation rows" in words
    assert f"fixed {stored['comparison']['fixed']}, broke {stored['comparison']['broke']} (McNemar p < 0.001)" in words
    assert "commonest label would give 0.504" in words


def test_every_section_is_there(run: Path) -> None:
    words = Page(_report(run)).text
    for prompt in PROMPTS:
        assert prompt in words
    assert "Validation loss rose after epoch 2" in words
    assert "594,436 of 22,861,442 parameters trained (2.6 %)" in words
    assert "2.4 MB beside a base of 90.9 MB" in words
    assert "12 rows lost 801 tokens on the left" in words
    assert "text column: review (guessed from 4 columns)." in words
    assert "# auto: 95 of 100 texts need at most 118 tokens" in words
    assert "packages.torch 2.13.0" in words
    assert "tunewright predict 20261123-1412-reviews" in words


def test_the_kept_epoch_is_starred_once(run: Path) -> None:
    rows = re.findall(r"<tr class=\"strong\"><td class=\"number\">2</td>.*?</tr>", _report(run), re.DOTALL)
    assert len(rows) == 1
    assert "★" in rows[0]


def test_worst_rows_are_the_costliest_mistakes(run: Path) -> None:
    stored = [json.loads(line) for line in (run / "predictions/validation.jsonl").read_text().splitlines()]
    wrong = sorted((r for r in stored if r["prediction"] != r["label"]), key=lambda r: -r["loss"])
    page = _report(run)
    shown = re.findall(r'data-label="row">([^<]+)<', page)
    assert shown == [r["row"] for r in wrong[:12]]
    assert f"{len(wrong)} of 240 rows are wrong" in Page(page).text


@pytest.mark.parametrize("kind", ["single", "multi", "number"])
def test_every_kind_of_label_has_a_report(kind: m.Kind, tmp_path: Path) -> None:
    words = Page(_report(make_run(tmp_path / "run", kind=kind, names=("bug", "docs", "question")))).text
    assert "Better than before training." in words
    unit = {"single": "nats per row", "multi": "nats per label", "number": "squared error"}[kind]
    assert f"Loss, {unit}" in words


def test_a_model_that_learned_nothing_is_called_that(tmp_path: Path) -> None:
    words = Page(_report(make_run(tmp_path / "run", skill=0.15))).text
    assert "No better than" in words


def test_too_few_rows_are_not_called_a_success(tmp_path: Path) -> None:
    words = Page(_report(make_run(tmp_path / "run", rows=12, skill=1.3, seed=4))).text
    assert "too few rows to be sure" in words


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    error = {"code": "diverged", "message": "Loss is not a number at step 12.", "param": None}
    write_json(tmp_path / "run.json", {"id": "x", "state": "failed", "error": error})
    words = Page(_report(tmp_path)).text
    assert "The run failed." in words
    assert "Loss is not a number at step 12." in words


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"id": "x", "state": "interrupted", "error": None})
    words = Page(_report(tmp_path)).text
    assert "The run was interrupted. `tunewright train --resume x` continues it." in words


def test_an_empty_folder_has_a_report_that_says_what_is_missing(tmp_path: Path) -> None:
    words = Page(_report(tmp_path)).text
    assert "Not judged yet." in words
    assert "run.json is missing." in words


@pytest.mark.parametrize("name", FILES)
def test_any_one_file_may_be_missing_or_torn(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2] + b"\xff")
    assert "Model and data" in _report(copy)
    (copy / name).unlink()
    assert "Model and data" in _report(copy)


def test_values_of_any_type_leave_a_report(copy: Path) -> None:
    """A hundred times, one value somewhere in a file is swapped for one that doesn't belong there."""
    rng = random.Random(0)
    odd: list[Any] = [
        None,
        "text",
        7,
        -1.5,
        float("nan"),
        1e308,
        10**400,
        True,
        [],
        {},
        [[1, "a"]],
        {"a": [None]},
        "\ud800",
    ]
    originals = {name: (copy / name).read_text() for name in FILES[:2]}
    lines = {name: (copy / name).read_text().splitlines() for name in ("metrics.jsonl", "samples.jsonl", FILES[-1])}
    for _ in range(100):
        name = rng.choice(FILES[:2])
        value = json.loads(originals[name])
        _swap(value, rng, odd)
        (copy / name).write_text(json.dumps(value))
        name = rng.choice(list(lines))
        rows = [json.loads(line) for line in lines[name][:20]]
        _swap(rows, rng, odd)
        (copy / name).write_text("\n".join(map(json.dumps, rows)))
        assert _report(copy).rstrip().endswith("</html>")


def _swap(value: Any, rng: random.Random, odd: list[Any]) -> None:
    while True:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
            value = value[key]
            continue
        value[key] = rng.choice(odd)
        return


def test_texts_that_cannot_be_encoded_or_printed_are_replaced(copy: Path) -> None:
    rows = [{"step": s, "prompt": "half \ud83d pair\x00", "prediction": "a", "probabilities": {}} for s in (0, 1)]
    (copy / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = _report(copy)
    assert "half ? pair�" in page


def test_long_logs_are_thinned(copy: Path) -> None:
    write_lines(copy / "metrics.jsonl", [{"step": i, "epoch": i / 9000, "train/loss": 1.0} for i in range(20_000)])
    page = _report(copy)
    assert len(page) < 60_000
    assert "polyline" in page


def test_warnings_come_first_and_notes_are_not_repeated(copy: Path) -> None:
    note = "text column: review (guessed from 4 columns)."
    write_lines(copy / "events.jsonl", [{"level": "warning", "event": "x", "message": note}] * 3)
    assert Page(_report(copy)).text.count(note) == 1


def test_the_page_is_replaced_whole_and_nothing_else_is_left(copy: Path) -> None:
    before = {p.name for p in copy.iterdir()}
    first = _report(copy)
    assert _report(copy) == first
    assert {p.name for p in copy.iterdir()} - before <= {"report.html"}
