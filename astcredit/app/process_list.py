"""The command line, as `ps` shows it to every user of the machine, without its passwords.

`astcredit --database mysql://USER:PASSWORD@…` is handy, and a server started so would show the
password for as long as it runs. Linux shows what stands in the process's own memory, which may be
overwritten, as mysql's own programs do. What is left is the moment until then: the environment and
the settings file have none.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/self/stat")
_ARG_START: Final = 48 - 3  # proc(5) counts from 1; what follows the name in brackets is number 3
_STAR: Final = ord("*")


def hide(secret: str) -> None:
    """Put stars in the place of a password in this process's command line, wherever it stands
    there in an address, between : and @.

    Does nothing where there is none, and on systems other than Linux.
    """
    place = _arguments()
    if place is None or not secret:
        return
    text = b":%b@" % secret.encode(errors="surrogateescape")
    start, size = place
    shown = ctypes.string_at(start, size)
    at = shown.find(text)
    while at >= 0:
        ctypes.memset(start + at + 1, _STAR, len(text) - 2)
        at = shown.find(text, at + len(text))


def _arguments() -> tuple[int, int] | None:
    """Where the command line stands in memory, and how long it is; None where nobody says."""
    try:
        fields = _STAT.read_text(errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    except (OSError, ValueError, IndexError):
        return None
    return (start, end - start) if 0 < start < end else None
