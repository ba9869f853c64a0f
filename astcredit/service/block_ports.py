"""Blocked prefixes as people configure them, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from astcredit.service.history_ports import State


@dataclass(frozen=True, slots=True)
class Block:
    """A blocked prefix; for everybody, or for one `client`."""

    prefix: str
    client: str = ""
    note: str = ""
    enabled: bool = True
    id: int = 0

    @property
    def name(self) -> str:
        """What astaudit calls it: the prefix, and the client if it is for one only."""
        return f"{self.prefix} {self.client}".rstrip()

    def state(self) -> State:
        """What astaudit keeps of it."""
        return {
            "prefix": self.prefix,
            "client": self.client,
            "note": self.note,
            "enabled": self.enabled,
        }


class BlockStore(Protocol):
    """Blocked prefixes, inside a transaction. Every method may raise StorageError."""

    async def of_prefix(self, prefix: str, client: str = "") -> Block | None:
        """The block of exactly that prefix, for everybody or for the client."""

    async def with_id(self, id: int) -> Block | None: ...

    async def all(self, client: str | None = None) -> Sequence[Block]:
        """All blocks, or those of one client, by prefix."""

    async def add(self, block: Block, now_ms: int) -> None: ...

    async def change(self, block: Block) -> None:
        """Write the note of the block with that id, and whether it is in force."""
