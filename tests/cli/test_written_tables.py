"""The end of a run of a model that writes, in 80 columns, and several such runs side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.evaluation.fake_run import make_run
from tests.evaluation.fake_written import make_written_run
from tunewright.cli import comparing, results
from tunewright.cli.output import ASCII_MARKS, Marks
from tunewright.cli.tables import epoch_heading, epoch_line, epoch_row, metric_words
from tunewright.cli.written_tables import METRICS, block, metric_lines, sample_lines
from tunewright.evaluation import texts
from tunewright.evaluation.compare import compare_runs
from tunewright.evaluation.digits import metric_digits
from tunewright.evaluation.record import Sample


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_written_run(tmp_path_factory.mktemp("runs") / "squad")


def summary(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


EPOCHS = """\
 epoch train loss validation loss perplexity exact match    F1 ROUGE-L     time
     0        –           3.398         29.9       0.000 0.000   0.000
     1    2.600           2.748 ▼       19.0       0.308 0.308   0.308
     2    2.000 ▼         2.098 ▼       8.15       0.617 0.617   0.617 ★"""
METRIC_TABLE = """\
                 before  after   95 % interval  change  better  worse       p
 exact match      0.000  0.617  [0.483, 0.733]  +0.617      37      0  <0.001"""


def test_the_end_of_a_run(run: Path) -> None:
    lines = results.result_lines(run, summary(run), Marks(), fit=80)
    shown = "\n".join(lines)
    assert shown.startswith(EPOCHS) and METRIC_TABLE in shown
    assert " perplexity        29.9   8.15    [7.60, 8.68]   -21.8      90      0" in shown
    assert " wanted  Vientiane\n before  I don't know. What is the capital? Laos\n after   Vientiane\n" in shown
    assert " best epoch 2 of 2 (step 200): loss 2.100" in lines
    assert (
        " forgetting: perplexity on general text 20.8 → 24.4: forgot (+17.3 %, +17.0 % to +17.6 %; 42 documents)"
        in lines
    )
    assert max(cell_len(line) for line in lines if "forgetting" not in line and "report" not in line) <= 80
    assert "\x1b" not in shown


def test_in_ascii(run: Path) -> None:
    shown = "\n".join(sample_lines([Sample("x " * 300, "y", "z" * 500, "", (True, False))], ASCII_MARKS, 80))
    assert shown.isascii() and "..." in shown
    assert "\n".join(metric_lines(summary(run), ASCII_MARKS)).isascii()


def test_names_and_order_are_those_of_the_metrics() -> None:
    assert list(texts.WORDS) == list(METRICS)
    assert [metric_words(name) for name in METRICS] == [name for name, _ in texts.WORDS.values()]


def test_live_rows_have_the_columns_of_the_table() -> None:
    row = epoch_row(1.0, {"validation/loss": 2.5, "validation/perplexity": 123456.7}, "validation/loss", seconds=3723)
    heading, line = epoch_heading("validation/loss", row), epoch_line(row, None, Marks())
    assert heading.split() == ["epoch", "train", "loss", "validation", "loss", "perplexity", "time"]
    assert len(line) == len(heading) and line.endswith("123,457  1:02:03")


def test_a_deciding_metric_of_its_own_has_a_column() -> None:
    metrics = {f"validation/{name}": 0.5 for name in ("loss", "perplexity", "chrf", "exact_match", "f1", "rouge_l")}
    heading = epoch_heading("validation/chrf", epoch_row(1.0, metrics, "validation/chrf"))
    assert "chrF" in heading and len(heading) <= 80


def test_digits() -> None:
    shown = [metric_digits(x, "perplexity") for x in (1.234, 56.78, 912.3, 41234.0, 2.5e7, -23.17, math.inf)]
    assert shown == ["1.23", "56.8", "912", "41,234", "2.5e+07", "-23.2", "∞"]
    assert [metric_digits(12.345, name) for name in ("bleu", "chrf", "loss")] == ["12.3", "12.3", "12.345"]


def test_classifiers_keep_their_columns() -> None:
    row = epoch_row(1.0, {"validation/loss": 0.4, "validation/accuracy": 0.9}, "validation/accuracy")
    assert row.written == () and epoch_heading("validation/accuracy", row) == epoch_heading("validation/accuracy")


@pytest.mark.parametrize("words", ["word " * 200, "x" * 900, "语言模型" * 100, "a\n\nb\n" * 50, "🙂" * 200])
@pytest.mark.parametrize("fit", [40, 80, 10_000])
def test_blocks_fit(words: str, fit: int) -> None:
    lines = block("after", words, 4, Marks(), fit, unended=True)
    assert len(lines) == 4 and lines[2].strip() == "…" and lines[-1].endswith(" …")
    assert max(map(cell_len, lines)) <= min(fit, 80)


def test_blocks_of_little() -> None:
    assert block("after", "", 4, Marks(), 80) == [" after   (nothing)"]
    assert block("1", "one\n\ntwo", 4, Marks(), 80) == [" 1       one", "         two"]


def test_nothing_steers_the_terminal() -> None:
    shown = "\n".join(block("after", "a\x1b]0;title\x07b\u202ec\td\rgone", 4, Marks(), 80))
    assert all(c.isprintable() or c == "\n" for c in shown) and "gone" in shown


def test_a_run_without_a_score_before_has_no_change(run: Path) -> None:
    lines = metric_lines(summary(run) | {"comparison": None}, Marks())
    assert lines[1].split() == ["exact", "match", "–", "0.617", "[0.483,", "0.733]"]


def test_a_run_that_stopped_early(tmp_path: Path) -> None:
    early = {"id": "x", "state": "interrupted", "data": {"kind": "text"}}
    assert results.result_lines(tmp_path, early, Marks())[-1].startswith(" report ")


def test_json_has_texts_and_forgetting(run: Path) -> None:
    found = results.to_json(run, summary(run))
    assert found["prompts"][2]["after"] == "Vientiane" and found["prompts"][2]["reference"] == "Vientiane"
    assert found["forgetting"]["verdict"] == "forgot"
    json.dumps(found, allow_nan=False)


def test_a_writer_can_be_talked_to_next(run: Path) -> None:
    assert "tunewright chat" in results.next_lines(run, summary(run))[0]


# --- side by side -----------------------------------------------------------------------------------------------

GAINS = """\
    trained      perplexity   F1             general       change
 A  full 100 %   29.9 → 8.15  0.000 → 0.867  20.8 → 28.1  +34.9 %  forgot
 B  head 62.6 %  29.9 → 8.15  0.000 → 0.333  20.8 → 20.8   +0.0 %  kept
 C  lora 0.71 %  29.9 → 8.15  0.000 → 0.600  20.8 → 21.7   +4.1 %  forgot a little"""


def test_gain_and_forgetting_of_full_head_and_lora(tmp_path: Path) -> None:
    folders = [
        make_written_run(tmp_path / method, method=method, skill=skill, forgot=forgot, seed=seed)
        for seed, (method, skill, forgot) in enumerate([("full", 0.9, 0.3), ("head", 0.3, 0.0), ("lora", 0.7, 0.04)])
    ]
    comparison = compare_runs(folders)
    lines = comparing.lines(comparison, Marks(), 80)
    assert GAINS in "\n".join(lines)
    assert max(map(cell_len, lines)) <= 87  # three intervals side by side
    assert " A       N'Djamena" in lines and lines[-1].startswith(" C against A on the same 60 rows: ")
    first, second = comparison.same_rows
    assert first.paired.difference == pytest.approx(-32 / 60) and first.paired.interval.high < 0  # B is worse than A
    assert first.paired.fixed < first.paired.broke and second.num_rows == 60
    best = {row.name: row.best for row in comparison.metrics}
    assert best["f1"] == 0 and best["length_ratio"] is None and best["perplexity"] is None  # a tie
    json.dumps(comparing.to_json(comparison), allow_nan=False)


def test_a_classifier_that_drifted(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=2)]
    assert not compare_runs(folders).gains
    stored = json.loads((folders[1] / "run.json").read_text())
    drift = {"kind": "drift", "before": None, "after": None, "change": 0.093, "verdict": "moved"}
    (folders[1] / "run.json").write_text(json.dumps(stored | {"forgetting": drift}))
    lines = comparing.lines(compare_runs(folders), Marks(), 80)
    at = next(i for i, line in enumerate(lines) if line.split()[:2] == ["trained", "accuracy"])
    assert lines[at + 1].endswith("not measured")
    assert lines[at + 2].split()[-4:] == ["–", "9.3", "%", "moved"]


def test_a_writer_beside_a_classifier(tmp_path: Path) -> None:
    comparison = compare_runs([make_written_run(tmp_path / "a"), make_run(tmp_path / "b")])
    lines = comparing.lines(comparison, Marks(), 80)
    assert any("not judged on the rows" in line for line in lines)
    assert any(line.startswith("    trained") and " gain " in line for line in lines)
