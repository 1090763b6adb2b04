"""A tiny policy, prompts, a reward and plans, for tests of rollouts and of the PPO loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch

from tests.learning import small
from tests.models import configs
from tunewright.errors import StoppedError
from tunewright.learning.checkpoints import CheckpointStore
from tunewright.learning.gradients import Training
from tunewright.learning.language_modeling import LanguageModeling
from tunewright.learning.loop import FitPlan, FitState, Hooks
from tunewright.learning.ppo_loop import ppo
from tunewright.learning.ppo_plan import PpoPlan
from tunewright.learning.rollouts import Asked, Ending, Practice
from tunewright.models.forward import Forward
from tunewright.models.starting import Reference
from tunewright.models.value_head import ValueHead
from tunewright.runtime import Runtime

RUNTIME = Runtime("cpu", "fp32", 1)
EOS = 2
WIDTH = 32
PLAN = small.but(
    total_steps=12,  # three iterations of four updates
    steps_per_epoch=8,
    micro_batch_tokens=30,  # a minibatch is cut
    learning_rate=1e-2,
    schedule="linear",
    warmup_steps=0,
    weight_decay=0.0,
    evaluate_every=4,
    metric="validation/reward",
    higher_is_better=True,
)
PPO = PpoPlan(rollouts_per_iteration=6, max_new_tokens=7, kl_coef=0.05, temperature=0.8, eos_penalty=0.5)
GRPO = PpoPlan(method="grpo", rollouts_per_iteration=6, group_size=3, max_new_tokens=7, kl_coef=0.05)


@dataclass(frozen=True)
class Prompts:
    """Random prompts; the reward is told their number."""

    all: list[list[int]]

    @classmethod
    def make(cls, n: int = 10) -> Prompts:
        generator = np.random.default_rng(5)
        return cls([generator.integers(3, 50, int(length)).tolist() for length in generator.integers(2, 9, n)])

    def __len__(self) -> int:
        return len(self.all)

    def ids(self, index: int) -> list[int]:
        return self.all[index]

    def asked(self, index: int) -> Asked:
        return Asked(text(self.all[index]), {"number": index})


def text(ids: Sequence[int]) -> str:
    """Ids as words, without the end."""
    return " ".join(str(token) for token in ids if token != EOS)


ENDING = Ending(frozenset({EOS}), text)


def low_tokens(asked: Sequence[Asked], completions: Sequence[str]) -> np.ndarray:
    """The share of tokens below 20: easy to learn."""
    return np.array([np.mean([int(word) < 20 for word in c.split()]) if c else 0.0 for c in completions])


def model(kind: str = "llama", method: str = "lora", dropout: float = 0.1) -> Any:
    """A policy, with dropout that must stay off."""
    built = configs.build_writer(kind)
    built.generation_config.eos_token_id = EOS
    if method == "full":
        return built
    torch.manual_seed(0)
    return peft.get_peft_model(
        built,
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=2, lora_alpha=8, lora_dropout=dropout, target_modules=["q_proj", "v_proj"]
        ),
    )


def moved(built: Any) -> Any:
    """The same with adapters that are no longer zero, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in built.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return built


def practice(forward: Forward, plan: PpoPlan = PPO, reward: Any = low_tokens, runtime: Runtime = RUNTIME) -> Practice:
    head = ValueHead(WIDTH, seed=1) if plan.method == "ppo" else None
    return Practice(
        forward, Reference.of(forward), head, Prompts.make(), reward, ENDING, plan.temperature, plan.max_new_tokens,
        runtime,
    )  # fmt: skip


@dataclass(frozen=True)
class Pages:
    """Plain text to learn beside."""

    ids: list[np.ndarray]

    @classmethod
    def make(cls) -> Pages:
        generator = np.random.default_rng(8)
        return cls([generator.integers(3, 50, int(length)) for length in generator.integers(4, 12, 7)])

    @property
    def labels(self) -> np.ndarray:
        return np.zeros((len(self.ids), 0), np.float32)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.ids])

    def tokens(self, index: int) -> np.ndarray:
        return self.ids[index]

    def is_target(self, index: int) -> np.ndarray:
        return np.ones(len(self.ids[index]), bool)


def ptx() -> tuple[LanguageModeling, Training]:
    pages = Pages.make()
    return LanguageModeling(), Training(pages, pages.lengths)


@dataclass
class Recorded:
    """What a run of the loop said and did."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    state: FitState | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    value_head: ValueHead | None = None
    stopped: str = ""
    signals: int = 0  # times the loop asked whether to stop


def run(
    folder: Path,
    *,
    plan: FitPlan = PLAN,
    ppo_plan: PpoPlan = PPO,
    stop_when: Callable[[Recorded, int], int] | None = None,
    resume: bool = False,
    make: Callable[[], Any] = model,
    reward: Any = low_tokens,
    runtime: Runtime = RUNTIME,
    beside: Any = None,
) -> Recorded:
    """Practise; stop (as a signal would) when asked, given how often the loop asked and the step; resume the newest."""
    recorded, built = Recorded(), make()
    forward = Forward(built)
    reference = Reference.of(forward)
    recorded.value_head = ValueHead(WIDTH, seed=1) if ppo_plan.method == "ppo" else None
    store = CheckpointStore(folder, {"recipe": "toy"})
    checkpoint = store.newest()[0] if resume else None
    step = [checkpoint.step if checkpoint else 0]

    def evaluate(number: int, epoch: float) -> dict[str, float]:
        weights = sum(float(p.detach().double().sum()) for p in built.parameters() if p.requires_grad)
        return {"validation/reward": float(np.sin(weights))}

    def stepped(state: FitState, loss: float, tokens: int) -> None:
        step[0] = state.step

    def stop_signal() -> int:
        recorded.signals += 1
        return stop_when(recorded, step[0]) if stop_when else 0

    hooks = Hooks(
        log=recorded.rows.append,
        evaluate=evaluate,
        evaluated=lambda row, best: recorded.rows.append({**row, "best": best}),
        stepped=stepped,
        say=recorded.said.append,
        stop_signal=stop_signal,
    )
    try:
        recorded.state = ppo(
            forward, reference, recorded.value_head, Prompts.make(), reward, plan, ppo_plan, store, hooks, runtime,
            checkpoint, beside, ending=ENDING,
        )  # fmt: skip
    except StoppedError as stopped:
        recorded.stopped = str(stopped)
    recorded.weights = {n: p.detach().clone() for n, p in built.named_parameters() if p.requires_grad}
    return recorded


def timeless(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows but for what a clock wrote."""
    return [{k: v for k, v in row.items() if k != "ppo/completions_per_second"} for row in rows]


def but(**changes: Any) -> FitPlan:
    return replace(PLAN, **changes)


def ppo_but(**changes: Any) -> PpoPlan:
    return replace(PPO, **changes)
