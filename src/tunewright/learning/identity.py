"""What a resumed run must share with the checkpoint it continues, and what differs, in words.

Two kinds: what decides the run (recipe, data, base, precision, number of ranks), which nothing overrides; and what only
moves its last bits (versions, threads, device, processor), which `--resume --force` accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Another of these gives the same order and the same arithmetic in other roundings: near, not the same bytes. With the
# same data and base, the boundary cache can only differ by rounding too.
HARMLESS = ("tunewright", "torch", "transformers", "peft", "threads", "device", "processor", "boundary")

_MEANING = {
    "data": "the rows aren't those it began with",
    "base": "the base model's weights aren't those it began with",
    "boundary": "the frozen layers round otherwise here",
    "world_size": "the ranks would add up in another order",
    "threads": "-s training.threads=… brings it back",
    "device": "-s training.device=… brings it back",
}


@dataclass(frozen=True)
class Difference:
    """One thing that isn't as it was when the checkpoint was written."""

    name: str  # dotted, as `training.seed` or `torch`
    then: Any
    now: Any

    @property
    def harmless(self) -> bool:
        """Whether --force accepts it."""
        return self.name in HARMLESS

    def __str__(self) -> str:
        meaning = f" ({_MEANING[self.name]})" if self.name in _MEANING else ""
        return f"{self.name} was {_short(self.then)} and is now {_short(self.now)}{meaning}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Everything that differs, what decides the run first."""
    return sorted(_differences("", then, now), key=lambda d: d.harmless)


def _differences(prefix: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*now, *then)):
        old, new = then.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            # `recipe.training.seed` is `training.seed` to everyone else.
            yield from _differences("" if not prefix and name == "recipe" else f"{prefix}{name}.", old, new)
        elif old != new:
            yield Difference(f"{prefix}{name}", old, new)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "…" + text[-1:]
