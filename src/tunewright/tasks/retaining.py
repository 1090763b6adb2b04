"""What a run must not forget: general text measured before the first step and at the end, for every task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tunewright.evaluation import forgetting
from tunewright.evaluation.forgetting import Score, Snapshot
from tunewright.tasks.task import ScoringParts


class Retaining:
    """The general text of one run, as the model sees it."""

    def __init__(self, parts: ScoringParts, masked: Score | None = None) -> None:
        """`masked` scores masked words, for an encoder with a head for them."""
        self.parts, self.masked = parts, masked
        retain = parts.recipe.evaluation.retain
        self.documents: Sequence[str] = () if retain == "none" else forgetting.documents(retain)

    def remember(self) -> None:
        """Keep what the untrained model makes of it."""
        if self.documents:
            self.parts.recorder.write_tensors("predictions/general-before.safetensors", self._now().tensors())

    def forgotten(self) -> dict[str, Any] | None:
        """What run.json says of it; None where the untrained model wasn't measured."""
        if not self.documents or not self._path.exists():
            return None
        return forgetting.forgetting(Snapshot.of_tensors(load_file(self._path)), self._now())

    @property
    def _path(self) -> Path:
        return self.parts.recorder.folder / "predictions" / "general-before.safetensors"

    def _now(self) -> Snapshot:
        parts = self.parts
        return forgetting.measure(
            parts.forward,
            parts.tokenizer,
            self.documents,
            masked=self.masked,
            runtime=parts.runtime,
            before_batch=parts.stop_if_asked,
        )
