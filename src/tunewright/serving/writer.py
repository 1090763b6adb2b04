"""Using a model that writes: texts or rows in, texts out; files streamed in their order, in constant memory.

The run's own format, kept beside its model, makes the prompts, so they have the ids that training saw. Works on a run's
model, one of its checkpoints, its base, any causal or encoder–decoder folder or adapter, or a Hub id. `chatting` talks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from safetensors.torch import load_file

from tunewright.data import written
from tunewright.data.encoding import Side
from tunewright.data.examples import Row
from tunewright.data.pairs_tokens import pair_rows
from tunewright.data.written import Format, kept_in
from tunewright.data.written_tokens import RowEncoder
from tunewright.errors import ModelError
from tunewright.models.context import NO_LIMIT, context_length
from tunewright.models.finding import BaseModel, from_hub, resolve_base
from tunewright.models.forward import Forward
from tunewright.models.generation import Generated, generate
from tunewright.models.joining import load_learnt
from tunewright.models.loading import Loaded, load_saved
from tunewright.models.quiet import quiet
from tunewright.models.sampling import Sampling
from tunewright.models.stopping import cut_at_stop
from tunewright.models.writers import WriterKind, kind_of_model, load_writer
from tunewright.scanning.files import scan_run
from tunewright.scanning.headers import check_headers
from tunewright.serving.predict import base_of_run, refuse_taken, which_device

BLOCK = 128  # rows read, answered and written together
MAX_NEW_TOKENS = 256  # where the model's folder doesn't say
ANSWER = ("prediction", "stopped")  # the columns that each row gets


@dataclass(frozen=True)
class Written:
    """What the model writes for one prompt."""

    prediction: str
    stopped: Literal["eos", "stop", "length"]  # length: it was cut at the limit
    ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.prediction


@dataclass(frozen=True)
class Prompt:
    """A row as the model reads it."""

    ids: list[int]
    cut: int = 0  # tokens that were left out, context first


@dataclass(frozen=True)
class Writer:
    """A loaded model that writes."""

    model: Any  # the plain transformers or PEFT object
    tokenizer: Any
    encoder: RowEncoder
    max_new_tokens: int
    has_own_format: bool = True  # False: nobody kept one, so the chat template or the bare text must do
    as_base: bool = False  # with its adapter switched off

    @classmethod
    def load(cls, model: Path | str, device: str = "auto", *, weights: Path | None = None) -> Writer:
        """From a model or adapter folder or a Hub id; `weights`: a checkpoint folder of the same run, put on top.

        Raises ModelError for a classifier, NetworkError.
        """
        folder = Path(model) if Path(model).is_dir() else Path(from_hub(str(model)).path)
        return cls.of(load_saved(folder, which_device(device)), folder, weights=weights)

    @classmethod
    def of(cls, loaded: Loaded, folder: Path, *, weights: Path | None = None) -> Writer:
        """What was loaded from this folder, with the format that is kept there."""
        if loaded.labels is not None:
            raise ModelError("is a classifier, which writes nothing; use predict and evaluate", where=str(folder))
        if weights is not None:
            check_headers(weights)
            load_learnt(loaded.model, load_file(weights / "weights.safetensors"))
        form, beside = kept_in(folder)
        return cls._of(loaded, form, _limit(beside))

    @classmethod
    def of_base(cls, model: str, device: str = "auto", *, runs: Path = Path("runs")) -> Writer:
        """A base model by its name, as nobody has tuned it. Raises ModelError, NetworkError, MachineError."""
        loaded = _on(load_writer(resolve_base(model, runs=runs), None, seed=0), device)
        return cls._of(loaded, None, MAX_NEW_TOKENS)

    @classmethod
    def untrained(cls, run_folder: Path, device: str = "auto") -> Writer:
        """The base of a run, asked in the run's format."""
        scan_run(run_folder)
        summary = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
        base: BaseModel = base_of_run(summary, run_folder)
        form, beside = kept_in(run_folder / "model")
        loaded = _on(load_writer(base, None, seed=0), device)
        return cls._of(replace(loaded, **_cutting(run_folder / "model")), form, _limit(beside))

    @classmethod
    def _of(cls, loaded: Loaded, form: Format | None, max_new_tokens: int) -> Writer:
        own = form is not None
        if form is None:
            form = written.as_messages() if loaded.tokenizer.chat_template else written.as_it_is()
        longest = min(loaded.max_length or NO_LIMIT, _positions(loaded.model) or NO_LIMIT)
        side = cast(Side, loaded.truncate if form.name != "plain text" else "left")  # what comes next hangs on the end
        limit = longest if longest < NO_LIMIT else None
        if loaded.kind == "encoder-decoder":
            encoder = pair_rows(replace(form, learn="completion"), loaded.tokenizer, limit, side)
        else:
            encoder = RowEncoder.of(form, loaded.tokenizer, limit, side)
        return cls(loaded.model, loaded.tokenizer, encoder, max_new_tokens, own)

    @property
    def format(self) -> Format:
        """How a row becomes a prompt."""
        return self.encoder.format

    @property
    def kind(self) -> WriterKind:
        """How it writes."""
        found = kind_of_model(self.model)
        assert found is not None
        return found

    @cached_property
    def forward(self) -> Forward:
        """For likelihoods."""
        return Forward.checked(self.model)

    def without_adapter(self) -> Writer | None:
        """The base inside this model, without loading it again; None where the base itself was changed."""
        return replace(self, as_base=True) if hasattr(self.model, "disable_adapter") else None

    def with_whole_context(self) -> Writer:
        """The same, cutting only what the model has no positions for: a talk grows longer than the rows of training."""
        longer = replace(self.encoder.encoder, max_length=_positions(self.model))
        return replace(self, encoder=replace(self.encoder, encoder=longer))

    def sampling(self, **settings: Any) -> Sampling:
        """Settings of generation (see `Sampling`) with this model's ends; greedy unless they say otherwise."""
        return self._ended(replace(Sampling(max_new_tokens=self.max_new_tokens), **settings))

    def prompt(self, row: Row, sampling: Sampling | None = None) -> Prompt:
        """The ids for a row, cut as in training where they are too many. DataError naming row and column."""
        limit = (sampling or self.sampling()).max_new_tokens
        encoder = self.encoder.encoder
        room = 0 if self.kind == "encoder-decoder" else self.encoder.room_for(limit, _positions(self.model))
        ids = self.encoder.prompt_ids(row, room=room)
        if encoder.max_length is None or len(ids) < encoder.max_length - room:
            return Prompt(ids)
        return Prompt(ids, len(self.encoder.without_limit().prompt_ids(row)) - len(ids))

    def predict(self, asked: Sequence[str | Mapping[str, Any]], sampling: Sampling | None = None) -> list[Written]:
        """An answer to each text or row of columns, in order. Greedy without `sampling`.

        Raises UsageError for a text where the template reads several columns, DataError for a row without one of them.
        """
        rows = [self._row(one, number) for number, one in enumerate(asked)]
        prompts = [self.prompt(row, sampling).ids for row in rows]
        return self.write(prompts, sampling)

    def write(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling | None = None,
        *,
        numbers: Sequence[int] | None = None,
        on_token: Callable[[int, int], None] | None = None,
    ) -> list[Written]:
        """Completions of prompts that are ids already; see `generation.generate`."""
        if self.kind == "masked":
            raise ModelError("this model fills in masked words and writes no text; choose one that writes")
        chosen = self._ended(sampling) if sampling else self.sampling()
        off = self.model.disable_adapter() if self.as_base else contextlib.nullcontext()
        with off:
            found = generate(self.model, prompts, chosen, on_token=on_token, tokenizer=self.tokenizer, numbers=numbers)
        return [Written(self._text(one, chosen), one.stopped, one.ids) for one in found]

    def stream(
        self,
        rows: Iterable[Row],
        sampling: Sampling | None = None,
        *,
        column: str | None = None,
        block: int = BLOCK,
        on_cut: Callable[[Row, int], None] = lambda row, tokens: None,
    ) -> Iterator[dict[str, Any]]:
        """Each row's own columns, then `prediction` and `stopped`.

        `column` holds the whole prompt of a row, in the place of the format's own columns. `on_cut` hears of prompts
        that were too long, with the tokens they lost. Raises DataError naming a row that can't be read, or whose own
        columns the answer would replace.
        """
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, block)):
            prompts = []
            for row in chunk:
                refuse_taken(row, ANSWER)
                prompt = self.prompt(row if column is None else self._row_of_column(row, column), sampling)
                prompts.append(prompt.ids)
                if prompt.cut:
                    on_cut(row, prompt.cut)
            for row, said in zip(chunk, self.write(prompts, sampling, numbers=[r.number for r in chunk]), strict=True):
                yield {**row.values, **dict(zip(ANSWER, (said.prediction, said.stopped), strict=True))}

    # ---- parts ----

    def _text(self, found: Generated, sampling: Sampling) -> str:
        text = self.encoder.text(found.ids)
        return cut_at_stop(text, sampling.stop).rstrip() if found.stopped == "stop" else text

    def _ended(self, sampling: Sampling) -> Sampling:
        ends = sampling.eos_ids | self.encoder.encoder.ends
        return replace(sampling, eos_ids=ends, stop=tuple(dict.fromkeys((*sampling.stop, *self.encoder.stop))))

    def _row(self, asked: str | Mapping[str, Any], number: int) -> Row:
        where = f"row {number + 1}"
        return self.format.row(asked, where, number) if isinstance(asked, str) else Row(asked, where, number)

    def _row_of_column(self, row: Row, column: str) -> Row:
        text = written.as_it_is(column).prompt(row)
        return self.format.row("".join(part.text for part in cast(Any, text)), row.where, row.number)


def _limit(beside: Mapping[str, Any]) -> int:
    """Tokens of an answer, as training decided them."""
    limit = beside.get("max_new_tokens")
    return limit if isinstance(limit, int) and limit > 0 else MAX_NEW_TOKENS


def _cutting(folder: Path) -> dict[str, Any]:
    """How long a text may be and the side that is cut, as a saved model's tokenizer has it."""
    from transformers import AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    longest = tokenizer.model_max_length
    return {"max_length": longest if longest < NO_LIMIT else None, "truncate": tokenizer.truncation_side}


def _on(loaded: Loaded, device: str) -> Loaded:
    loaded.model.to(which_device(device)).eval()
    return loaded


def _positions(model: Any) -> int | None:
    """Tokens that the model has positions for, prompt and answer together; None where there is no limit."""
    longest = context_length(model.config.get_text_config(decoder=True))
    return longest if longest < NO_LIMIT else None
