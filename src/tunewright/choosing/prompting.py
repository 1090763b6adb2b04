"""A base model asked as it is: with the row's prompt alone, and with examples before it (prompt engineering).

What tuning has to beat where a model writes. Done well, not as a straw man: the examples are training rows in the very
format of the trials, with their answers; as many as fit; and an answer ends where the training answers would have, at a
line break where none of them holds one. Runs in a worker's process, trains nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunewright import stages
from tunewright.data.conversations import Conversation
from tunewright.data.examples import Row
from tunewright.data.segments import Segment, Segments
from tunewright.data.written_tokens import RowEncoder
from tunewright.models.context import NO_LIMIT, context_length
from tunewright.models.generation import generate
from tunewright.models.sampling import Sampling
from tunewright.recipe import Recipe
from tunewright.recording import Recorder
from tunewright.runtime import peak_memory, started
from tunewright.tasks.ways import way_of
from tunewright.tasks.write import Write

BETWEEN = "\n\n"  # examples
LOOKED_AT = 1000  # training rows, to see how answers end


def prompted(recipe: Recipe, runs: Path, shots: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Answers without examples under "0", and with `shots` of them: texts, whether each ended, and what it cost."""
    t = recipe.training
    recorder = Recorder(Path("no-folder"), lambda event: None, writes=False)
    with started(t.device, t.precision, t.threads) as runtime:
        tell("reading the data")
        task = stages.read_data(recipe, None, None, runs, recorder)
        assert isinstance(task, Write)
        tell("loading the model")
        base = stages.load_base(recipe, task, runs, recorder)
        resolved, _ = stages.resolve(recipe, task, base)
        model = base.loaded.model.to(runtime.device).eval()
        encoder = way_of(model, base.loaded.tokenizer, resolved).rows(task.format, base.loaded.tokenizer, None, "left")
        asked = [row for row in task.validation_source.rows() if row.number in set(map(int, task.validation_rows))]
        asked = asked[: int(resolved.evaluation.generate_rows)]
        asker = Asker.of(encoder, list(task.splits.train.rows()), task.train_rows, resolved, model)
        counts = dict.fromkeys((0, shots))
        return {str(count): asker.ask(asked, count, t.seed, tell) for count in counts}


@dataclass(frozen=True)
class Asker:
    """A loaded base and all that its prompts are made of."""

    model: Any
    encoder: RowEncoder
    train: list[Row]
    sampling: Sampling
    longest: int  # tokens that a prompt may have
    end: str | None  # after which an answer is over

    @classmethod
    def of(cls, encoder: RowEncoder, rows: Sequence[Row], learnt: np.ndarray, recipe: Recipe, model: Any) -> Asker:
        limit = recipe.evaluation.max_new_tokens
        assert isinstance(limit, int)
        train = [rows[i] for i in learnt.tolist()]
        positions = min(context_length(model.config.get_text_config(decoder=True)), NO_LIMIT)
        sampling = Sampling(max_new_tokens=limit, eos_ids=encoder.encoder.ends, stop=encoder.stop)
        return cls(model, encoder, train, sampling, max(1, positions - limit), end_of_answers(encoder, train))

    def ask(self, rows: Sequence[Row], shots: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
        """Each row with so many examples, fewer where they don't fit."""
        chosen = np.random.default_rng(seed).permutation(len(self.train))[:shots]
        examples = [self.train[i] for i in chosen.tolist()]
        found = [self._ids(row, examples) for row in rows]
        said = f"asking with {shots} examples in the prompt" if shots else "asking as it is"
        tell(said)
        begin = time.perf_counter()
        answers = generate(
            self.model, [ids for ids, _ in found], self.sampling, tokenizer=self.encoder.encoder.tokenizer
        )
        seconds = time.perf_counter() - begin
        return {
            "answers": [self._answer(one.ids) for one in answers],
            "ended": [one.stopped != "length" or self._is_over(one.ids) for one in answers],
            "shots": min((count for _, count in found), default=0),
            "costs": {
                "prompt_tokens": sum(len(ids) for ids, _ in found) / max(len(found), 1),
                "rows_per_second": len(found) / max(seconds, 1e-9),
                "peak_memory_bytes": float(peak_memory()),
                "saved_bytes": 0.0,
                "train_seconds": 0.0,
            },
        }

    # ---- parts ----

    def _ids(self, row: Row, examples: Sequence[Row]) -> tuple[list[int], int]:
        """The prompt's ids, and how many examples are in it."""
        for count in range(len(examples), 0, -1):
            ids = self._with_examples(row, examples[:count])
            if len(ids) <= self.longest:
                return ids, count
        return self.encoder.prompt_ids(row)[-self.longest :], 0

    def _with_examples(self, row: Row, examples: Sequence[Row]) -> list[int]:
        form, chat = self.encoder.format, self.encoder.chat
        asked, shown = form.prompt(row), [form.segments(example) for example in examples]
        if isinstance(asked, Conversation):
            assert chat is not None
            talks = [talk for talk in shown if isinstance(talk, Conversation)]
            return self.encoder.encoder.prompt_ids(chat.prompt(talk_with_examples(asked, talks)), room=0)
        texts = [segments for segments in shown if not isinstance(segments, Conversation)]
        return self.encoder.encoder.prompt_ids(text_with_examples(asked, texts), room=0)

    def _answer(self, ids: Sequence[int]) -> str:
        text = self.encoder.text(ids).strip()
        return text.partition(self.end)[0].strip() if self.end else text

    def _is_over(self, ids: Sequence[int]) -> bool:
        """Whether it went on after its end, as a base does that nobody taught to stop."""
        return self.end is not None and self.end in self.encoder.text(ids).strip()


def text_with_examples(asked: Segments, examples: Sequence[Segments]) -> Segments:
    """Whole examples, each followed by an empty line, then the row's prompt; nothing of it is to be written."""
    shown = [replace(part, is_target=False) for own in examples for part in (*own, Segment(BETWEEN, is_target=False))]
    return (*shown, *asked)


def talk_with_examples(asked: Conversation, examples: Sequence[Conversation]) -> Conversation:
    """What was said in the examples, then what is asked now; the system speaks once, as it does to the row."""
    system = tuple(itertools.takewhile(lambda message: message.role == "system", asked.messages))
    turns = [
        replace(message, is_learned=False) for talk in examples for message in talk.messages if message.role != "system"
    ]
    return replace(asked, messages=(*system, *turns, *asked.messages[len(system) :]))


def end_of_answers(encoder: RowEncoder, train: Sequence[Row]) -> str | None:
    """A line break or an empty line that no training answer holds, which so ends one."""
    texts = [text.strip() for row in train[:LOOKED_AT] for text in encoder.format.references(row)]
    return next((end for end in ("\n", BETWEEN) if texts and not any(end in text for text in texts)), None)
