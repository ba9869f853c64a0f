"""Blocked prefixes: numbers that nobody, or one client, may call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """A prefix that is blocked; for one client, or for all if `client_id` is None."""

    prefix: str
    client_id: int | None = None


class Blocks:
    """The blocks in force, for look-up by number."""

    __slots__ = ("_blocks", "_lengths")

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks = frozenset(blocks)
        self._lengths = sorted({len(block.prefix) for block in self._blocks})

    def find(self, number: str, client_id: int) -> Block | None:
        """The block, the shortest if there are several, that a client's call meets; else None."""
        for length in self._lengths:
            for owner in (None, client_id):
                block = Block(number[:length], owner)
                if block in self._blocks:
                    return block
        return None

    def __len__(self) -> int:
        return len(self._blocks)
