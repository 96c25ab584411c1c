"""Derivatives beyond ``torch.func``: products of second derivatives, tasks side by side, modules as functions."""

from rbml.autodiff.compiled import Compiled
from rbml.autodiff.products import Mode, grad_product, gradient_and_pull, mean_over_tasks

__all__ = ["Compiled", "Mode", "grad_product", "gradient_and_pull", "mean_over_tasks"]
