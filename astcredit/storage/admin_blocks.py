"""Blocked prefixes in SQL, for administrators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.service.block_ports import Block
from astcredit.storage.tables import astblock, astclient, id_of


class SqlBlocks:
    """Blocked prefixes, in one transaction. Implements `service.block_ports.BlockStore`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of_prefix(self, prefix: str, client: str = "") -> Block | None:
        """The block of exactly that prefix, for everybody or for the client."""
        whose = astclient.c.name == client if client else astblock.c.client_id.is_(None)
        return await self._first(_BLOCKS.where(astblock.c.prefix == prefix, whose))

    async def with_id(self, id: int) -> Block | None:
        """The block of that id."""
        return await self._first(_BLOCKS.where(astblock.c.id == id))

    async def all(self, client: str | None = None) -> Sequence[Block]:
        """All blocks, or those of one client, by prefix."""
        statement = _BLOCKS if client is None else _BLOCKS.where(astclient.c.name == client)
        rows = await self._connection.execute(
            statement.order_by(astblock.c.prefix, astclient.c.name, astblock.c.id)
        )
        return [_block(row) for row in rows]

    async def add(self, block: Block, now_ms: int) -> None:
        """Insert a block."""
        values = {
            "prefix": block.prefix,
            "client_id": id_of(astclient, block.client),
            "note": block.note,
            "enabled": int(block.enabled),
            "date_created": now_ms,
        }
        await self._connection.execute(insert(astblock).values(values))

    async def change(self, block: Block) -> None:
        """Write the block's note, and whether it is in force."""
        changed = update(astblock).where(astblock.c.id == block.id)
        values = {"note": block.note, "enabled": int(block.enabled)}
        await self._connection.execute(changed.values(values))

    async def _first(self, statement: Select[Any]) -> Block | None:
        # No index keeps two blocks for everybody apart: NULL is not equal to NULL.
        row = (await self._connection.execute(statement.order_by(astblock.c.id).limit(1))).first()
        return None if row is None else _block(row)


_BLOCKS: Select[Any] = select(
    astblock.c.prefix,
    astclient.c.name,
    astblock.c.note,
    astblock.c.enabled,
    astblock.c.id,
).outerjoin_from(astblock, astclient, astclient.c.id == astblock.c.client_id)


def _block(row: Sequence[Any]) -> Block:
    prefix, client, note, enabled, id = row
    return Block(prefix, client or "", note, bool(enabled), id)
