"""Sound for calls of the lab: Asterisk takes Local channels out of the way only when people talk.

Standard library only, for `scripts/lab` uses it without a virtual environment.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from support.ports import LOOPBACK

# A packet of G.711 holds 20 ms, 160 samples of 8,000 a second; 0xff is silence in mu-law.
PACKET_S = 0.02
SAMPLES = 160
_AUDIO = re.compile(r"^m=audio ([0-9]+) ", re.MULTILINE)


@contextlib.contextmanager
def talking(directory: Path) -> Iterator[None]:
    """Send silence, as RTP, to each audio port named in the traces of the sipp processes that
    write into `directory`; those of Asterisk are among them."""
    done = threading.Event()
    thread = threading.Thread(target=_talk, args=(directory, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _talk(directory: Path, done: threading.Event) -> None:
    before = {path: path.stat().st_size for path in directory.glob("*.msg")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in count():
            header = struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, number * SAMPLES, 1)
            for port in _ports(directory, before):
                sender.sendto(header + b"\xff" * SAMPLES, (LOOPBACK, port))
            if done.wait(PACKET_S):
                return


def _ports(directory: Path, before: dict[Path, int]) -> set[int]:
    """What was named since then: ports of earlier calls may be others' by now."""
    ports = set()
    for path in directory.glob("*.msg"):
        with path.open("rb") as trace:
            trace.seek(before.get(path, 0))
            ports |= {int(port) for port in _AUDIO.findall(trace.read().decode("latin-1"))}
    return ports
