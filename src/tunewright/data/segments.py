"""Segments (a prompt, what must be written, and so on in turns) as token ids and a mask of what is learned.

Between templates or conversations, which make segments of a row, and the stored arrays. Training and answering both
come through here, so a prompt has the same ids in both. Pads nothing, stores nothing, needs no torch.

Neighbouring segments of one kind are tokenised as one text, so that a prompt's ids are those of the plain
`tokenizer(prompt)`; a prompt and its completion are tokenised apart. Spaces at the end of a prompt belong to the
completion: "A: " + "Paris" is learned as "A:" + " Paris", the words that the base model knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby
from typing import Any, Literal

from tunewright.data.encoding import PROBES, Encoder, Side
from tunewright.errors import DataError, RecipeError

VERSION = 1  # raise it when the same segments give other ids

# completion: the last target of a row; assistant: every target; all: every token but the BOS.
Learn = Literal["completion", "all", "assistant"]

_ANCHOR = "\n"  # what a continuation is tokenised behind, so that no space is put before it


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of what a model reads."""

    text: str
    is_target: bool  # True: the model must write it
    is_value: bool = False  # from a row, and not of a template: "</s>" in it is text, not the control token


Segments = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One row as the model reads it."""

    ids: list[int]
    is_target: list[bool]  # as long as ids; True = counts
    context_cut: int = 0  # tokens lost to max_length
    target_cut: int = 0  # the same of what had to be learned, an EOS that was left out included


@dataclass(slots=True)
class _Piece:
    """Segments that are tokenised as one text; after tokenising, their ids."""

    texts: list[str]
    is_target: bool
    run: int  # pieces of one run stand side by side and are of one kind
    as_text: bool = False  # names of control tokens are plain text here
    anchored: bool = False  # tokenised as what it is, a continuation
    ids: list[int] | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def size(self) -> int:
        return len(self.ids or ())


@dataclass(frozen=True)
class SegmentEncoder:
    """A tokenizer, and what it must know of it to put segments together."""

    tokenizer: Any
    max_length: int | None  # None: nothing is cut
    truncate: Side  # the side of a context segment that is cut
    learn: Learn
    lead: tuple[int, ...]  # the BOS, where this tokenizer puts one before every text
    bos: tuple[int, ...]  # the same, or the BOS it knows without using it: never twice at the start
    eos: int | None  # after the last target
    ends: frozenset[int]  # control tokens after which no EOS is needed
    controls: re.Pattern[str]  # the names of all control tokens
    control_ids: frozenset[int]
    anchor: tuple[int, ...] | None  # ids of _ANCHOR, where the tokenizer puts a space before every text

    @classmethod
    def of(
        cls, tokenizer: Any, max_length: int | None = None, truncate: Side = "left", learn: Learn = "completion"
    ) -> SegmentEncoder:
        """Finds BOS, EOS and habits of the tokenizer by trying it."""
        lead = Encoder.of(tokenizer).prefix
        bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        needed = len(lead) + (eos is not None) + 1
        if max_length is not None and max_length < needed:
            found = f"data.max_length is {max_length}, too short for one token to learn"
            raise RecipeError(f"{found}; expected at least {needed}.", field="data.max_length")
        names = control_tokens(tokenizer)
        return cls(
            tokenizer=tokenizer,
            max_length=max_length,
            truncate=truncate,
            learn=learn,
            lead=lead,
            bos=lead or ((bos,) if bos is not None else ()),
            eos=eos,
            ends=_ends(tokenizer, names),
            controls=control_pattern(names),
            control_ids=frozenset(names.values()) - {tokenizer.unk_token_id},
            anchor=_anchor(tokenizer),
        )

    def encode(self, segments: Segments, where: str = "") -> Tokens:
        """One row for training. DataError, naming `where`, when nothing is left to learn."""
        return self.encode_all([segments], [where])[0]

    def encode_all(self, rows: Sequence[Segments], wheres: Sequence[str]) -> list[Tokens]:
        """Many rows at once, which is several times faster than one by one."""
        planned = [list(self._pieces(segments)) for segments in rows]
        self._tokenise(list(chain.from_iterable(planned)))
        return [self._for_training(pieces, where) for pieces, where in zip(planned, wheres, strict=True)]

    def prompt_ids(self, segments: Segments, *, room: int = 0) -> list[int]:
        """The ids before the last target (or of everything, when the segments end without one), as in training.

        `room`: tokens of max_length that are kept free for the answer.
        """
        pieces = list(self._pieces((*_without_last_target(segments), Segment("", is_target=True))))
        self._tokenise(pieces)
        lead, pieces = self._one_bos(pieces)
        for piece in pieces:
            piece.is_target = False
        if self.max_length is not None:
            over = len(lead) + sum(piece.size for piece in pieces) + room - self.max_length
            pieces, _ = self._shorter_context(pieces, over)
        return [*lead, *chain.from_iterable(piece.ids or () for piece in pieces)]

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the ids and the mask, as JSON."""
        encoder = Encoder.of(self.tokenizer, None, self.truncate)
        own = {"version": VERSION, "max_length": self.max_length, "learn": self.learn, "eos": self.eos}
        return {**encoder.fingerprint(), **own, "controls": sorted(self.control_ids)}

    # ---- segments -> pieces -> ids ----

    def _pieces(self, segments: Segments) -> Iterator[_Piece]:
        """Runs of one kind as one piece each, unless a value would bring or complete a control token."""
        shifted = [segment for segment in _spaces_to_targets(segments) if segment.text]
        begins = True
        for run, (is_target, group) in enumerate(groupby(shifted, key=lambda segment: segment.is_target)):
            parts = list(group)
            if self.tokenizer.is_fast and not self._forges(parts):
                pieces = [_Piece([part.text for part in parts], is_target, run)]
            else:
                texts = [part.text for part in parts]
                texts = _spaces_forward(texts) if self.tokenizer.is_fast else texts
                given = [(text, part.is_value) for text, part in zip(texts, parts, strict=True) if text]
                pieces = [_Piece([text], is_target, run, as_text=is_value) for text, is_value in given]
            for piece in pieces:
                piece.anchored, begins = self.anchor is not None and not begins, False
            yield from pieces

    def _forges(self, parts: list[Segment]) -> bool:
        """Whether a control token's name lies, wholly or in part, in a value."""
        if not any(part.is_value for part in parts):
            return False
        ends = list(accumulate(len(part.text) for part in parts))
        values = [(end - len(part.text), end) for part, end in zip(parts, ends, strict=True) if part.is_value]
        found = self.controls.finditer("".join(part.text for part in parts))
        return any(match.start() < end and begin < match.end() for match in found for begin, end in values)

    def _tokenise(self, pieces: list[_Piece]) -> None:
        for as_text in (False, True):
            for anchored in (True, False):  # in this order: where the anchor won't do, a piece stands alone
                group = [p for p in pieces if p.ids is None and (p.as_text, p.anchored) == (as_text, anchored)]
                texts = [_ANCHOR + piece.text if anchored else piece.text for piece in group]
                for piece, ids in zip(group, self._call(texts, as_text), strict=True):
                    self._set_ids(piece, ids)

    def _set_ids(self, piece: _Piece, ids: list[int]) -> None:
        """Without the anchor. Where it has grown into the text, the text comes alone, at the price of a space."""
        size = len(self.anchor or ()) if piece.anchored else 0
        piece.anchored = piece.anchored and tuple(ids[:size]) == self.anchor
        piece.ids = ids[size:] if piece.anchored or not size else None

    def _call(self, texts: list[str], as_text: bool) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = _bare(self.tokenizer, texts, **({"split_special_tokens": True} if as_text else {}))
        if as_text and any(not self.control_ids.isdisjoint(ids) for ids in found):
            raise DataError(
                "a value of this row holds the name of a control token, which this tokenizer can't read as text; "
                "remove it from the data"
            )
        return found

    # ---- ids -> one row ----

    def _one_bos(self, pieces: list[_Piece]) -> tuple[list[int], list[_Piece]]:
        """The BOS of the row, and the pieces without it, however many stood in the text."""
        if not pieces or not self.bos:
            return list(self.lead), pieces
        ids, bos = pieces[0].ids or [], list(self.bos)
        given = 0
        while ids[given : given + len(bos)] == bos:
            given += len(bos)
        if not given:
            return list(self.lead), pieces
        # Its text goes too: cutting counts tokens by where they lie in the text.
        parts = self._by_segment(pieces[0])
        _take(parts, given, "left")
        return bos, [*parts, *pieces[1:]]

    def _for_training(self, pieces: list[_Piece], where: str) -> Tokens:
        lead, pieces = self._one_bos(pieces)
        if self.learn != "all":
            while pieces and not pieces[-1].is_target:
                pieces.pop()
        targets = [piece.run for piece in pieces if piece.is_target and piece.ids]
        if not targets:
            raise DataError("nothing to learn in this row: what must be written is empty", where=where or None)
        if self.learn == "completion":
            for piece in pieces:
                piece.is_target = piece.run == targets[-1]
        tokens = self._fitting(lead, pieces)
        if self.learn != "all":
            return tokens
        return replace(tokens, is_target=[place >= len(lead) for place in range(len(tokens.ids))])

    def _fitting(self, lead: list[int], pieces: list[_Piece]) -> Tokens:
        """Cut to max_length: context first, then the last turns of several, and of a lone target its end."""
        context_cut = target_cut = 0
        while (over := self._over(lead, pieces)) > 0:
            several = len({piece.run for piece in pieces if piece.is_target}) > 1
            if not several or over < self._longest_context(pieces):
                pieces, cut = self._shorter_context(pieces, over)
                context_cut += cut
                break
            pieces, dropped = _without_last_turn(pieces)
            target_cut += sum(piece.size for piece in dropped if piece.is_target)
            context_cut += sum(piece.size for piece in dropped if not piece.is_target)
        over, wants_eos = self._over(lead, pieces), self._wants_eos(pieces)
        if over > 0:  # the target alone is too long, and learns no end that it doesn't have
            _take(pieces, over - wants_eos, "right")
            target_cut += over
        ids = [*lead, *chain.from_iterable(piece.ids or () for piece in pieces)]
        mask = [False] * len(lead) + [piece.is_target for piece in pieces for _ in range(piece.size)]
        if wants_eos and over <= 0 and self.eos is not None:
            ids.append(self.eos)
            mask.append(True)
        return Tokens(ids, mask, context_cut, target_cut)

    def _over(self, lead: list[int], pieces: list[_Piece]) -> int:
        if self.max_length is None:
            return 0
        size = len(lead) + sum(piece.size for piece in pieces)
        return size + self._wants_eos(pieces) - self.max_length

    def _wants_eos(self, pieces: list[_Piece]) -> bool:
        last = next((piece.ids[-1] for piece in reversed(pieces) if piece.ids), None)
        return self.eos is not None and last not in self.ends

    def _longest_context(self, pieces: list[_Piece]) -> int:
        parts = chain.from_iterable(self._by_segment(piece) for piece in pieces if not piece.is_target)
        return max((part.size for part in parts), default=0)

    def _shorter_context(self, pieces: list[_Piece], over: int) -> tuple[list[_Piece], int]:
        """Take `over` tokens from the longest context segment, then from the next; and how many that gave."""
        if over <= 0:
            return pieces, 0
        parts = list(chain.from_iterable([p] if p.is_target else self._by_segment(p) for p in pieces))
        left = over
        for part in sorted((p for p in parts if not p.is_target), key=lambda p: -p.size):
            if left <= 0:
                break
            left -= _take([part], min(left, part.size), self.truncate)
        return parts, over - left

    def _by_segment(self, piece: _Piece) -> list[_Piece]:
        """A piece of several segments as one per segment, with the ids that it has."""
        if len(piece.texts) == 1:
            return [piece]
        text = _ANCHOR + piece.text if piece.anchored else piece.text
        offsets = _call(self.tokenizer, [text], return_offsets_mapping=True)["offset_mapping"][0]
        starts = [begin - len(_ANCHOR) * piece.anchored for begin, _ in offsets[len(offsets) - piece.size :]]
        parts = [replace(piece, texts=[text], ids=[]) for text in piece.texts]
        ends = list(accumulate(len(text) for text in piece.texts))
        segment = 0
        for token, start in zip(piece.ids or (), starts, strict=True):
            while segment < len(ends) - 1 and start >= ends[segment]:
                segment += 1
            parts[segment].ids.append(token)  # type: ignore[union-attr]
        return parts


