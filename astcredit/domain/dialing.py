"""What Asterisk's Dial is told."""

from __future__ import annotations


def limit_option(seconds: int, warn_seconds: int, repeat_seconds: int) -> str:
    """The option of Dial that ends the call after so many seconds: `L(x[:y[:z]])`.

    The caller is warned `warn_seconds` before the end and then every `repeat_seconds`; 0 turns
    either off. A call that is no longer than the warning time is not warned. Milliseconds, as
    the documentation of Asterisk's Dial says.
    """
    limit = f"{seconds * 1000}"
    if 0 < warn_seconds < seconds:
        limit += f":{warn_seconds * 1000}"
        if repeat_seconds > 0:
            limit += f":{repeat_seconds * 1000}"
    return f"L({limit})"
