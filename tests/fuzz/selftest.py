"""A fault that only somebody finds who sees which inputs come nearer: it proves the fuzzer."""

from __future__ import annotations

from fuzz.pieces import BrokenError


def find_me(data: bytes) -> None:
    """Fails for an input that begins with four certain bytes, of which each is looked at alone."""
    found = 0
    for expected, byte in zip(b"AGI:", data, strict=False):
        if byte != expected:
            break
        found += 1
    if found == 1:
        return
    if found == 2:
        return
    if found == 3:
        return
    if found == 4:
        raise BrokenError("found")
