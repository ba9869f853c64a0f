"""How an input arrives: whole, byte by byte, or cut anywhere. Whatever reads it must not notice."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

WHOLE_BYTES: Final = 64 * 1024
"""The largest piece that a socket gives at once."""

MOST_SINGLE_BYTES: Final = 8 * 1024
"""An input above this is cut into odd pieces of SMALL_BYTES: there is nothing new in its bytes."""
SMALL_BYTES: Final = 997

MOST_INFLATED: Final = 80 * 1024
"""Above every limit of the AGI parsers, so that each is met."""

_REPEAT: Final = re.compile(rb"([^\x1b])\x1b([\x01-\xff])", re.DOTALL)
_REPEATED: Final = 257
"""A repeat counts in steps of this: a short input is to reach limits of 16 and of 64 kB."""


class BrokenError(AssertionError):
    """What must hold for every input does not hold for this one."""


def demand(holds: object, what: str) -> None:
    """Raise BrokenError unless it holds. Not `assert`: Python may be told to skip those."""
    if not holds:
        raise BrokenError(what)


def inflated(data: bytes) -> bytes:
    """The input with its repeats: a byte, ESC, n stands for n times 257 of that byte."""
    long = _REPEAT.sub(lambda m: m[1] * (m[2][0] * _REPEATED), data)
    return long[:MOST_INFLATED]


def cuts(data: bytes) -> Iterator[Sequence[bytes]]:
    """The input as pieces, in three ways."""
    yield in_pieces(data, WHOLE_BYTES)
    yield in_pieces(data, 1 if len(data) <= MOST_SINGLE_BYTES else SMALL_BYTES)
    yield _anywhere(data)


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def same_for_all_cuts(data: bytes, read: Callable[[Sequence[bytes]], T]) -> T:
    """What `read` makes of the input, however it is cut. Raises BrokenError if that matters."""
    first, *others = (read(pieces) for pieces in cuts(data))
    for other in others:
        demand(other == first, f"cut in another way it is something else:\n{first}\n{other}")
    return first


def _anywhere(data: bytes) -> list[bytes]:
    """Cut at places that the input itself draws, so that it fails again as it failed."""
    chance = Random(zlib.crc32(data))
    places = sorted(chance.randrange(len(data) + 1) for _ in range(min(8, len(data))))
    edges = [0, *places, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]
