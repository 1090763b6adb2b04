"""A chain: runs that build on each other, and people's ranking between them, in one file.

    chain:
      - {name: sft, task: generate, model: gemma3-270m, data: {train: instructions.jsonl}}
      - rank: {models: [run:sft], prompts: prompts.jsonl, completions: 4, store: judgements.db, export: ranked.jsonl}
      - {name: reward, task: reward, model: run:sft, data: {train: ranked.jsonl}}
      - {name: ppo, task: align, model: run:sft, data: {train: prompts.jsonl}, reward: {model: run:reward}}

InstructGPT's three steps are such a chain. Started again it goes on where it stopped: finished links are left alone,
stopped ones resumed, and a ranking waits until people have judged enough. Every link is an ordinary run, in a folder of
runs of the chain's own, so that run:NAME means the run of this chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from tunewright import recipe_files
from tunewright.errors import ModelError, RecipeError, UsageError
from tunewright.models.finding import BaseModel, resolve_base
from tunewright.progress import Listener, Phase, Said
from tunewright.recipe import Recipe
from tunewright.recipe_mistakes import recipe_error
from tunewright.recipe_part import Part, PositiveInt
from tunewright.runs import Run, read_summary, run_folders

if TYPE_CHECKING:
    from tunewright.data.judgements import Judgements
    from tunewright.serving.writer import Writer

PATHS = ("prompts", "guidelines", "store", "export")  # of a ranking, relative to the chain's file


class RankRecipe(Part):
    """A link in which people rank completions."""

    models: list[str]
    """Models that write the completions: run:NAME of an earlier link, or base models."""
    prompts: str
    """File of prompts."""
    completions: Annotated[int, Field(ge=2, le=26)] = 4
    """Completions of each prompt and model together."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature at which they are sampled."""
    max_new_tokens: PositiveInt | None = None
    """Tokens a completion may have; default: what training chose."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the sampling."""
    store: str = "judgements.db"
    """File that keeps prompts, completions and judgements."""
    guidelines: str | None = None
    """Text shown beside the completions."""
    judgements: PositiveInt | None = None
    """Judgements to wait for; default: one for each prompt."""
    export: str = "comparisons.jsonl"
    """File of comparisons that the next link reads."""


@dataclass(frozen=True)
class Link:
    """One step: a recipe, or a ranking."""

    name: str
    recipe: Recipe | None = None
    ranking: RankRecipe | None = None


@dataclass(frozen=True)
class Chain:
    """All steps, in order."""

    path: Path
    links: tuple[Link, ...]

    def folder(self, runs: Path) -> Path:
        """Where its runs lie."""
        return runs / self.path.stem


def is_chain(path: Path) -> bool:
    """Whether a YAML file holds a chain, not a recipe. False where it can't be read: the recipe's error tells why."""
    try:
        return "chain" in recipe_files.read_yaml(path)
    except RecipeError:
        return False


def load_chain(path: Path | str, overrides: Sequence[str] = ()) -> Chain:
    """Every link checked before the first one runs. `overrides` go on top of each recipe. Raises RecipeError."""
    path = Path(path)
    values = recipe_files.read_yaml(path)
    listed = values.pop("chain", None)
    if values:
        says = f'"{next(iter(values))}" stands beside chain; a chain holds nothing but its list of recipes'
        raise RecipeError(says, where=str(path), field=str(next(iter(values))))
    if not isinstance(listed, list) or not listed or not all(isinstance(item, dict) for item in listed):
        raise RecipeError("expected a list of recipes and rank steps under chain", where=str(path), field="chain")
    links = tuple(_link(item, number, path, overrides) for number, item in enumerate(listed, 1))
    _refuse_equal_names(links, path)
    return Chain(path, links)


def _link(values: Mapping[str, Any], number: int, path: Path, overrides: Sequence[str]) -> Link:
    where = f"{path}, link {number}"
    if set(values) == {"rank"}:
        return Link(f"rank-{number}", ranking=_ranking(values["rank"], where, path.parent))
    if "rank" in values:
        raise RecipeError("a rank step holds nothing beside rank; make the recipe a link of its own", where=where)
    recipe = recipe_files.build_recipe(values, overrides, where=where)
    if recipe.name is None:
        raise RecipeError('has no "name", by which later links call its model (run:NAME)', where=where, field="name")
    return Link(recipe.name, recipe=recipe)


def _ranking(values: Any, where: str, folder: Path) -> RankRecipe:
    try:
        ranking = RankRecipe.model_validate(values)
    except ValidationError as error:
        raise recipe_error(error, f"{where}, rank", list(RankRecipe.model_fields)) from None
    beside = {name: str(folder / value) for name in PATHS if (value := getattr(ranking, name)) is not None}
    return ranking.model_copy(update=beside)


def _refuse_equal_names(links: Sequence[Link], path: Path) -> None:
    seen: set[str] = set()
    for link in links:
        if link.name in seen:
            raise RecipeError(f'two links are called "{link.name}"; give each its own name', where=str(path))
        seen.add(link.name)


