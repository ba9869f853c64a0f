"""Clients, and calls through the simulated channel: what `scripts/bench-cluster` compares with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from astcredit.asterisk.simulator import SimulatedChannel
from support.server import astcredit

NUMBER = "00442071234567"
CLIENTS = 100


def prepare(url: str, folder: Path) -> None:
    """Clients with more money than any run spends."""
    deck = folder / "deck.csv"
    deck.write_text("prefix,rate_per_minute,first_increment,next_increment\n44,0.018,30,6\n")
    astcredit(url, "init")
    astcredit(url, "rate-table", "add", "retail")
    astcredit(url, "rates", "import", "retail", str(deck))
    for name in (f"client{n}" for n in range(CLIENTS)):
        astcredit(url, "client", "add", name, "--rate-table", "retail")
        astcredit(url, "account", "add", name, name, "--ident-by", "name", "--ident", name)
        astcredit(url, "topup", name, "100000")


async def hang_up(channel: SimulatedChannel) -> None:
    channel.variables |= {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "65.2", "HANGUPCAUSE": "16"}
    await channel.run("hangup")


async def at_once(calls: int, together: int, call: Callable[[], Awaitable[float]]) -> list[float]:
    """Make so many calls, so many at a time; the milliseconds of each authorization."""
    took: list[float] = []

    async def caller(share: int) -> None:
        for _ in range(share):
            took.append(await call())

    await asyncio.gather(*(caller(calls // together) for _ in range(together)))
    return took
