"""Chance that can be repeated: the same key draws the same number, on every machine.

A call's id is random enough to share out calls, and it makes a decision that is tried again, or
looked at afterwards, come out as it did.
"""

from __future__ import annotations

from hashlib import blake2b


def draw(key: str, below: int) -> int:
    """A number from 0 to `below` - 1, each as likely as the other over many keys."""
    digest = blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % below
