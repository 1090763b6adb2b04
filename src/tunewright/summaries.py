"""What run.json holds, as far as anyone reads it: a file that says otherwise is refused once, here, and trusted after.

`recording` writes run.json, `runs` reads it through `checked`. Fields that aren't named may be anything; a field may be
missing, as a run that has just begun has few.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunewright.errors import ModelError

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, lt=1e18)]
Values = dict[str, float | None]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Error(_Part):
    code: str | None = None
    message: str | None = None
    param: str | None = None


class _Model(_Part):
    name: str | None = None
    path: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    method: str | None = None
    parameters: Whole | None = None
    trainable: Whole | None = None
    trainable_fraction: Amount | None = None
    base_bytes: Whole | None = None
    saved_bytes: Whole | None = None


class _Data(_Part):
    train: str | None = None
    validation: str | float | None = None
    train_rows: Whole | None = None
    validation_rows: Whole | None = None
    max_length: Whole | None = None
    truncate: str | None = None
    labels: list[str] | None = None
    kind: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    label_counts: dict[str, Whole] | None = None


class _Best(_Part):
    step: Whole
    metric: str
    value: float | None  # none where it is undefined: ROC-AUC of a single class
    epoch: float | None = None


class _Comparison(_Part):
    before: dict[str, float | str | dict[str, Any] | None] | None = None
    after: dict[str, float | str | dict[str, Any] | None] | None = None
    fixed: Whole | None = None
    broke: Whole | None = None
    p_value: float | None = None


class _Summary(_Part):
    id: str | None = None
    name: str | None = None
    state: str | None = None
    task: str | None = None
    error: _Error | None = None
    created: str | None = None
    started: str | None = None
    finished: str | None = None
    host: str | None = None
    notes: list[str] | None = None
    model: _Model | None = None
    data: _Data | None = None
    steps: Whole | None = None
    epochs: Amount | None = None
    best: _Best | None = None
    metrics: Values | None = None
    intervals: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None = None
    baseline: Values | None = None
    comparison: _Comparison | None = None
    overfitting: str | None = None
    seconds: Amount | None = None
    train_seconds: Amount | None = None
    train_tokens_seen: Whole | None = None
    tokens_per_second: Amount | None = None
    peak_memory_bytes: Whole | None = None


def checked(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same summary. Raises ModelError naming the first field that can't be used."""
    try:
        _Summary.model_validate(summary)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"][0].lower() + problem["msg"][1:]
        raise ModelError(
            f'run.json can\'t be used: "{field}" is {problem["input"]!r:.40} ({reason}); it was changed or damaged. '
            "Put it back, or remove the folder.",
            where=str(folder),
            field=field,
        ) from None
    return summary
