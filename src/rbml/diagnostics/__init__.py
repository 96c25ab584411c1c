"""Is a hypergradient right, and what would each engine cost?"""

from rbml.diagnostics.checking import Finding, Verdict, check
from rbml.diagnostics.explaining import explain
from rbml.diagnostics.smoothness import Smoothness, metasmoothness, smoothness_of

__all__ = ["Finding", "Smoothness", "Verdict", "check", "explain", "metasmoothness", "smoothness_of"]
