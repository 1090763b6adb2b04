"""calibration.json: read as written, absent as nothing, and anything odd in it is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.errors import ModelError
from tunewright.models.calibrated import AS_IT_IS, FILE, Calibrated, read_calibrated

LABELS = ("negative", "positive")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = Calibrated(1.7, {"positive": 0.8}, 0.6, {"data": "its held-out rows"})
    (tmp_path / FILE).write_text(kept.to_text(), encoding="utf-8")
    assert read_calibrated(tmp_path, LABELS) == kept
    assert kept.decides and not AS_IT_IS.decides


def test_no_file_changes_nothing(tmp_path: Path) -> None:
    assert read_calibrated(tmp_path, LABELS) is AS_IT_IS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version is 2; expected 1"),
        ({"temperature": 0}, '"temperature" is 0; expected a number from'),
        ({"temperature": True}, '"temperature" is True'),
        ({"temperature": "hot"}, "\"temperature\" is 'hot'"),
        ({"abstain_below": 1.5}, '"abstain_below" is 1.5'),
        ({"thresholds": {"postive": 0.5}}, 'Did you mean "positive"'),
        ({"thresholds": {"positive": 7}}, '"positive" is 7'),
        ({"thresholds": [1]}, "must be tables"),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, change: dict, message: str) -> None:
    body = json.loads(Calibrated().to_text()) | change
    (tmp_path / FILE).write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_calibrated(tmp_path, LABELS)
    assert message in str(caught.value)
    assert str(tmp_path / FILE) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"temperature": NaN}'])
def test_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError):
        read_calibrated(tmp_path, LABELS)
