"""Changing the catalog: blocked prefixes. What all changes have in common: desk.py.

A block is named by its prefix, with its client if it is for one only, or by its id. A number that
is one block's id and another one's prefix is refused: to lift the wrong block is not harmless.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.block_ports import Block
from astcredit.service.catalog_rules import known_client
from astcredit.service.desk import CatalogDesk, verb
from astcredit.service.errors import RefusedError
from astcredit.service.naming import MOST_NOTE, check_text, shown_name
from astcredit.service.persistence import persistently

MOST_PREFIX = 20
"""Digits: what the columns hold. E.164 numbers have 15."""

MOST_ID = 2**31 - 1
"""What the column holds; a longer number is a prefix and no id."""

_PREFIX = re.compile(r"\+?[0-9]+", re.ASCII)
_ID = re.compile(r"[0-9]{1,10}", re.ASCII)


class BlockDesk(CatalogDesk):
    """The administrator's use cases on blocked prefixes."""

    async def add(self, prefix: str, client: str = "", note: str = "") -> Block:
        """Block a prefix for everybody, or for one client."""
        new = Block(check_block_prefix(prefix), client, check_text("note", note, MOST_NOTE))

        async def add_() -> Block:
            async with self._store.changing_catalog() as transaction:
                if client:
                    await known_client(transaction, client)
                old = await transaction.blocks.of_prefix(new.prefix, client)
                if old is not None:
                    raise RefusedError(
                        f"{described(old)} is there already, with id {old.id}"
                        f"{'' if old.enabled else '; it is disabled'}"
                    )
                await transaction.blocks.add(new, self._now_ms())
                await self.record(transaction, "add", "block", None, new)
                stored = await transaction.blocks.of_prefix(new.prefix, client)
            assert stored is not None
            return stored

        return await persistently(add_)

    async def set(self, name: str, client: str = "", note: str = "") -> Block:
        """Change the note of a block."""
        check_text("note", note, MOST_NOTE)

        async def set_() -> Block:
            async with self._store.changing_catalog() as transaction:
                old = await known_block(transaction, name, client)
                new = replace(old, note=note)
                if new != old:
                    await transaction.blocks.change(new)
                    await self.record(transaction, "set", "block", old, new)
            return new

        return await persistently(set_)

    async def enable(self, name: str, client: str, enabled: bool) -> tuple[bool, Block]:
        """Put a block in force or lift it; with False if it was so already."""

        async def enable_() -> tuple[bool, Block]:
            async with self._store.changing_catalog() as transaction:
                old = await known_block(transaction, name, client)
                if old.enabled == enabled:
                    return False, old
                new = replace(old, enabled=enabled)
                await transaction.blocks.change(new)
                await self.record(transaction, verb(enabled), "block", old, new)
            return True, new

        return await persistently(enable_)

    async def blocks(self, client: str | None = None) -> Sequence[Block]:
        """All blocks, or those of one client, by prefix."""
        async with self._store.looking() as transaction:
            if client is not None:
                await known_client(transaction, client)
            return await transaction.blocks.all(client)

    async def block(self, name: str, client: str = "") -> Block:
        """One block."""
        async with self._store.looking() as transaction:
            return await known_block(transaction, name, client)


def check_block_prefix(prefix: str) -> str:
    """The prefix as it is kept, without a leading +. Raises RefusedError."""
    digits = prefix.removeprefix("+")
    if _PREFIX.fullmatch(prefix) is None or len(digits) > MOST_PREFIX:
        raise RefusedError(
            f"prefix {shown_name(prefix)}: expected 1 to {MOST_PREFIX} digits, with the country"
            " code, as 44900"
        )
    return digits


async def known_block(transaction: AdminTransaction, name: str, client: str) -> Block:
    """The block that is meant. Raises RefusedError if there is none, or if there are two."""
    if client:
        await known_client(transaction, client)
    prefix = check_block_prefix(name)
    by_prefix = await transaction.blocks.of_prefix(prefix, client)
    by_id = None
    if not client and _ID.fullmatch(name) and int(name) <= MOST_ID:
        by_id = await transaction.blocks.with_id(int(name))
    if by_id is not None and by_prefix is not None and by_id.id != by_prefix.id:
        other = f"+{by_id.prefix}{' with its client' if by_id.client else ''}"
        raise RefusedError(
            f"{name} is the id of the {described(by_id)}, and a prefix: say +{prefix} for the"
            f" prefix, or {other} for the other one"
        )
    found = by_prefix or by_id
    if found is None:
        raise await _unknown(transaction, Block(prefix, client))
    return found


async def _unknown(transaction: AdminTransaction, block: Block) -> RefusedError:
    """The error for a block that is not there; it names one of the same prefix."""
    others = [one for one in await transaction.blocks.all() if one.prefix == block.prefix]
    nearest = f"; there is a {described(others[0])}" if others else ""
    return RefusedError(f"there is no {described(block)}{nearest}")


def described(block: Block) -> str:
    """A block in words."""
    whose = f"client {shown_name(block.client)}" if block.client else "everybody"
    return f"block of prefix {block.prefix} for {whose}"