# ---- the tokenizer's habits ----


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Names and ids of all special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {str(token.content): int(index) for index, token in added.items() if token.special}
    known = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {name: index for name, index in {**names, **dict(known)}.items() if name and index is not None}


def control_pattern(names: dict[str, int]) -> re.Pattern[str]:
    """Finds the names, longer ones first; matches nothing where there are none."""
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)")


def _ends(tokenizer: Any, names: dict[str, int]) -> frozenset[int]:
    """EOS and what chat templates end a turn with. An unknown character at the end is no end."""
    roles = ("bos_token_id", "unk_token_id", "pad_token_id", "mask_token_id", "cls_token_id", "sep_token_id")
    others = {getattr(tokenizer, role, None) for role in roles}
    return (frozenset(names.values()) - others) | ({tokenizer.eos_token_id} - {None})


def _anchor(tokenizer: Any) -> tuple[int, ...] | None:
    """Ids of the anchor, where texts get another start when they stand behind it."""
    alone, anchor = _bare(tokenizer, list(PROBES)), _bare(tokenizer, [_ANCHOR])[0]
    behind = _bare(tokenizer, [_ANCHOR + probe for probe in PROBES])
    if any(ids[: len(anchor)] != anchor for ids in behind):
        return None
    return None if [ids[len(anchor) :] for ids in behind] == alone else tuple(anchor)


