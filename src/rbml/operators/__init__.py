"""What PyTorch differentiates wrongly, slowly or not at all, written so that every derivative is right."""

from rbml.operators.mode import REPLACED, Differentiable

__all__ = ["REPLACED", "Differentiable"]
