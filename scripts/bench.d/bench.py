"""What `scripts/bench` runs. Every figure is of real calls through the socket; the books are
audited at the end, and a run whose books do not balance is no run."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from astcredit.asterisk.simulator import SimulatedChannel
from support.databases import MariaDb
from support.server import RunningServer, astcredit, serving

NUMBER = "00442071234567"
CLIENTS = 100
CONCURRENCY = (1, 4, 16, 64, 256)
OPEN_CALLS = 1_000
TICKS = os.sysconf("SC_CLK_TCK")
numbers = count(1)


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


def new_channel(server: RunningServer, number: int) -> SimulatedChannel:
    account = f"client{number % CLIENTS}"
    return SimulatedChannel("127.0.0.1", server.port, f"bench-{number}", account, NUMBER)


async def authorize(server: RunningServer) -> tuple[SimulatedChannel, float]:
    """A new call's authorization, and how many milliseconds it took."""
    channel = new_channel(server, next(numbers))
    began = time.perf_counter()
    await channel.run("authorize")
    took = (time.perf_counter() - began) * 1000
    assert channel.variables["AC_STATUS"] == "ALLOWED", channel.variables
    return channel, took


async def hang_up(channel: SimulatedChannel) -> None:
    channel.variables |= {"DIALSTATUS": "ANSWER", "CDR(billsec,f)": "65.2", "HANGUPCAUSE": "16"}
    await channel.run("hangup")


async def whole_call(server: RunningServer) -> float:
    channel, took = await authorize(server)
    await hang_up(channel)
    return took


async def at_once(calls: int, together: int, call: Callable[[], Awaitable[float]]) -> list[float]:
    """Make so many calls, so many at a time; the milliseconds of each authorization."""
    took: list[float] = []

    async def caller(share: int) -> None:
        for _ in range(share):
            took.append(await call())

    await asyncio.gather(*(caller(calls // together) for _ in range(together)))
    return took


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resources(pid: int) -> dict[str, int]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "threads": int(status["Threads"]),
        "rss_kb": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


async def throughput(server: RunningServer, calls: int) -> None:
    print("calls at once   calls/s   authorize p50 ms   p99 ms   server CPU µs a call")
    for together in CONCURRENCY:
        began, cpu = time.perf_counter(), cpu_seconds(server.process.pid)
        took = await at_once(
            calls if together > 1 else calls // 5, together, lambda: whole_call(server)
        )
        elapsed, cpu = time.perf_counter() - began, cpu_seconds(server.process.pid) - cpu
        p99 = statistics.quantiles(took, n=100)[98]
        print(
            f"{together:13}   {len(took) / elapsed:7.0f}   {statistics.median(took):16.2f}"
            f"   {p99:6.2f}   {cpu / len(took) * 1e6:20.0f}"
        )


async def open_calls(server: RunningServer) -> None:
    before = resources(server.process.pid)
    opened = [await authorize(server) for _ in range(OPEN_CALLS)]
    during = resources(server.process.pid)
    print(
        f"\n{OPEN_CALLS} calls up: " + ", ".join(f"{k} {before[k]} → {during[k]}" for k in before)
    )
    await asyncio.gather(*(hang_up(channel) for channel, _ in opened))


async def measure(server: RunningServer, calls: int) -> None:
    await at_once(200, 8, lambda: whole_call(server))  # warm
    await throughput(server, calls)
    await open_calls(server)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=3_000)
    calls = parser.parse_args().calls
    mariadb = MariaDb()
    with tempfile.TemporaryDirectory() as folder:
        try:
            mariadb.start()
            url = mariadb.url(mariadb.create_database())
            prepare(url, Path(folder))
            with serving(url, Path(folder), log_level="warning") as server:
                asyncio.run(measure(server, calls))
            print("audit:", astcredit(url, "audit").stdout.strip())
        finally:
            mariadb.stop()


if __name__ == "__main__":
    main()
