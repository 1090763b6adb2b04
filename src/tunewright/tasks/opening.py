"""From a recipe's word to its task: the one place that knows them all."""

from __future__ import annotations

from pathlib import Path

from tunewright.data.examples import Splits
from tunewright.recipe import Recipe
from tunewright.tasks.task import Task


def open_task(recipe: Recipe, splits: Splits, runs: Path) -> Task:
    """The recipe's task on these sources, looked through once; `runs` is where run:NAME is found.

    Raises DataError, RecipeError.
    """
    if recipe.task == "classify":
        from tunewright.tasks.classify import Classify  # late: a run needs the code of one task

        return Classify.of(recipe, splits)
    if recipe.task == "reward":
        from tunewright.tasks.reward import RewardTask

        return RewardTask.of(recipe, splits, runs)
    if recipe.task == "align" and recipe.align.method == "dpo":
        from tunewright.tasks.align_dpo import AlignDpo

        return AlignDpo.of(recipe, splits, runs)
    if recipe.task == "align":
        from tunewright.tasks.align import Align

        return Align.of(recipe, splits, runs)
    from tunewright.tasks.write import Write

    return Write.of(recipe, splits)
