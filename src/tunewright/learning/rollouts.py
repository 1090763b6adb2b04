"""Rollouts: the completions that the policy writes for an iteration's prompts, and what was thought of each token.

    prompts ─generate─▶ completions ─reward─▶ scores
                             └─one training forward─▶ logprobs, values
                             └─the reference's forward─▶ ref_logprobs

Made by `ppo_loop` at the start of an iteration and learnt from in the updates that follow. Texts lie end to end, heads
run at completion tokens alone, and all is cut into the micro-batches of the first updates, so that these meet a ratio
of exactly 1. With several ranks each writes and measures its share, and all know the whole afterwards.

Shapes: B completions, C tokens of the longest one, T completion tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tunewright.data.batching import collate, micro_batches
from tunewright.errors import ModelError
from tunewright.learning.ppo import token_kl
from tunewright.models.forward import Forward
from tunewright.models.generation import generate
from tunewright.models.language_head import LanguageHead, target_logprobs
from tunewright.models.likelihoods import next_tokens
from tunewright.models.sampling import Sampling
from tunewright.models.starting import Reference
from tunewright.models.value_head import ValueHead
from tunewright.runtime import Runtime


@dataclass(frozen=True)
class Asked:
    """A prompt as the reward sees it."""

    text: str
    values: Mapping[str, Any]  # the row's columns


Reward = Callable[[Sequence[Asked], Sequence[str]], np.ndarray]  # prompts, completions -> float64 [B]


class PromptSource(Protocol):
    """The prompts to practise on."""

    def __len__(self) -> int: ...

    def ids(self, index: int) -> list[int]:
        """What the policy is given."""
        ...

    def asked(self, index: int) -> Asked:
        """The same for the reward."""
        ...


@dataclass(frozen=True)
class Ending:
    """How a completion ends, and what its text is: without what ended it."""

    eos_ids: frozenset[int]
    text: Callable[[Sequence[int]], str]  # ids of a completion, its end among them -> its text
    stop: tuple[str, ...] = ()  # texts that end one too
    tokenizer: Any = None  # to see them in


@dataclass(frozen=True)
class Rollouts:
    """One iteration's completions, on the CPU. As a dataset: prompts with completions, the latter to be learnt."""

    numbers: Tensor  # int64 [B], which prompts
    prompts: Tensor  # int64, all prompts' tokens end to end
    prompt_lengths: Tensor  # int64 [B]
    completions: Tensor  # int64 [B, C], 0 behind the end
    completion_mask: Tensor  # bool [B, C], True = a token of the completion
    ended: Tensor  # bool [B], by itself; False: cut at the limit
    scores: Tensor  # float64 [B], of the reward
    logprobs: Tensor  # float32 [B, C] in nats, under the policy that wrote, at the temperature it wrote at
    ref_logprobs: Tensor  # float32 [B, C], the same under the reference
    values: Tensor  # float32 [B, C], before each token; 0 without a value head

    def __len__(self) -> int:
        return len(self.numbers)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    # ---- as a dataset (`batching.WrittenExamples`) ----

    @property
    def labels(self) -> np.ndarray:
        return np.zeros((len(self), 0), np.float32)

    @property
    def rows(self) -> np.ndarray:
        """int64 [B], which prompts."""
        return self.numbers.numpy()

    @property
    def completion_lengths(self) -> np.ndarray:
        """int64 [B], tokens of each completion."""
        return self.completion_mask.sum(1).numpy()

    @property
    def lengths(self) -> np.ndarray:
        """int64 [B], tokens of prompt and completion."""
        return self.prompt_lengths.numpy() + self.completion_lengths

    def tokens(self, index: int) -> np.ndarray:
        end = int(self.prompt_lengths[: index + 1].sum())
        prompt = self.prompts[end - int(self.prompt_lengths[index]) : end]
        return torch.cat([prompt, self.completions[index][self.completion_mask[index]]]).numpy()

    def is_target(self, index: int) -> np.ndarray:
        prompt = int(self.prompt_lengths[index])
        return np.arange(prompt + int(self.completion_mask[index].sum())) >= prompt

    # ---- what they are like ----

    @property
    def kl(self) -> float:
        """Nats per completion from the reference, as what was written measures it."""
        apart = token_kl(self.logprobs, self.ref_logprobs).masked_fill(~self.completion_mask, 0.0)
        return float(apart.double().sum(1).mean())

    @property
    def share_ended(self) -> float:
        """Completions that ended by themselves."""
        return float(self.ended.double().mean())

    @property
    def distinct(self) -> float:
        """Share of the tokens that are the first of their kind in their completion."""
        return sum(len(set(ids)) for ids in self._written()) / sum(len(ids) for ids in self._written())

    @property
    def different(self) -> float:
        """How many different completions there are, as a share of all."""
        return len({tuple(ids) for ids in self._written()}) / len(self)

    def are_scores_flat(self, group_size: int) -> bool:
        """Whether no group of completions that stand together (1: all of them) has two different scores."""
        groups = self.scores.view(-1, group_size) if group_size > 1 else self.scores[None]
        return bool(((groups.amax(1) - groups.amin(1)) <= 1e-6 * groups.abs().amax(1)).all())

    def _written(self) -> list[list[int]]:
        return [row[mask].tolist() for row, mask in zip(self.completions, self.completion_mask, strict=True)]


