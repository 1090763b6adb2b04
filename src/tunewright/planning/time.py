"""How long a run takes: counted operations over the machine's rate, set right by the steps that a probe ran.

Every stretch is priced in "arithmetic seconds" first; where the probe ran that kind of work, the ratio of measured to
arithmetic seconds corrects the rest. What happened before planning is measured by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tunewright.data.batching import epoch_steps, micro_batches
from tunewright.learning.loop import FitPlan
from tunewright.planning.counting import Work, Works
from tunewright.planning.estimate import Part, Time
from tunewright.planning.probe import Probe, Timed

# Shares of the GEMM rate that whole passes reach on a CPU (benchmarks/RESULTS.md), and the bytes per second of writing
# with fsync and SHA-256. They only matter where nothing was probed.
TRAINING_SHARE, SCORING_SHARE = 0.55, 0.6
BF16_SHARE = 0.65  # of that again on a CPU: only the products gain from bf16, attention and the rest much less
WRITING = 400e6
STEPS_LOOKED_AT = 200  # of the first epoch, to know the micro-batches per step
# Times that four bytes per trainable parameter move, per micro-batch and per step.
GRADIENT_PASSES, OPTIMIZER_PASSES = 3, 10


@dataclass(frozen=True)
class Speeds:
    """What the machine does per second."""

    gemm: float  # FLOP/s
    bandwidth: float  # bytes/s
    writing: float = WRITING  # bytes/s, with fsync and checksum
    share: float = 1.0  # of the usual share of the GEMM rate that this number format reaches


@dataclass(frozen=True)
class Answers:
    """What is written at each evaluation, by a model that writes."""

    prompts: np.ndarray  # int [rows], tokens of each prompt
    new_tokens: int  # at most, of each answer

    def seconds(self, course: Course, speeds: Speeds) -> float:
        """Prompts are read as texts are scored; then every token of a batch moves all weights once."""
        if not len(self.prompts):
            return 0.0
        reading = _scoring(course.works.scoring, speeds)(self.prompts)
        return reading + self.new_tokens * course.model_bytes / speeds.bandwidth


@dataclass(frozen=True)
class Practice:
    """What an iteration of PPO or GRPO adds: completions to be sampled, and several passes over them."""

    sampled: Answers  # of one iteration
    iterations: int
    texts_per_row: int  # completions of each prompt
    passes: int  # times each of them is learnt from


MEASURED = 2  # forward passes over what was sampled: the policy's and the reference's


@dataclass(frozen=True)
class Course:
    """What a run will compute and write, in numbers."""

    plan: FitPlan
    works: Works
    train_lengths: np.ndarray
    validation_lengths: np.ndarray
    trainable: int  # parameters
    model_bytes: int  # of the base and its head in memory
    saved_bytes: int  # of the final model on disk
    cached: bool  # whether a boundary cache is built first
    bootstrap_samples: int
    answers: Answers | None = None  # None: of a model that writes nothing
    practice: Practice | None = None  # None: rows are learnt from, and nothing is sampled

    @property
    def num_evaluations(self) -> int:
        """After training has begun."""
        return -(-self.plan.total_steps // self.plan.evaluate_every)

    @property
    def num_checkpoints(self) -> int:
        """Saved after at least one step."""
        every = self.plan.checkpoint_every
        return self.num_evaluations if every is None else -(-self.plan.total_steps // every)

    @property
    def epochs(self) -> float:
        return self.plan.total_steps / self.plan.steps_per_epoch

    @property
    def training_flops(self) -> float:
        return self.works.training.flops(self.train_lengths) * self.epochs


def estimate_time(course: Course, speeds: Speeds, probe: Probe | None, before: Part) -> Time:
    """Seconds by stretch; `before` is what has passed already."""
    plan, probe = course.plan, probe or Probe()
    score = _scoring(course.works.scoring, speeds)
    ratio, how = _ratio(probe.scoring, score)
    once = score(course.validation_lengths) * ratio
    parts = [before]
    if course.cached:
        cache = _scoring(course.works.caching, speeds)
        share, found = _ratio(probe.caching, cache)
        texts = np.concatenate([course.train_lengths, course.validation_lengths])
        parts.append(Part("computing the frozen layers once", cache(texts) * share, found))
    if plan.evaluate_before:
        parts.append(Part("scoring the untrained model", once, how))
    parts.append(_training(course, speeds, probe))
    if course.practice is not None:
        parts += _practising(course, course.practice, speeds)
    times = course.num_evaluations
    parts.append(Part(f"evaluating, {times} {'time' if times == 1 else 'times'}", once * times, how))
    if course.answers is not None:
        rounds = times + int(plan.evaluate_before) + 1  # the samples once more at the end
        parts.append(Part(f"answering in text, {rounds} times", rounds * course.answers.seconds(course, speeds)))
    return Time((*parts, *_writing(course, speeds)))


def _training(course: Course, speeds: Speeds, probe: Probe) -> Part:
    """Mean arithmetic seconds of a step, times the steps, times what the probe says of arithmetic."""
    step = _step_seconds(course, speeds)
    ratio, how = _ratio(probe.training, step)
    steps = epoch_steps(course.train_lengths, course.plan.batch_size, seed=course.plan.seed, epoch=0)
    looked_at = steps[:STEPS_LOOKED_AT]
    tokens = sum(float(course.train_lengths[s].sum()) for s in looked_at)
    # Scaled by tokens, not by steps: the few looked at may be shorter or longer than the rest.
    scale = float(course.train_lengths.sum()) / max(tokens, 1.0)
    seen = course.practice.texts_per_row * course.practice.passes if course.practice else 1
    computing = sum(step(course.train_lengths[s]) for s in looked_at) * scale * course.epochs * ratio * seen
    moving = course.plan.total_steps * OPTIMIZER_PASSES * 4 * course.trainable / speeds.bandwidth
    return Part(f"training, {course.plan.total_steps:,} steps", computing + moving, how)


def _practising(course: Course, practice: Practice, speeds: Speeds) -> list[Part]:
    """Writing completions and measuring them; the reward's own time is not in it."""
    measuring = _scoring(course.works.scoring, speeds)(course.train_lengths) * course.epochs * practice.texts_per_row
    writing = practice.sampled.seconds(course, speeds) * practice.iterations
    return [Part(f"sampling, {practice.iterations:,} times", writing + MEASURED * measuring)]


