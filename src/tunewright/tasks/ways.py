"""The three ways in which a model deals with words, each with its rows, its objective and its score.

    next word     causal models: what stands before is given, the next word is learnt
    masked word   encoders: some words are hidden, and guessed from both sides; such a model can't write
    pairs         encoder–decoder models: one text is read, another written

`write` asks `way_of` once the base is loaded; nothing else knows which it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tunewright.data.encoding import Side
from tunewright.data.pairs_tokens import pair_rows
from tunewright.data.windows import masked_windows, windows
from tunewright.data.written import Format
from tunewright.data.written_tokens import RowEncoder, WrittenDataset
from tunewright.evaluation.forgetting import Score
from tunewright.learning.gradients import Objective
from tunewright.learning.language_modeling import LanguageModeling
from tunewright.learning.masked_language_modeling import MaskedLanguageModeling, Masking, masked_likelihoods
from tunewright.learning.sequence_to_sequence import SequenceToSequence, pair_likelihoods
from tunewright.models.forward import Forward
from tunewright.models.guesses import check_guesses
from tunewright.models.likelihoods import Likelihoods, MeasuredExamples, target_likelihoods
from tunewright.models.writers import kind_of_model
from tunewright.recipe import Recipe
from tunewright.tasks.task import ScoringParts


class Way(Protocol):
    """One of them."""

    writes: ClassVar[bool]  # whether the model can generate

    def rows(self, form: Format, tokenizer: Any, max_length: int | None, truncate: Side) -> RowEncoder:
        """How rows become ids."""
        ...

    def windows(self, part: WrittenDataset, max_length: int, rows: RowEncoder) -> WrittenDataset:
        """Long documents cut so that the model can read them."""
        ...

    def objective(self) -> Objective:
        """What is minimised."""
        ...

    def likelihoods(self, dataset: MeasuredExamples, parts: ScoringParts) -> Likelihoods:
        """What the model thinks of each row's targets."""
        ...

    def retained(self) -> Score | None:
        """How general text is scored, where it isn't by its next words."""
        ...


@dataclass(frozen=True)
class NextWord:
    """Causal models."""

    writes: ClassVar[bool] = True

    def rows(self, form: Format, tokenizer: Any, max_length: int | None, truncate: Side) -> RowEncoder:
        return RowEncoder.of(form, tokenizer, max_length, truncate)

    def windows(self, part: WrittenDataset, max_length: int, rows: RowEncoder) -> WrittenDataset:
        return windows(part, max_length, *rows.encoder.lead[:1])

    def objective(self) -> LanguageModeling:
        return LanguageModeling()

    def likelihoods(self, dataset: MeasuredExamples, parts: ScoringParts) -> Likelihoods:
        return target_likelihoods(
            parts.forward, dataset, cache=parts.cache, runtime=parts.runtime, before_batch=parts.stop_if_asked
        )

    def retained(self) -> Score | None:
        return None


@dataclass(frozen=True)
class MaskedWord:
    """Encoders."""

    masking: Masking
    seed: int  # of the masks that judge; those that teach are drawn anew each time
    writes: ClassVar[bool] = False

    def rows(self, form: Format, tokenizer: Any, max_length: int | None, truncate: Side) -> RowEncoder:
        return RowEncoder.of(form, tokenizer, max_length, truncate)

    def windows(self, part: WrittenDataset, max_length: int, rows: RowEncoder) -> WrittenDataset:
        return masked_windows(part, max_length, rows.encoder.tokenizer)

    def objective(self) -> MaskedLanguageModeling:
        return MaskedLanguageModeling(self.masking)

    def likelihoods(self, dataset: MeasuredExamples, parts: ScoringParts) -> Likelihoods:
        return masked_likelihoods(
            parts.forward, dataset, self.masking, seed=self.seed, runtime=parts.runtime,
            before_batch=parts.stop_if_asked,
        )  # fmt: skip

    def retained(self) -> Score | None:
        def score(forward: Forward, dataset: MeasuredExamples) -> Likelihoods:
            return masked_likelihoods(forward, dataset, self.masking, seed=self.seed)

        return score


@dataclass(frozen=True)
class Pairs:
    """Encoder–decoder models."""

    writes: ClassVar[bool] = True

    def rows(self, form: Format, tokenizer: Any, max_length: int | None, truncate: Side) -> RowEncoder:
        return pair_rows(form, tokenizer, max_length, truncate)

    def windows(self, part: WrittenDataset, max_length: int, rows: RowEncoder) -> WrittenDataset:
        raise AssertionError("task continue refuses these models")

    def objective(self) -> SequenceToSequence:
        return SequenceToSequence()

    def likelihoods(self, dataset: MeasuredExamples, parts: ScoringParts) -> Likelihoods:
        return pair_likelihoods(parts.forward, dataset, runtime=parts.runtime, before_batch=parts.stop_if_asked)

    def retained(self) -> Score | None:
        return None


def check_way(forward: Forward) -> None:
    """The head, run where it has to, says what the model says by its own code. Raises ModelError."""
    if kind_of_model(forward.model) != "causal":
        check_guesses(forward)


def way_of(model: Any, tokenizer: Any, recipe: Recipe) -> Way:
    """The way of this model, plain or wrapped by PEFT."""
    kind = kind_of_model(model)
    if kind == "masked":
        vocabulary = model.get_input_embeddings().weight.shape[0]
        whole_word = recipe.data.mask == "words"
        return MaskedWord(Masking.of(tokenizer, vocabulary, whole_word=whole_word), recipe.training.seed)
    return Pairs() if kind == "encoder-decoder" else NextWord()
