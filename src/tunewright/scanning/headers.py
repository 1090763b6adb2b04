"""Whether a safetensors file is what its header says, and an index names only shards that lie beside it.

Reads headers and indexes, no tensor. The format: 8 bytes of length, a JSON object of that length, then the tensors end
to end, without a hole or an overlap (github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewright.errors import ModelError

# The format allows 100 MB; a hundred thousand tensors need 15, and parsing costs ten times the text in memory.
MAX_HEADER_BYTES = 16 * 2**20
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


def check_headers(folder: Path) -> None:
    """Every safetensors file and index of a folder. Raises ModelError."""
    tensors = {path.name: check_header(path) for path in sorted(folder.glob("*.safetensors")) if path.is_file()}
    for path in sorted(folder.glob("*.index.json")):
        if path.is_file():
            _check_index(path, tensors)


def check_header(path: Path) -> frozenset[str]:
    """Names of the file's tensors. Raises ModelError when header and file don't agree."""
    try:
        with path.open("rb") as stream:
            size, start = path.stat().st_size, stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
            if start == b"version ":
                raise ValueError("it is a Git LFS pointer, not the file; run git lfs pull")
            if not 2 <= length <= MAX_HEADER_BYTES or length + 8 > size:
                raise ValueError(_bad_length(length, size))
            header = json.loads(stream.read(length), object_pairs_hook=_no_name_twice)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        _check_metadata(header.pop("__metadata__", {}))
        _check_layout(header, size - 8 - length)
    except RecursionError:
        raise _unusable(path, "its header is nested too deep") from None
    except json.JSONDecodeError:
        raise _unusable(path, "its header is no JSON") from None
    except UnicodeDecodeError:
        raise _unusable(path, "its header is no UTF-8") from None
    except (OSError, ValueError) as error:
        raise _unusable(path, getattr(error, "strerror", None) or str(error)) from None
    return frozenset(header)


def _bad_length(length: int, size: int) -> str:
    if length < 0:
        return f"it has {size} bytes, which is no safetensors file"
    if length > MAX_HEADER_BYTES:
        return f"its header claims {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read"
    return f"its header claims {length:,} bytes, the file has {size:,}"


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names a tensor twice")
    return found


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is no table of texts")


def _check_layout(header: Mapping[str, Any], num_bytes: int) -> None:
    """Tensors lie end to end, each as long as its shape says, and fill the file."""
    spans = sorted((*_span(name, entry), name) for name, entry in header.items())
    reached = 0
    for begin, end, name in spans:
        if begin != reached:
            problem = "overlaps the one before it" if begin < reached else f"leaves {begin - reached:,} bytes unused"
            raise ValueError(f'tensor "{name}" {problem}')
        reached = end
    if reached != num_bytes:
        raise ValueError(f"its tensors take {reached:,} bytes, the file has {num_bytes:,} for them")


def _span(name: str, entry: Any) -> tuple[int, int]:
    try:
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f'tensor "{name}" lacks dtype, shape or data_offsets') from None
    if not isinstance(kind, str) or kind not in BITS:
        raise ValueError(f'tensor "{name}" has the unknown dtype {str(kind)[:40]}')
    if not isinstance(shape, list) or not all(_is_count(n) for n in (*shape, begin, end)):
        raise ValueError(f'tensor "{name}" has a shape or an offset that is no whole number')
    if (end - begin) * 8 != math.prod(shape) * BITS[kind]:
        raise ValueError(f'tensor "{name}" takes {end - begin:,} bytes, which isn\'t what its shape needs')
    return begin, end


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _check_index(path: Path, tensors: Mapping[str, frozenset[str]]) -> None:
    """Shards lie beside the index, are safetensors, and hold what it says. Raises ModelError."""
    for name, shard in _weight_map(path).items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise ModelError(f"names a shard outside its folder ({shard!r}), which is not read", where=str(path))
        if not shard.endswith(".safetensors"):
            raise ModelError(f'names the shard "{shard}", which is no safetensors file', where=str(path))
        if shard not in tensors:
            raise ModelError(f'can\'t be loaded: its shard "{shard}" is missing; download it again', where=str(path))
        if name not in tensors[shard]:
            raise ModelError(
                f"can't be loaded: \"{shard}\" doesn't hold {name}, as the index says; download both again",
                where=str(path),
            )


def _weight_map(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise ValueError(f"more than {MAX_HEADER_BYTES:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(found, dict) or not found:
            raise ValueError("its weight_map names nothing")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = "no weight_map" if isinstance(error, (LookupError, TypeError)) else str(error)
        raise ModelError(f"is no index of shards ({reason})", where=str(path)) from None
    return found


def _unusable(path: Path, reason: str) -> ModelError:
    what = "adapter" if path.name.startswith("adapter") else "weights"
    return ModelError(f"{what} can't be loaded: {reason}; copy or download the file again", where=str(path))
