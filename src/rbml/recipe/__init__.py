"""Recipes: everything that a run depends on, as a tree of named choices. Nothing here imports PyTorch but ``build``."""

from rbml.recipe.sections import Choice, Data, Execution, Inputs, Outer, Recipe, StrategyChoice, TaskChoice

__all__ = ["Choice", "Data", "Execution", "Inputs", "Outer", "Recipe", "StrategyChoice", "TaskChoice"]
