"""The end of a run that aligned a model, in 80 columns: steps, transcripts, metrics, the verdict, and the tax."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.evaluation.fake_align import make_aligned_run
from tests.evaluation.fake_written import make_written_run
from tunewright.cli import comparing, results
from tunewright.cli.output import ASCII_MARKS, Marks
from tunewright.cli.plain import PlainLines
from tunewright.cli.tables import epoch_heading, epoch_line, epoch_row
from tunewright.evaluation.compare import compare_runs
from tunewright.progress import Evaluated


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    tuned = make_written_run(folder / "20261124-1412-sft")
    return tuned, make_aligned_run(folder / "20261125-1412-ppo", start=tuned)


def summary(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


STEPS = """\
   step  reward   score      KL  win rate   judge  judge's prob.     time
      0  -0.502  -0.502    0.00         –  -0.446          0.424
     80   0.325   0.507    3.64     1.000   0.233          0.531
    160   1.152   1.517    7.29     1.000   0.913          0.639
    240   1.979   2.526   10.93     1.000   1.593          0.746 ★"""
SCORES = """\
                 before  after   95 % interval  change  better  worse       p
 reward          -0.502  1.979  [1.493, 2.456]  +2.481      48      0   0.007"""


def test_the_end_of_a_run(runs: tuple[Path, Path]) -> None:
    lines = results.result_lines(runs[1], summary(runs[1]), Marks(), fit=80)
    shown = "\n".join(lines)
    assert shown.startswith(STEPS) and SCORES in shown
    assert " win rate             –  1.000  [0.926, 1.000]              48      0  <0.001" in lines
    assert "\n 1       The film\n before  was better than the book" in shown
    assert " verdict: Better, and a judge that training never saw agrees." in lines
    assert " best step 240 of 240: reward 2.100" in lines
    assert any(line.startswith(" forgetting: perplexity on general text 24.4 → 24.6: kept") for line in lines)
    report = [line for line in lines if line.startswith(" report")]
    assert max(cell_len(line) for line in lines if line not in report and "forgetting" not in line) <= 80


def test_each_completion_has_its_scores_under_it(runs: tuple[Path, Path]) -> None:
    first = json.loads((runs[1] / "predictions/validation.jsonl").read_text().splitlines()[0])
    lines = results.result_lines(runs[1], summary(runs[1]), Marks(), fit=80)
    at = next(i for i, line in enumerate(lines) if line.startswith(" after"))
    assert lines[at + 1] == f"         score {first['score']:.2f} · judge {first['judge']:.2f} · KL {first['kl']:.2f}"
    assert lines[at].endswith("…") == (first["stopped"] == "length")


def test_nothing_in_a_completion_steers_the_terminal(runs: tuple[Path, Path]) -> None:
    lines = results.result_lines(runs[1], summary(runs[1]), ASCII_MARKS, fit=80)
    assert "\x1b" not in "".join(lines) and any("<script>" in line for line in lines)


def test_people_are_asked_next(runs: tuple[Path, Path]) -> None:
    lines = results.next_lines(runs[1], summary(runs[1]))
    assert lines[0].startswith(" next    tunewright chat ")
    assert lines[1].lstrip().startswith("tunewright rank sample 20261124-1412-sft ") and lines[1].endswith(
        "/predictions/prompts.jsonl -k 1 -o judgements.db"
    )
    assert lines[2].strip() == "tunewright rank serve judgements.db"
    assert "rank" not in "".join(results.next_lines(runs[0], summary(runs[0])))


def test_json_has_what_the_screen_has(runs: tuple[Path, Path]) -> None:
    found = json.loads(json.dumps(results.to_json(runs[1], summary(runs[1])), allow_nan=False))
    assert found["alignment"]["method"] == "ppo" and found["metrics"]["judge"] and len(found["prompts"]) == 4


def test_a_live_row_is_a_row_of_the_table(runs: tuple[Path, Path]) -> None:
    row = {
        "step": 1200,
        "validation/kl": 3.0,
        "validation/score": 1.0,
        "validation/reward": 0.85,
        "validation/ended": 0.5,
    }
    line = epoch_row(0.5, row, "validation/reward", seconds=62, best=True)
    assert epoch_heading(
        "validation/reward", line
    ) == "   step  reward  score      KL  win rate  ended     time".replace("reward  score", "reward   score").replace(
        "rate  ended", "rate   ended"
    )
    assert epoch_line(line, None, Marks()) == "  1,200   0.850   1.000    3.00         –   0.500 ★   1:02"


def test_plain_lines_name_what_matters() -> None:
    stream = io.StringIO()
    metrics = {"step": 80, "validation/reward": 0.85, "validation/score": 1.0, "validation/kl": 3.0}
    PlainLines(stream)(Evaluated(80, 1.0, metrics, "validation/reward", True, 3.0))
    assert "validation/reward 0.850 validation/score 1.000 validation/kl 3.000" in stream.getvalue()


TAX = """\
 alignment tax      gemma3-270m       A      B
 general text
   perplexity              20.8    24.4   24.6
 20261124-1412-sft
   perplexity              29.9    8.15      –
   exact match            0.000   0.617      –"""


def test_the_tax_stands_under_the_letters_of_the_runs(runs: tuple[Path, Path]) -> None:
    lines = comparing.lines(compare_runs(list(runs)), Marks(), 80)
    shown = "\n".join(lines)
    assert TAX in shown and "   judge                      –  -0.446  1.593\n" in shown
    assert (
        " 20261125-1412-ppo: Better, and a judge that training never saw agrees. Price: general text 24.4 → 24.6 (+0.8"
        in shown
    )
    assert not [line for line in lines if "trained" in line and "change" in line], "the tax says it already"
    assert " B       was a warm surprise" in shown


def test_aligned_runs_are_compared_on_the_same_prompts(runs: tuple[Path, Path]) -> None:
    other = make_aligned_run(runs[1].parent / "other", start=runs[0], judged=4.0, seed=3)
    lines = comparing.lines(compare_runs([runs[1], other]), Marks(), 80)
    assert lines[-1].startswith(" B against A on the same 48 rows: ") and " completions scored higher, " in lines[-1]