def _step_seconds(course: Course, speeds: Speeds) -> Callable[[np.ndarray], float]:
    """Arithmetic seconds of the gradient of one step, from the lengths of its texts."""

    def seconds(lengths: np.ndarray) -> float:
        parts = len(micro_batches(np.arange(len(lengths)), lengths, course.plan.micro_batch_tokens))
        moved = parts * GRADIENT_PASSES * 4 * course.trainable
        return (
            course.works.training.flops(lengths) / (speeds.gemm * speeds.share * TRAINING_SHARE)
            + moved / speeds.bandwidth
        )

    return seconds


def _scoring(work: Work, speeds: Speeds) -> Callable[[np.ndarray], float]:
    return lambda lengths: work.flops(lengths) / (speeds.gemm * speeds.share * SCORING_SHARE)


def _ratio(timed: list[Timed], arithmetic: Callable[[np.ndarray], float]) -> tuple[float, str]:
    """Measured over computed seconds of what the probe ran."""
    computed = sum(arithmetic(part.lengths) for part in timed)
    if not computed:
        return 1.0, "computed"
    return sum(part.seconds for part in timed) / computed, "measured"


LOADING = 0.5  # seconds to build a model of any size
JUDGING = 2e-7  # seconds per row and resample, all metrics together


def _writing(course: Course, speeds: Speeds) -> list[Part]:
    """Checkpoints, the final model written and read again, the judgement and its report."""
    checkpoint = 12 * course.trainable / speeds.writing
    saving = (course.saved_bytes + course.model_bytes) / speeds.writing + LOADING
    judging = len(course.validation_lengths) * course.bootstrap_samples * JUDGING + LOADING
    number = course.num_checkpoints
    return [
        Part(f"saving {number} {'checkpoint' if number == 1 else 'checkpoints'}", checkpoint * number),
        Part("saving the model, reading it again", saving),
        Part("judging it, writing the report", judging),
    ]