def _bare(tokenizer: Any, texts: list[str], **settings: Any) -> list[list[int]]:
    return _call(tokenizer, texts, **settings)["input_ids"]


def _call(tokenizer: Any, texts: list[str], **settings: Any) -> Any:
    """No special tokens, cutting or padding, whatever the tokenizer's own file asks for."""
    return tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
        **settings,
    )


# ---- lists of segments and pieces ----


def _spaces_to_targets(segments: Segments) -> list[Segment]:
    """Spaces at the end of what stands before a target become its beginning."""
    shifted: list[Segment] = []
    for segment in segments:
        if segment.is_target and shifted and not shifted[-1].is_target:
            spaces = ""
            for place in range(len(shifted) - 1, -1, -1):
                text = shifted[place].text
                kept = text.rstrip(" \t")
                shifted[place], spaces = replace(shifted[place], text=kept), text[len(kept) :] + spaces
                if kept or (place and shifted[place - 1].is_target):
                    break
            if segment.text and spaces:
                shifted.append(Segment(spaces, is_target=True))
        shifted.append(segment)
    return shifted


def _spaces_forward(texts: list[str]) -> list[str]:
    """The same text, cut before its spaces and not behind them."""
    moved, spaces = list[str](), ""
    for text in texts[:-1]:
        kept = (spaces + text).rstrip(" \t")
        moved.append(kept)
        spaces = (spaces + text)[len(kept) :]
    return [*moved, spaces + texts[-1]]


def _without_last_target(segments: Segments) -> Segments:
    size = len(segments)
    while size and segments[size - 1].is_target:
        size -= 1
    return segments[:size]


def _without_last_turn(pieces: list[_Piece]) -> tuple[list[_Piece], list[_Piece]]:
    """The pieces up to the last target but one, and those behind it."""
    runs = sorted({piece.run for piece in pieces if piece.is_target})
    return [p for p in pieces if p.run <= runs[-2]], [p for p in pieces if p.run > runs[-2]]


def _take(pieces: list[_Piece], count: int, side: Side) -> int:
    """Remove so many ids from one side of the pieces."""
    left = count
    for piece in pieces if side == "left" else reversed(pieces):
        size = min(left, piece.size)
        kept = piece.ids or []
        piece.ids = kept[size:] if side == "left" else kept[: len(kept) - size]
        left -= size
    return count - left
