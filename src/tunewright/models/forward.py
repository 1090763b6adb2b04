"""One forward for every model and every saving: unpadded texts, cached boundary activations, one pooled token.

    input_ids [N] --embeddings--> lower layers --boundary [N, D]--> upper layers --> pooled token [B, D] --> head
                                                                             └-----> all tokens [N, D] --> language head

A described architecture (see `architectures`) runs on texts laid end to end, so that no padding is computed: its own
code runs, our attention function keeps each text to itself, and stand-ins in its list of layers skip, record or inject
hidden states. Any other model runs as it is, on a padded batch. What holds for a model is checked with numbers when it
is wrapped (`checked`); what doesn't is switched off and named in `notes`. Training and saving are elsewhere.

Shapes: N tokens of all texts, B texts, D model width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.data.batching import Texts, lay_end_to_end
from tunewright.models import architectures
from tunewright.models.attention import packed_attention_in
from tunewright.models.layers import Inject, Pool, PoolPlan, Record, Skip, mean_per_text

ROUNDING = 64  # tokens


@dataclass(frozen=True)
class Boundary:
    """Hidden states that enter layer k, from the cache: [N, D]; for k = number of layers the pooled [B, D]."""

    k: int
    states: Tensor


@contextlib.contextmanager
def in_evaluation(model: nn.Module) -> Generator[None]:
    """Dropout off inside, the model's mode restored after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass
