"""Showing text that others wrote: what a caller dialled, what stands in a file."""

from __future__ import annotations

MOST_SHOWN = 40
"""Characters of a foreign text that a message shows: enough to recognise it, one line long."""


def printable(text: str, most: int = MOST_SHOWN) -> str:
    """`text` in quotes, safe for a terminal, a log line and AC_REASON.

    Control characters, line ends and direction marks come out escaped as in Python source; what is
    longer than `most` characters is cut and ends in an ellipsis.
    """
    shown = repr(text[:most])
    if len(shown) <= most + 2 and len(text) <= most:
        return shown
    return shown[: most + 1] + "…" + shown[0]
