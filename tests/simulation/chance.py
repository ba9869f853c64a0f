"""Everything that is left to chance in a run, drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """Draws. Parts of a run draw from streams of their own, so that a change in one part does not
    change what all others do."""

    def __init__(self, seed: int, stream: str = "") -> None:
        self._seed = seed
        self._random = random.Random(f"{seed}:{stream}")
        self.bits = self._random.getrandbits

    def stream(self, name: str) -> Chance:
        """Draws of their own for one part of the run."""
        return Chance(self._seed, name)

    def happens(self, probability: float) -> bool:
        """True so often."""
        return probability > 0 and self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """A number between two others."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def about(self, mean: float) -> float:
        """A waiting time of that mean (exponential)."""
        return self._random.expovariate(1 / mean)

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self._random.randrange(len(choices))]

    def weighted(self, choices: Sequence[tuple[T, float]]) -> T:
        """One of them, in proportion to its weight."""
        point = self._random.random() * sum(weight for _, weight in choices)
        for choice, weight in choices:
            point -= weight
            if point < 0:
                return choice
        return choices[-1][0]
