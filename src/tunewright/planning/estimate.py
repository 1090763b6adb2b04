"""What a run will cost, as plain numbers: memory at its largest moment, seconds by stretch, bytes on disk.

`memory`, `time` and `disk` compute the parts, `costing` puts them together, the header and `plan` show them. Measures
nothing and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One line of an estimate: bytes or seconds."""

    name: str
    amount: float
    how: str = "computed"  # measured, computed


@dataclass(frozen=True)
class Memory:
    """Memory of the process (on a GPU: of the device) at its largest moment."""

    moment: str  # training, checkpoint, reloading, scoring, or before planning: when it is largest
    parts: tuple[Part, ...]  # what is held while training
    moments: dict[str, int]  # bytes at each moment
    cached_bytes: int  # of the peak, memory-mapped files: the system takes them back when it needs room
    held_bytes: int  # what the process holds already
    free_bytes: int  # what it may still take

    @property
    def peak_bytes(self) -> int:
        """What the system will show as the largest resident size."""
        return max(self.moments.values())

    @property
    def need_bytes(self) -> int:
        """What must be there: the peak without memory-mapped files."""
        return self.peak_bytes - self.cached_bytes

    @property
    def fits(self) -> bool:
        return self.need_bytes - self.held_bytes <= self.free_bytes


@dataclass(frozen=True)
class Time:
    """Seconds by stretch, in the order in which they pass."""

    parts: tuple[Part, ...]

    @property
    def seconds(self) -> float:
        return sum(part.amount for part in self.parts)


@dataclass(frozen=True)
class Disk:
    """Bytes that are on the disk at once, at most."""

    parts: tuple[Part, ...]
    free_bytes: int

    @property
    def need_bytes(self) -> int:
        return int(sum(part.amount for part in self.parts))

    @property
    def fits(self) -> bool:
        return self.need_bytes <= self.free_bytes


@dataclass(frozen=True)
class Estimate:
    """The whole cost of one run on this machine."""

    memory: Memory
    time: Time
    disk: Disk
    probed: bool  # whether steps were run to measure, or it is arithmetic
    flops: float = 0.0  # of all of training
    gemm_rate: float = 0.0  # FLOP/s of this machine

    @property
    def fits(self) -> bool:
        return self.memory.fits and self.disk.fits

    def to_json(self) -> dict[str, Any]:
        """Plain values, as stored in run.json and printed by `plan --json`."""
        memory, time, disk = self.memory, self.time, self.disk
        return {
            "probed": self.probed,
            "fits": self.fits,
            "memory": {
                "peak_bytes": memory.peak_bytes,
                "need_bytes": memory.need_bytes,
                "held_bytes": memory.held_bytes,
                "free_bytes": memory.free_bytes,
                "moment": memory.moment,
                "moments": dict(memory.moments),
                "parts": _plain(memory.parts, "bytes"),
            },
            "time": {"seconds": round(time.seconds, 3), "parts": _plain(time.parts, "seconds")},
            "disk": {
                "need_bytes": disk.need_bytes,
                "free_bytes": disk.free_bytes,
                "parts": _plain(disk.parts, "bytes"),
            },
            "flops": self.flops,
            "gemm_flops_per_second": self.gemm_rate,
        }


def _plain(parts: tuple[Part, ...], unit: str) -> list[dict[str, Any]]:
    amounts = {"bytes": int, "seconds": lambda value: round(value, 3)}
    return [{"name": part.name, unit: amounts[unit](part.amount), "how": part.how} for part in parts]
