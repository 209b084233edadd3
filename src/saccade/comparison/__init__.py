"""The comparison: plan → cells → records → answer."""

from saccade.comparison.result import Comparison
from saccade.comparison.run import compare

__all__ = ["Comparison", "compare"]