# ---- running ----


@dataclass(frozen=True)
class Done:
    """A run that is finished: now, or by an earlier start."""

    link: Link
    run: Run
    now: bool


@dataclass(frozen=True)
class Waiting:
    """People have to judge before the chain goes on."""

    link: Link
    judged: int
    wanted: int


@dataclass(frozen=True)
class Ranked:
    """A ranking that is complete: how many comparisons the next link reads."""

    link: Link
    comparisons: int


Outcome = Done | Waiting | Ranked


def run_chain(
    chain: Chain, runs: Path, listener: Listener, begin: Callable[[Link], None] = lambda link: None
) -> Iterator[Outcome]:
    """The outcome of each link, one after the other, until the end or until people have to judge.

    `begin` hears which link starts. Raises what its runs raise; started again, the chain goes on from there.
    """
    folder = chain.folder(runs)
    for link in chain.links:
        begin(link)
        if link.ranking is not None:
            outcome: Outcome = _rank(link, link.ranking, folder, listener)
            yield outcome
            if isinstance(outcome, Waiting):
                return
        else:
            assert link.recipe is not None
            # Only now is what an earlier link has written there to be found.
            yield _run(link, recipe_files.anchored(link.recipe, chain.path.parent), folder, listener)


def _run(link: Link, recipe: Recipe, folder: Path, listener: Listener) -> Done:
    """The link's run: finished, resumed, or new."""
    from tunewright.pipeline import fine_tune

    there = _run_of(link, folder)
    if there is None:
        return Done(link, fine_tune(recipe, runs=folder, listener=listener), now=True)
    _refuse_other_recipe(there, recipe)
    if read_summary(there).get("state") == "succeeded":
        return Done(link, Run(there), now=False)
    return Done(link, fine_tune(None, runs=folder, resume=str(there), listener=listener), now=True)


def _run_of(link: Link, folder: Path) -> Path | None:
    """The newest run of this name."""
    found = [path for path in run_folders(folder) if _name(path) == link.name]
    return max(found, key=lambda path: path.name, default=None)


def _name(folder: Path) -> str | None:
    try:
        return read_summary(folder).get("name")
    except ModelError:
        return None


def _refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """A finished link must be what the chain says, or later ones would build on something else."""
    kept = recipe_files.load_recipe(folder / "recipe.yaml")
    if kept != recipe:
        changed = next(
            (name for name in type(recipe).model_fields if getattr(kept, name) != getattr(recipe, name)), "recipe"
        )
        raise UsageError(
            f'"{changed}" is not what this link was run with; put it back, or remove the run: tunewright runs rm '
            f"{folder.name} --runs {folder.parent}",
            where=str(folder),
            field=changed,
        )


# ---- ranking ----


def _rank(link: Link, ranking: RankRecipe, folder: Path, listener: Listener) -> Waiting | Ranked:
    """Sample what isn't there yet; then the comparisons, if people have judged enough."""
    from tunewright.data.judgement_export import export
    from tunewright.data.judgements import Judgements
    from tunewright.serving.writing import write_rows

    with Judgements.open(ranking.store) as store:
        _sample(store, ranking, folder, listener)
        wanted = ranking.judgements or store.progress("nobody").prompts
        judged = sum(not one.skipped for one in store.judgements())
        if judged < wanted:
            return Waiting(link, judged, wanted)
        found = export(store, "ranked")
    write_rows(found.rows, ranking.export)
    for sentence in found.said:
        listener(Said(sentence))
    return Ranked(link, len(found.rows))


def _sample(store: Judgements, ranking: RankRecipe, folder: Path, listener: Listener) -> None:
    """Completions of every prompt by every model; a draw that is in the store isn't made again."""
    from tunewright.data.sources import open_any
    from tunewright.serving.drawing import ask, draw, kept_format

    # The bases are only looked at: a finished ranking loads none of them.
    bases = {name: resolve_base(name, runs=folder) for name in ranking.models}
    kept = next((form for base in bases.values() if (form := kept_format(Path(base.path)))), None)
    asked = ask(store, open_any(Path(ranking.prompts)), kept=kept)
    each = max(1, ranking.completions // len(bases))
    sampling = {"temperature": ranking.temperature, "seed": ranking.seed}
    if ranking.max_new_tokens is not None:
        sampling["max_new_tokens"] = ranking.max_new_tokens
    for name, base in bases.items():
        listener(Phase(f"sampling {each} completions of each prompt from {name}"))
        drawn = draw(store, _writer(base, folder), name, asked, each, sampling)
        if drawn.drawn:
            listener(Said(f"{name}: {drawn.drawn:,} completions"))


def _writer(base: BaseModel, folder: Path) -> Writer:
    from tunewright.serving.writer import Writer

    return Writer.load(base.path) if base.kind == "run" else Writer.of_base(base.name, runs=folder)
