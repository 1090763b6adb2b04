"""Memory by component, at each moment when a run is large: training, checkpoint, reloading, scoring.

Computed from counts; what a probe saw replaces what would be a guess (temporaries, and room that the allocator
keeps). Also finds what to change where it doesn't fit. `memory` measures bytes per token, `costing` reads the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunewright.planning.estimate import Memory, Part
from tunewright.planning.probe import Probe

MOMENT = 8  # bytes of AdamW's two moments per parameter
GRADIENT = 4
COPY = 12  # bytes per parameter that a checkpoint copies before it writes: weights and moments
# What temporaries of the backward pass and the allocator's gaps add to what autograd keeps, where nothing was probed;
# and what the gaps still grow by after the probed steps (benchmarks/planning.py).
TEMPORARIES, GROWTH = 0.45, 1.08
SCORING_WIDTHS = 60  # hidden states' worth of bytes per token that a forward without gradient holds at most


@dataclass(frozen=True)
class Holdings:
    """What a run holds, in numbers."""

    held_bytes: int  # by the process now, model included
    peak_so_far: int
    free_bytes: int
    weights: int  # bytes of the base and its head
    embeddings: int  # of them, input embeddings: read from the file as they are needed
    adapters: int
    trainable: int  # parameters
    per_token: float  # bytes that autograd keeps
    tokens: int  # of the largest micro-batch
    scoring_tokens: int
    width: int
    cache_bytes: int  # boundary cache, memory-mapped
    longest: int  # tokens of the longest text: no micro-batch is smaller
    on_cpu: bool = True

    @property
    def libraries(self) -> int:
        """Everything that isn't the model."""
        return max(0, self.held_bytes - (self.weights - self.embeddings) - self.adapters) if self.on_cpu else 0


def memory_by_component(run: Holdings, probe: Probe | None) -> Memory:
    """Bytes at each moment, and the parts of the one that people ask about, training."""
    kinds = {
        "training": _training(run, probe),
        "checkpoint": _checkpoint(run, probe),
        "reloading": _reloading(run, probe),
        "scoring": _scoring(run, probe),
    }
    moments = {name: sum(int(part.amount) for part in parts) for name, parts in kinds.items()}
    moment = max(moments, key=lambda name: moments[name])
    if run.on_cpu and run.peak_so_far > moments[moment]:
        moment, moments = "before", {**moments, "before": run.peak_so_far}
    cached = run.cache_bytes if moment != "before" and run.on_cpu else 0
    parts = tuple(part for part in kinds["training"] if part.amount)
    return Memory(moment, parts, moments, cached, run.held_bytes, run.free_bytes)


def _base(run: Holdings) -> list[Part]:
    """What is there at every moment."""
    return [
        Part("interpreter, libraries, data", run.libraries, "measured"),
        Part("weights", run.weights),
        Part("adapters", run.adapters),
        Part("boundary cache (page cache)", run.cache_bytes if run.on_cpu else 0),
    ]


def _activations(run: Holdings, probe: Probe | None) -> tuple[int, int, str]:
    """Bytes that autograd keeps, bytes of everything that comes and goes with them, and how that is known."""
    kept = int(run.per_token * run.tokens)
    if probe is None or not probe.training:
        return kept, int(kept * TEMPORARIES), "computed"
    peak = max(step.peak_bytes for step in probe.training)
    seen = max(0, peak - probe.held_bytes - GRADIENT * run.trainable) * GROWTH
    return min(kept, int(seen)), max(0, int(seen) - kept), "measured"


def _training(run: Holdings, probe: Probe | None) -> list[Part]:
    kept, around, how = _activations(run, probe)
    return [
        *_base(run),
        Part("gradients", GRADIENT * run.trainable),
        Part("optimizer", MOMENT * run.trainable),
        Part("activations", kept),
        Part("temporaries and gaps", around, how),
    ]


def _kept_back(run: Holdings, probe: Probe | None) -> int:
    """Room that the allocator keeps after a step."""
    if probe is None or not probe.training:
        kept, around, _ = _activations(run, None)
        return int((kept + around) * 0.8) if run.on_cpu else 0
    return max(0, probe.kept_bytes - probe.held_bytes)


def _checkpoint(run: Holdings, probe: Probe | None) -> list[Part]:
    copies, room = COPY * run.trainable, _kept_back(run, probe)
    return [
        *_base(run),
        Part("optimizer", MOMENT * run.trainable),
        Part("copies to write", copies),
        Part("gaps", max(0, room - copies), "measured" if probe else "computed"),
    ]


def _reloading(run: Holdings, probe: Probe | None) -> list[Part]:
    """The saved model is read again and compared; of a file that is mapped only what is used becomes resident."""
    kept, around, how = _activations(run, probe)
    return [
        *_base(run),
        Part("second copy of the model", run.weights + run.adapters - run.embeddings // 2),
        Part("gaps", max(_kept_back(run, probe), kept + around if run.on_cpu else 0), how),
    ]


def _scoring(run: Holdings, probe: Probe | None) -> list[Part]:
    if probe is not None and probe.scoring:
        around, how = max(0, max(part.peak_bytes for part in probe.scoring) - probe.held_bytes), "measured"
    else:
        around, how = SCORING_WIDTHS * 4 * run.width * run.scoring_tokens // 2, "computed"
    return [*_base(run), Part("scoring batches", around, how)]


# ---- when it doesn't fit ----


@dataclass(frozen=True)
class Change:
    """One thing to set otherwise, and what the run would then need."""

    settings: tuple[str, ...]  # "training.micro_batch_tokens=512"
    need_bytes: int


def what_would_fit(run: Holdings, *, method: str, layers_share: float) -> Change | None:
    """The mildest change that fits, by arithmetic: smaller micro-batches, shorter texts, fewer parameters."""
    for settings, changed in _changes(run, method, layers_share):
        memory = memory_by_component(changed, None)
        if memory.fits:
            return Change(settings, memory.need_bytes)
    return None


def _changes(run: Holdings, method: str, layers_share: float) -> Iterator[tuple[tuple[str, ...], Holdings]]:
    """From mild to severe. A micro-batch's size changes no gradient; shorter texts and fewer parameters do."""
    lengths = [n for n in (256, 128, 64) if n < run.longest]
    fewer: list[tuple[tuple[str, ...], Holdings]] = [((), run)]
    if method == "full":
        small = replace(run, trainable=max(1, run.trainable // 50))
        fewer.append((("trainable.method=lora",), small))
    if method != "head":
        top = replace(run, trainable=max(1, run.trainable // 50), per_token=run.per_token * layers_share)
        fewer.append((("trainable.method=lora", "trainable.layers=last 1"), top))
    for settings, changed in fewer:
        for tokens in [t for t in (1024, 512, run.longest) if run.longest <= t < run.tokens]:
            micro = f"training.micro_batch_tokens={tokens}"
            yield (*settings, micro), replace(changed, tokens=tokens)
        if settings:
            yield settings, changed
        for n in lengths:
            shorter = replace(changed, tokens=n, longest=n)
            yield (*settings, f"data.max_length={n}", f"training.micro_batch_tokens={n}"), shorter