class Forward:
    """Logits of a classifier, or last hidden states of a language model, plain or wrapped by PEFT."""

    model: Any
    packed: bool = True  # texts end to end; False: pad and call the model as it is
    one_token: bool = True  # compute the last layer for the pooled token alone where its parts are known
    precision: str = "fp32"  # fp32, bf16: see `compute_in`
    rounding: int = ROUNDING  # in bf16 on a CPU, token counts are rounded up to a multiple of this
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inner: Any = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        self.base: Any = getattr(self.inner, self.inner.base_model_prefix, self.inner)  # T5 has no body of its own
        self.config: Any = self.inner.config
        self.architecture = architectures.find(self.inner)
        if self.architecture is None and self.packed:
            self.packed = False
            self.notes.append(f"{self.config.model_type}: its layers aren't described here; plain forward with padding")

    @classmethod
    def checked(cls, model: Any) -> Forward:
        """A forward whose savings equal the plain one on a probe of three texts; those that don't are switched off."""
        forward = cls(model)
        if forward.packed and not forward._agrees():
            forward.one_token = False
            if not forward._agrees():
                forward.packed = False
            kept = "padding is computed" if not forward.packed else "the last layer runs on every token"
            forward.notes.append(f"{forward.config.model_type}: faster forward differs from the plain one; {kept}")
        return forward

    def compute_in(self, precision: str) -> None:
        """Compute in fp32 or bf16 from now on. Beside an adapter, which keeps fp32, the frozen base is rounded once.

        A model that is saved whole keeps its own weights and is rounded product by product.
        """
        self.precision = precision
        if precision == "bf16" and hasattr(self.model, "peft_config"):
            for name, parameter in self.model.named_parameters():
                learns = parameter.requires_grad or "lora_" in name or "modules_to_save" in name
                if parameter.ndim > 1 and not learns:  # norms and biases are small, and lose most
                    parameter.data = parameter.data.bfloat16()

    @property
    def num_layers(self) -> int:
        """Layers of the stack, or 0 where it isn't described."""
        return len(self._layers) if self.architecture else 0

    @property
    def writes(self) -> bool:
        """Whether this is a language model: its head reads every token."""
        return self.inner.get_output_embeddings() is not None

    @property
    def pools_by_mean(self) -> bool:
        """Whether the head reads the mean of a text's tokens."""
        return architectures.pools_by_mean(self.inner)

    @property
    def pools_late(self) -> bool:
        """Whether all tokens must leave the last layer, because pooling happens behind it."""
        late = self.writes or self.pools_by_mean
        return late or (self.architecture is not None and self.architecture.checks_shape)

    def logits(self, texts: Texts, boundary: Boundary | None = None) -> Tensor:
        """Logits [B, outputs]; with a boundary, the layers below it are not run."""
        if not self.packed:
            with self.computing(texts):
                return self._padded(texts)
        layers = self._layers_above(boundary)
        if (boundary is None or boundary.k < len(layers)) and not self.pools_late:
            layers[-1] = Pool(layers[-1], self._pool_plan(texts))
        with self._running(layers, texts):
            return self._head(texts)

    def hidden(self, texts: Texts, boundary: Boundary | None = None) -> Tensor:
        """What a language model's head reads, [N, D]; with a boundary, the layers below it are not run."""
        if not self.packed:
            with self.computing(texts):
                return self._padded_hidden(texts)
        with self._running(self._layers_above(boundary), texts, pool=False):
            return self.base(**self._inputs(texts)).last_hidden_state[0, : texts.num_tokens]

    def states(self, texts: Texts, k: int) -> Tensor:
        """What enters layer k: [N, D]; for k = number of layers the pooled token's, [B, D] (all, if it pools late)."""
        layers = list(self._layers)
        record = Record(layers[min(k, len(layers) - 1)])
        if k < len(layers):
            layers[k:] = [record, *(Skip(layer) for layer in layers[k + 1 :])]
        else:
            inner = layers[-1] if self.pools_late else Pool(layers[-1], self._pool_plan(texts))
            layers[-1] = record.after(inner)
        with self._running(layers, texts, pool=False):
            self.base(**self._inputs(texts))
        assert record.states is not None
        pooled = k == len(layers) and not self.pools_late
        return record.states[:, 0] if pooled else record.states[0, : texts.num_tokens]

    # ---- parts ----

    @property
    def _layers(self) -> nn.ModuleList:
        assert self.architecture is not None
        return self.base.get_submodule(self.architecture.layers)

    def _layers_above(self, boundary: Boundary | None) -> list[nn.Module]:
        """The layers, with those below the boundary skipped and its states put in their place."""
        layers = list(self._layers)
        if boundary is not None and boundary.k > 0:
            k = boundary.k
            ready = k == len(layers) and not self.pools_late  # [B, D]: already the pooled token
            states = boundary.states[:, None] if ready else self._rounded_up(boundary.states)[None]
            layers[:k] = [*(Skip(layer) for layer in layers[: k - 1]), Inject(layers[k - 1], states)]
        return layers

    def _pool_plan(self, texts: Texts) -> PoolPlan:
        assert self.architecture is not None
        ends = torch.tensor(texts.lengths, device=texts.device).cumsum(0)
        first = torch.cat([ends.new_zeros(1), ends[:-1]])
        indices = ends - 1 if self.architecture.pooled == "last" else first
        return PoolPlan(indices, texts.lengths, self.architecture.last_layer if self.one_token else None)

    def _inputs(self, texts: Texts) -> dict[str, Any]:
        assert self.architecture is not None
        start = self.config.pad_token_id + 1 if self.architecture.positions_start == "after_padding" else 0
        ids = self._rounded_up(texts.input_ids)
        extra = len(ids) - texts.num_tokens
        lengths = (*texts.lengths, extra) if extra else texts.lengths
        positions = torch.cat([torch.arange(start, start + n, device=texts.device) for n in lengths])
        inputs = {
            "input_ids": ids[None],
            "position_ids": positions[None],
            "attention_mask": None,
            "sequence_lengths": lengths,
        }
        return inputs | ({"use_cache": False} if self.architecture.pooled == "last" else {})

    def _head(self, texts: Texts) -> Tensor:
        # A decoder's own code would look for the last real token in a padded batch; ours is already chosen.
        if hasattr(self.inner, "score"):
            hidden = self.base(**self._inputs(texts)).last_hidden_state
            pooled = hidden[0, self._pool_plan(texts).indices] if self.pools_late else hidden[:, 0]
            return self.inner.score(pooled)
        return self.inner(**self._inputs(texts)).logits

    @contextlib.contextmanager
    def _running(self, layers: Sequence[nn.Module], texts: Texts, pool: bool = True) -> Generator[None]:
        """The model with these layers in the place of its own, and our attention, for the length of one call."""
        assert self.architecture is not None
        path, _, name = self.architecture.layers.rpartition(".")
        parent, own = self.base.get_submodule(path), self._layers
        hook = None
        if pool and self.pools_by_mean:
            norm = self.base.get_submodule(self.architecture.final_norm)
            hook = norm.register_forward_hook(lambda _m, _i, hidden: mean_per_text(hidden, texts.lengths))
        setattr(parent, name, nn.ModuleList(layers))
        try:
            with packed_attention_in(self.config), self.computing(texts):
                yield
        finally:
            setattr(parent, name, own)
            if hook is not None:
                hook.remove()

    def computing(self, texts: Texts) -> contextlib.AbstractContextManager[Any]:
        """The number format of products; sums that need more keep it, as torch's autocast lists them."""
        wanted = self.precision == "bf16"
        return torch.autocast(texts.device.type, torch.bfloat16) if wanted else contextlib.nullcontext()

    def _rounded_up(self, tokens: Tensor) -> Tensor:
        """[N] or [N, D] with zeros behind, a text of its own that nobody reads, up to a multiple of `rounding`.

        On a CPU, bf16 products are compiled for their shape and kept: every N of its own would be 10 MB and more.
        """
        extra = -len(tokens) % self.rounding if self.precision == "bf16" and tokens.device.type == "cpu" else 0
        return torch.cat([tokens, tokens.new_zeros(extra, *tokens.shape[1:])]) if extra else tokens

    def _padded(self, texts: Texts) -> Tensor:
        input_ids, mask = self._padded_batch(texts)
        return self.inner(input_ids=input_ids, attention_mask=mask.long()).logits

    def _padded_hidden(self, texts: Texts) -> Tensor:
        input_ids, mask = self._padded_batch(texts)
        return self.base(input_ids=input_ids, attention_mask=mask.long(), use_cache=False).last_hidden_state[mask]

    def _padded_batch(self, texts: Texts) -> tuple[Tensor, Tensor]:
        """Ids [B, T] and which of them count [B, T]."""
        rows = torch.nn.utils.rnn.pad_sequence(
            list(texts.input_ids.split(list(texts.lengths))),
            batch_first=True,
            padding_value=self.config.pad_token_id or 0,
        )
        lengths = torch.tensor(texts.lengths, device=texts.device)
        return rows, torch.arange(rows.shape[1], device=texts.device) < lengths[:, None]

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether the packed forward gives the plain one's logits on a probe."""
        generator = torch.Generator().manual_seed(0)
        special = {self.config.pad_token_id, self.config.eos_token_id, self.config.bos_token_id}
        usable = [i for i in range(min(self.config.vocab_size, 1000)) if i not in special]
        picks = torch.randint(len(usable), (24,), generator=generator).tolist()
        ids = [usable[i] for i in picks]
        device = next(self.model.parameters()).device
        texts = lay_end_to_end([ids[:5], ids[5:11], ids[11:]], device)
        try:
            with in_evaluation(self.model):
                if self.writes:
                    plain, packed = self._padded_hidden(texts), self.hidden(texts)
                else:
                    plain, packed = self._padded(texts), self.logits(texts)
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
            return False  # an architecture that doesn't take our inputs: the plain forward will serve
        scale = plain.abs().max().clamp(min=1e-3)
        return bool(((plain - packed).abs().max() / scale) < 1e-3)