# ---- making them ----


@dataclass(frozen=True)
class Practice:
    """Who takes part in a rollout, the same in every iteration."""

    policy: Forward
    reference: Reference
    value_head: ValueHead | None
    prompts: PromptSource
    reward: Reward
    ending: Ending
    temperature: float
    max_new_tokens: int
    runtime: Runtime


def collect(
    practice: Practice,
    numbers: np.ndarray,
    steps: Sequence[np.ndarray],
    *,
    seed: int,
    max_tokens: int,
    stop_if_asked: Callable[[], None],
) -> Rollouts:
    """Completions of these prompts (int64 [B]), scored and measured.

    `steps`: the rollouts in the parts in which they are measured, each cut into micro-batches of at most `max_tokens`.
    `stop_if_asked` is called at every token and before every micro-batch, and may raise. Raises ModelError.
    """
    written = _written(practice, numbers, seed, stop_if_asked)
    scores = _scores(practice, written, stop_if_asked)
    measure = _Measure(practice, written, steps, max_tokens, stop_if_asked)
    logprobs, values = measure.under(practice.policy, practice.value_head)
    with practice.reference.running() as forward:
        ref_logprobs, _ = measure.under(forward, None)
    return Rollouts(**written.tensors() | {
        "scores": scores, "logprobs": logprobs, "ref_logprobs": ref_logprobs, "values": values,
    })  # fmt: skip


def _written(practice: Practice, numbers: np.ndarray, seed: int, stop_if_asked: Callable[[], None]) -> Rollouts:
    """The completions, of all ranks; nothing measured yet."""
    runtime, ending = practice.runtime, practice.ending
    prompts = [practice.prompts.ids(int(number)) for number in numbers]
    own = range(runtime.rank, len(prompts), runtime.world_size)
    settings = Sampling(
        max_new_tokens=practice.max_new_tokens,
        temperature=practice.temperature,  # top_p 1, top_k 0: the very distribution whose log probabilities are learnt
        stop=ending.stop,
        eos_ids=ending.eos_ids,
        seed=seed,
    )
    generated = generate(
        practice.policy.model,
        [prompts[i] for i in own],
        settings,
        on_token=lambda row, token: stop_if_asked(),
        tokenizer=ending.tokenizer,
        numbers=list(own),
        precision=practice.policy.precision,
    )
    ids = torch.zeros(len(prompts), practice.max_new_tokens + 2, dtype=torch.int64)  # two columns: length, ended
    for i, completion in zip(own, generated, strict=True):
        ids[i, : len(completion.ids)] = torch.tensor(completion.ids)
        ids[i, -2:] = torch.tensor((len(completion.ids), completion.stopped != "length"))
    ids = of_all_ranks(ids, runtime)
    longest = int(ids[:, -2].max())
    mask = torch.arange(longest) < ids[:, -2:-1]
    nothing = torch.zeros(mask.shape)
    return Rollouts(
        numbers=torch.from_numpy(numbers.astype(np.int64)),
        prompts=torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.int64),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts]),
        completions=ids[:, :longest].contiguous(),
        completion_mask=mask,
        ended=ids[:, -1] > 0,
        scores=torch.zeros(len(prompts), dtype=torch.float64),
        logprobs=nothing,
        ref_logprobs=nothing,
        values=nothing,
    )


