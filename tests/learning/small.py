"""A tiny model, a toy dataset and a plan, for tests of the loop."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch

from tests.models import configs
from tunewright.errors import StoppedError
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.learning.classification import Classification
from tunewright.learning.gradients import Training
from tunewright.learning.loop import FitPlan, FitState, Hooks, fit
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.runtime import Runtime

RUNTIME = Runtime("cpu", "fp32", 2)
PLAN = FitPlan(
    total_steps=12,
    steps_per_epoch=4,
    batch_size=4,
    micro_batch_tokens=40,  # less than a step holds: every step accumulates
    learning_rate=1e-2,
    schedule="linear",
    warmup_steps=2,
    weight_decay=0.01,
    max_grad_norm=1.0,
    evaluate_every=4,
    evaluate_before=True,
    checkpoint_every=None,
    log_every=3,
    metric="validation/loss",
    higher_is_better=False,
    early_stopping=None,
    seed=7,
)


@dataclass(frozen=True)
class Toy:
    """Fifteen texts (the last batch of an epoch is uneven) whose class is whether they start with a low token."""

    ids: list[np.ndarray]
    labels: np.ndarray
    rows: np.ndarray

    @classmethod
    def make(cls, n: int = 15) -> Toy:
        generator = np.random.default_rng(3)
        ids = [generator.integers(3, 50, length) for length in generator.integers(4, 30, n)]
        labels = np.array([int(tokens[0] < 25) for tokens in ids])
        return cls(ids, labels, np.arange(n))

    def tokens(self, index: int) -> np.ndarray:
        return self.ids[index]

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(tokens) for tokens in self.ids])


def model(kind: str = "bert", dropout: float = 0.1) -> Any:
    """A LoRA model with dropout on its adapters."""
    torch.manual_seed(0)
    return peft.get_peft_model(
        configs.build(kind),
        peft.LoraConfig(
            task_type="SEQ_CLS", r=2, lora_alpha=8, lora_dropout=dropout, target_modules=["query", "value"]
        ),
    )


@dataclass
class Recorded:
    """What a run of the loop said and did."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    state: FitState | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    stopped: bool = False


def run(
    folder: Path,
    *,
    plan: FitPlan = PLAN,
    stop_at: int | None = None,
    resume: bool = False,
    make: Any = model,
    objective: Any = None,
    runtime: Runtime = RUNTIME,
    dataset: Toy | None = None,
) -> Recorded:
    """Train the tiny model; stop (as a signal would) at a step; resume from the newest checkpoint."""
    data, recorded, built = dataset or Toy.make(), Recorded(), make()
    torch.manual_seed(11)
    forward = Forward(built)
    counted = [0]

    def evaluate(step: int, epoch: float) -> dict[str, float]:
        logits = predict_logits(forward, data.ids)
        return {"validation/loss": float(np.abs(logits).mean()), "validation/constant": 1.0}

    def stepped(state: FitState, loss: float, tokens: int) -> None:
        counted[0] = state.step

    store = CheckpointStore(folder, {"recipe": "toy"})
    checkpoint = store.newest()[0] if resume else None
    start = checkpoint.step if checkpoint else 0
    hooks = Hooks(
        log=recorded.rows.append,
        evaluate=evaluate,
        evaluated=lambda row, best: recorded.rows.append({**row, "best": best}),
        stepped=stepped,
        say=recorded.said.append,
        stop_signal=lambda: 15 if stop_at is not None and max(counted[0], start) + 1 >= stop_at else 0,
    )
    try:
        recorded.state = fit(
            forward,
            objective or Classification("single"),
            Training(data, data.lengths),
            plan,
            store,
            hooks,
            runtime,
            checkpoint,
        )
    except StoppedError:
        recorded.stopped = True
    recorded.weights = {n: p.detach().clone() for n, p in built.named_parameters() if p.requires_grad}
    return recorded


def but(**changes: Any) -> FitPlan:
    """The plan with some numbers changed."""
    return replace(PLAN, **changes)
