"""Ports of the loopback that no other test run takes meanwhile.

To bind to port 0, close and use the number races: the kernel gives it to the next who asks, and
two UDP servers with SO_REUSEADDR even share it without noticing. So each process claims a block of
numbers for its lifetime, below those that the kernel gives away by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

LOOPBACK = "127.0.0.1"
# Under 20000, where the RTP of the lab begins, and under 32768, where Linux's own choice does.
FIRST, BLOCK, BLOCKS = 10_000, 1_000, 10
# Of a block, those that are given once and kept: an instance of the lab takes four.
KEPT = 500


def free_port(span: int = 1) -> int:
    """An even port that is free on UDP and TCP now, as are the `span` - 1 that follow it.

    For something that binds it at once: the number comes round again after all the others."""
    return _next_free(_claim(os.getpid()).passing, span)


def keep_port() -> int:
    """A free port that this process gives to nobody else, bound or not."""
    return _next_free(_claim(os.getpid()).kept, 1)


@dataclass(frozen=True, slots=True)
class _Block:
    """A process's even numbers, and the lock that keeps them its own until it exits."""

    kept: Iterator[int]
    passing: Iterator[int]
    lock: IO[str]


@cache
def _claim(process: int) -> _Block:
    """By process id, for a forked child claims a block of its own."""
    folder = Path(tempfile.gettempdir()) / f"astcredit-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(BLOCKS):
        lock = (folder / str(number)).open("a")
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            first = FIRST + number * BLOCK
            passing = itertools.cycle(range(first + KEPT, first + BLOCK - 4, 2))
            return _Block(iter(range(first, first + KEPT, 2)), passing, lock)
        lock.close()
    raise OSError(f"all {BLOCKS} blocks of ports are taken by other test runs")


def _next_free(numbers: Iterator[int], span: int) -> int:
    for port in itertools.islice(numbers, BLOCK):
        if all(_is_free(port + step) for step in range(span)):
            for _ in range(0, span - 1, 2):
                next(numbers)
            return port
    raise OSError("no free port is left in this process's block")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True