def _scores(practice: Practice, written: Rollouts, stop_if_asked: Callable[[], None]) -> Tensor:
    """What the reward says of each completion's text, float64 [B]."""
    stop_if_asked()
    own = list(range(practice.runtime.rank, len(written), practice.runtime.world_size))
    texts = [practice.ending.text(written.completions[i][written.completion_mask[i]].tolist()) for i in own]
    asked = [practice.prompts.asked(int(written.numbers[i])) for i in own]
    scores = torch.zeros(len(written), dtype=torch.float64)
    if own:
        found = np.asarray(practice.reward(asked, texts), dtype=np.float64)
        assert found.shape == (len(own),), f"the reward gave {found.shape} for {len(own)} completions"
        if not np.isfinite(found).all():
            wrong = int(np.flatnonzero(~np.isfinite(found))[0])
            says = f"the score of a completion is not a number ({found[wrong]}): {texts[wrong][:60]!r}"
            raise ModelError(f"{says}; look at the reward's model", field="reward")
        scores[own] = torch.from_numpy(found)
    return of_all_ranks(scores, practice.runtime)


class _Measure:
    """The forward passes over what was written, in the micro-batches that will be learnt from first."""

    def __init__(
        self,
        practice: Practice,
        written: Rollouts,
        steps: Sequence[np.ndarray],
        max_tokens: int,
        stop_if_asked: Callable[[], None],
    ) -> None:
        self.practice, self.written, self.stop_if_asked = practice, written, stop_if_asked
        runtime, lengths = practice.runtime, written.lengths
        cut = [
            micro_batches(step, lengths, max_tokens, rank=runtime.rank, world_size=runtime.world_size) for step in steps
        ]
        self.parts = [part for step in cut for part in step]

    @torch.no_grad()
    def under(self, forward: Forward, value_head: ValueHead | None) -> tuple[Tensor, Tensor]:
        """Log probabilities, and values where there is a head: float32 [B, C] each, 0 behind the end."""
        mask, device = self.written.completion_mask, next(forward.model.parameters()).device
        logprobs, values = torch.zeros(mask.shape), torch.zeros(mask.shape)
        for part in self.parts:
            self.stop_if_asked()
            found = at_completions(forward, value_head, self.written, part, self.practice.temperature, device)
            inside = mask[part]
            logprobs[part] = torch.zeros(inside.shape).masked_scatter(inside, found.logprobs.cpu())
            if found.values is not None:
                values[part] = torch.zeros(inside.shape).masked_scatter(inside, found.values.cpu())
        both = of_all_ranks(torch.stack([logprobs, values]), self.practice.runtime)
        return both[0].contiguous(), both[1].contiguous()


@dataclass(frozen=True)
class AtCompletions:
    """What a forward says at the completion tokens of a micro-batch, text by text."""

    logprobs: Tensor  # float32 [T]
    entropies: Tensor  # float32 [T]
    values: Tensor | None  # float32 [T]


def at_completions(
    forward: Forward,
    value_head: ValueHead | None,
    rollouts: Rollouts,
    indices: np.ndarray,
    temperature: float,
    device: torch.device,
) -> AtCompletions:
    """One forward of these rollouts; the heads run where a token of a completion is predicted, and nowhere else."""
    batch = collate(rollouts, indices, device)
    places, targets = next_tokens(batch)
    hidden = forward.hidden(batch.texts)[places]
    logprobs, entropies = target_logprobs(hidden, LanguageHead.of(forward.model), targets, temperature)
    return AtCompletions(logprobs, entropies, value_head(hidden) if value_head is not None else None)


def of_all_ranks(found: Tensor, runtime: Runtime) -> Tensor:
    """Every rank has its rows and zeros elsewhere: the sum has all."""
    return found if runtime.world_size == 1 else runtime.sum(found.to(runtime.device)).cpu()
