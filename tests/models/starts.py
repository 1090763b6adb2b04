"""A tiny tuned adapter on disk, and a policy that starts from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.models.made import Made
from tests.models.made_writers import make_writer
from tunewright.data.batching import lay_end_to_end
from tunewright.models.finding import BaseModel
from tunewright.models.forward import Forward
from tunewright.models.opened import Loaded
from tunewright.models.saving import save_model
from tunewright.models.starting import load_policy
from tunewright.models.trainable import TrainableReport, TrainableSpec, choose

PROBE = [[4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [5], [9, 8, 7, 6]]


@dataclass(frozen=True)
class Started:
    """The starting model alone, and the policy beside it."""

    start: Made
    source: BaseModel  # the start's folder
    loaded: Loaded
    model: Any
    report: TrainableReport

    @property
    def forward(self) -> Forward:
        return Forward.checked(self.model)


def save_start(made: Made, folder: Path) -> BaseModel:
    """The folder of a tuned model, as a run leaves it."""
    save_model(made.model, made.loaded.tokenizer, folder, base=made.base, labels=None, max_length=32, truncate="left")
    return BaseModel("run:sft", str(folder), "run")


def start_policy(kind: str, folder: Path, *, tuned: dict[str, Any] | None = None, **spec: Any) -> Started:
    """A tuned adapter with the settings `tuned`, and a new, untrained one beside it with those of `spec`."""
    made = make_writer(kind, folder, **({"rank": 4, "alpha": 8.0} | (tuned or {})))
    source = save_start(made, folder / "sft")
    loaded = load_policy(source, seed=1, dropout=0.0, beside=True)
    chosen = choose(loaded.model, TrainableSpec("lora", **({"rank": 2, "alpha": 6.0} | spec)), ())
    return Started(made, source, loaded, chosen.model.eval(), chosen.report)


@torch.no_grad()
def nudge(model: Any, by: float = 0.1) -> None:
    """Move what learns, as training would."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += by * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def hidden(forward: Forward) -> torch.Tensor:
    """Last hidden states of the probe, [tokens, width]."""
    return forward.hidden(lay_end_to_end(PROBE, "cpu"))
