"""What a run costs, as a line in some features of it, learned while the runs are made.

Recursive least squares. Errors count relative to what was expected, so that small runs matter as much as large ones,
and never more than `LARGEST_ERROR`: a run that was held up by something else should not spoil the rest. What is old is
forgotten only as far as new measurements say as much (directional forgetting: Kulhavý 1987, "Restricted exponential
forgetting in real-time identification"): who reads one kind of chunk for an hour still knows what the others cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MEMORY = 0.9  # how much of what is known in a direction counts after another measurement there
DOUBT = 100.0  # variance of the coefficients before anything is known, in units of the first run's time
LARGEST_ERROR = 1.0  # of what was expected
SHORTEST = 1e-6  # seconds; clocks have steps


class LinearCost:
    """``seconds = coefficients . features``, all coefficients at least 0.

    Features are divided by their `scales`, typical sizes that make the coefficients comparable.
    """

    def __init__(self, scales: Sequence[float]) -> None:
        self._scales = np.asarray(scales, np.float64)
        self._coefficients = np.zeros(len(scales))
        self._variance = np.eye(len(scales)) * DOUBT
        self.measurements = 0

    def seconds(self, features: Sequence[float]) -> float:
        """What a run with these features is expected to take; 0 as long as nothing has been measured."""
        return float(self._coefficients @ (np.asarray(features) / self._scales))

    def measured(self, features: Sequence[float], seconds: float) -> None:
        """A run with these features took so long."""
        seconds = max(seconds, SHORTEST)
        expected = max(self.seconds(features), SHORTEST) if self.measurements else seconds
        error = (seconds - self.seconds(features)) / expected
        if not self.measurements:
            self._variance *= seconds**2
        self.measurements += 1
        x = np.asarray(features) / self._scales / expected
        gain = self._variance @ x
        doubt = float(x @ gain)
        if doubt <= 0:
            return
        step = gain / (1 + doubt) * min(max(error, -LARGEST_ERROR), LARGEST_ERROR)
        self._coefficients = np.maximum(0.0, self._coefficients + step)
        forgetting = MEMORY - (1 - MEMORY) / doubt
        self._variance -= np.outer(gain, gain) * (forgetting / (1 + forgetting * doubt))
