"""What a stranger's GGUF file says of itself, read before any library opens it: settings, and where its weights lie.

First thing that happens to a .gguf file. Nothing in it is taken on trust: a length that leads out of the file, a number
format nobody knows, a part of a model or no model at all is one sentence here. Reads no weights and no vocabulary.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright.durable import reason
from tunewright.errors import ModelError, TunewrightError, did_you_mean
from tunewright.scanning.templates import MAX_TEMPLATE_BYTES

SAFETENSORS = "use the model's safetensors instead"
EMBEDDINGS = "token_embd.weight"


@dataclass(frozen=True)
class Tensor:
    """One entry of the table of weights."""

    name: str
    shape: tuple[int, ...]  # fastest-moving first, as ggml writes it
    kind: int  # ggml's number of the number format
    offset: int  # in the data


@dataclass(frozen=True)
class Header:
    """What stands before the weights. Of arrays only the length is kept: vocabularies are left to the tokenizer."""

    values: dict[str, Any]
    spans: dict[str, tuple[int, int]]  # where each key with its value stands in the file
    tensors: dict[str, Tensor]
    table: tuple[int, int]  # where the table of weights stands
    data: int  # where the weights begin

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture"))

    @property
    def alignment(self) -> int:
        """The data begins at a multiple of this."""
        return int(self.values.get("general.alignment", 32))

    @property
    def num_weights(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def own(self, key: str) -> Any:
        """A setting of the architecture, as `gemma3.context_length`."""
        return self.values.get(f"{self.architecture}.{key}")


_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4


class _Cursor:
    """Reads forward through bytes; whatever lies outside raises struct.error, and nothing is taken on trust."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value

    def skip(self, size: int) -> int:
        """Go on by so many bytes; returns where they began."""
        if size > len(self.data) - self.at:
            raise struct.error("beyond the end")
        self.at += size
        return self.at - size

    def text(self) -> str:
        begin = self.skip(self.take("Q"))
        return self.data[begin : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        """A number or text; of an array its length, after a walk to its end."""
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.take(_NUMBERS[kind])
        inner, count = self.take("I"), self.take("Q")
        if inner in _NUMBERS:
            self.skip(count * struct.calcsize(f"<{_NUMBERS[inner]}"))
        else:
            for _ in range(count):
                self.skip(self.take("Q")) if inner == _TEXT else self.value(inner)
        return count


def read_header(file: Path, name: str) -> Header:
    """The header of a GGUF file, whose weights all lie in it; errors call the file `name`. Raises ModelError."""
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError("is no GGUF file: it doesn't begin with GGUF", where=name, field="model")
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"can't be read ({reason(error)})", where=name, field="model") from None
    with data:
        cursor = _Cursor(data, 4)
        try:
            _check_version(cursor.take("I"), name)
            header = _parse(cursor)
        except (struct.error, LookupError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, TunewrightError):
                raise
            says = "is cut short or damaged: its header makes no sense; download it again"
            raise ModelError(says, where=name, field="model") from None
        _check_sizes(header, len(data), name)
    return header


def _check_version(version: int, name: str) -> None:
    if version not in (2, 3):
        found = "is written for big-endian machines" if version in (2 << 24, 3 << 24) else f"is GGUF version {version}"
        raise ModelError(f"{found}; expected version 2 or 3", where=name, field="model")


def _parse(cursor: _Cursor) -> Header:
    num_tensors, num_keys = cursor.take("Q"), cursor.take("Q")
    values: dict[str, Any] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(num_keys):
        begin, key = cursor.at, cursor.text()
        values[key] = cursor.value(cursor.take("I"))
        spans[key] = begin, cursor.at
    begin = cursor.at
    tensors: dict[str, Tensor] = {}
    for _ in range(num_tensors):
        tensor = _parse_tensor(cursor)
        if tensor.name in tensors:
            raise ValueError("named twice")
        tensors[tensor.name] = tensor
    return Header(values, spans, tensors, (begin, cursor.at), _aligned(cursor.at, values))


def _parse_tensor(cursor: _Cursor) -> Tensor:
    name, dimensions = cursor.text(), cursor.take("I")
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError("too many dimensions")
    shape = tuple(cursor.take("Q") for _ in range(dimensions))
    return Tensor(name, shape, cursor.take("I"), cursor.take("Q"))


def _aligned(position: int, values: dict[str, Any]) -> int:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise ValueError("alignment")
    return -(-position // alignment) * alignment


def _check_sizes(header: Header, size: int, name: str) -> None:
    """Every weight is of a known number format and lies in the file."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # pyright: ignore[reportMissingImports]

    end = header.data
    for tensor in header.tensors.values():
        try:
            per_block, bytes_per_block = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except (ValueError, KeyError):
            says = f"weight {tensor.name:.60} has number format {tensor.kind}, which gguf doesn't know; {SAFETENSORS}"
            raise ModelError(says, where=name, field="model") from None
        end = max(end, header.data + tensor.offset + math.prod(tensor.shape) // per_block * bytes_per_block)
    if end > size:
        says = f"is cut short: it holds {size:,} bytes and its weights need {end:,}; download it again"
        raise ModelError(says, where=name, field="model")


def check_model(header: Header, name: str) -> None:
    """Whether this is one whole model that transformers reads and that writes. Raises ModelError."""
    kind, parts = header.values.get("general.type", "model"), header.values.get("split.count", 1)
    if kind != "model":
        raise ModelError(f'holds a "{kind!s:.40}", not a model', where=name, field="model")
    if parts not in (0, 1):
        says = f"is one of {parts} parts of a model; join them with llama-gguf-split --merge"
        raise ModelError(says, where=name, field="model")
    known = readable_architectures()
    if _plain(header.architecture) not in {_plain(architecture) for architecture in known}:
        says = (
            f'has the architecture "{header.architecture:.60}", which transformers doesn\'t read as a model that writes'
        )
        near = did_you_mean(header.architecture, known)
        raise ModelError(f"{says}; {SAFETENSORS}.{near}", where=name, field="general.architecture")
    if EMBEDDINGS not in header.tensors or "tokenizer.ggml.tokens" not in header.values:
        missing = "weights" if EMBEDDINGS not in header.tensors else "vocabulary"
        raise ModelError(f"has no {missing}; expected a whole model", where=name, field="model")
    template = header.values.get("tokenizer.chat_template", "")
    if not isinstance(template, str) or len(template.encode()) > MAX_TEMPLATE_BYTES:
        says = f"its chat template is no text of at most {MAX_TEMPLATE_BYTES // 2**10} kB"
        raise ModelError(says, where=name, field="tokenizer.chat_template")


def readable_architectures() -> list[str]:
    """What transformers can make a causal language model of."""
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    others = {"general", "tokenizer", "t5", "umt5"}
    return sorted({*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - others)


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name.lower())
