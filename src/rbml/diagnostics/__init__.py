"""Is a hypergradient right, and what would each engine cost?"""

from rbml.diagnostics.checking import Finding, Verdict, check
from rbml.diagnostics.explaining import explain

__all__ = ["Finding", "Verdict", "check", "explain"]
