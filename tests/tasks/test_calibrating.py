"""A finished run calibrated: the file, what predict makes of it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests import whole
from tunewright.errors import UsageError
from tunewright.evaluation.metrics import row_losses
from tunewright.models.calibrated import FILE, Calibrated
from tunewright.runs import Run, RunRef
from tunewright.serving.export import export
from tunewright.tasks import calibrating as c


@pytest.fixture
def copied(tmp_path: Path) -> RunRef:
    folder = tmp_path / "run"
    shutil.copytree(whole.finished("single", "lora").folder, folder)
    return RunRef(folder)


@pytest.mark.parametrize("labels", whole.LABELS)
def test_rows_of_a_run_are_its_predictions(labels: str) -> None:
    """Logits and labels of two files meet: their loss is the one that the run wrote down."""
    run = whole.finished(labels, "lora")
    rows = c.held_out_of_run(RunRef(run.folder))
    text = (run.folder / "predictions" / "validation.jsonl").read_text(encoding="utf-8")
    written = [json.loads(line) for line in text.splitlines()]
    losses = row_losses(rows.logits, rows.labels, rows.kind)
    assert losses == pytest.approx([row["loss"] for row in written], abs=1e-5)


def _rows(n: int = 400, sure: float = 4.0) -> c.HeldOut:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 2)) * 2
    labels = (rng.random(n) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(np.int64)
    return c.HeldOut("made up", logits * sure, labels, np.arange(n), "single", ("negative", "positive"))


def test_everything_asked_for_is_fitted_and_kept(tmp_path: Path) -> None:
    fitted = c.fit(_rows(), [c.Wish.parse("positive: precision>=0.9")], accuracy=0.95)
    assert fitted.calibration.ece_after < fitted.calibration.ece_before / 2
    kept = fitted.kept
    assert kept.temperature == pytest.approx(4, rel=0.3)
    assert set(kept.thresholds) == {"positive"}
    assert 0.5 < kept.abstain_below < 1
    path = c.keep(fitted, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["measured"]["calibration"]["num_rows"] == 400
    assert not list(tmp_path.glob(".*"))


def test_predict_answers_by_the_file(copied: RunRef) -> None:
    texts = ["a really good film", "the dull plot", "music"]
    plain = Run(copied.folder).predictor.predict(texts)
    (copied.model_folder / FILE).write_text(Calibrated(2.0).to_text(), encoding="utf-8")
    softer = Run(copied.folder).predictor.predict(texts)
    for one, other in zip(plain, softer, strict=True):
        a, b = one.probabilities["positive"], other.probabilities["positive"]
        assert np.log(b / (1 - b)) == pytest.approx(np.log(a / (1 - a)) / 2, abs=1e-4)
        assert one.prediction == other.prediction
    rule = Calibrated(2.0, {}, abstain_below=0.999999)
    (copied.model_folder / FILE).write_text(rule.to_text(), encoding="utf-8")
    unsure = Run(copied.folder).predictor.predict(texts)
    assert [said.prediction for said in unsure] == [None] * 3
    assert str(unsure[0]).startswith("don't know 0.")
    (copied.model_folder / FILE).write_text(Calibrated(1.0, {"positive": 0.0}).to_text(), encoding="utf-8")
    assert {said.prediction for said in Run(copied.folder).predictor.predict(texts)} == {"positive"}


def test_a_checkpoint_answers_without_it(copied: RunRef) -> None:
    (copied.model_folder / FILE).write_text(Calibrated(3.0).to_text(), encoding="utf-8")
    best = RunRef(copied.folder, "best").load()
    assert best.calibrated.temperature == 1.0
    assert RunRef(copied.folder).load().calibrated.temperature == 3.0


@pytest.mark.parametrize("to", ["merged", "adapter"])
def test_it_goes_where_the_model_goes(copied: RunRef, tmp_path: Path, to: str) -> None:
    (copied.model_folder / FILE).write_text(Calibrated(3.0).to_text(), encoding="utf-8")
    assert (export(copied.model_folder, to, tmp_path / "out") / FILE).is_file()


def test_other_rows_are_answered_without_an_earlier_calibration(copied: RunRef) -> None:
    data = str(whole.data_file("single"))
    before = c.held_out_of_file(copied, data)
    (copied.model_folder / FILE).write_text(Calibrated(3.0).to_text(), encoding="utf-8")
    after = c.held_out_of_file(copied, data)
    assert (before.logits == after.logits).all()
    assert len(np.unique(before.groups)) == len({row["text"] for row in whole.rows("single")})
    assert load_file(copied.folder / "predictions" / "validation-logits.safetensors")["logits"].shape[1] == 2


@pytest.mark.parametrize(
    ("wishes", "accuracy", "message"),
    [
        (["postive:recall>=0.5"], None, 'Did you mean "positive"'),
        (["positive:precision>=1"], None, "ask for less, or give more rows"),
        ([], 1.0, "even the surest answers"),
    ],
)
def test_what_cannot_be_had_is_one_line(wishes: list[str], accuracy: float | None, message: str) -> None:
    rng = np.random.default_rng(1)
    noise = c.HeldOut("n", rng.normal(size=(300, 2)), rng.integers(0, 2, 300), np.arange(300), "single",
                      ("negative", "positive"))  # fmt: skip
    with pytest.raises(UsageError, match=message):
        c.fit(noise, [c.Wish.parse(each) for each in wishes], accuracy, surely=True)


@pytest.mark.parametrize("text", ["positive", "positive:precision=0.9", "a:recall>=7", "a:recall>=x", ":recall>=0.5"])
def test_wishes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="expected something like"):
        c.Wish.parse(text)


def test_numbers_have_none() -> None:
    rows = c.held_out_of_run(RunRef(whole.finished("number", "lora").folder))
    with pytest.raises(UsageError, match="no probabilities"):
        c.fit(rows)
