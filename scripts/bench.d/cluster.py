"""What `scripts/bench-cluster` runs: the same calls against one database server and against a
cluster of three, through one writer and through two. The books are audited on every server.

"One writer": all controllers use the same server of the cluster. Of many clients each calls through
one controller only when there are two; one client calls through both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from bench import CLIENTS, NUMBER, at_once, hang_up, prepare

from astcredit.asterisk.simulator import SimulatedChannel
from support.databases import MariaDb
from support.galera import Galera
from support.server import RunningServer, astcredit, serving

CONCURRENCY = (1, 16, 64)
numbers = count(1)


async def whole_call(servers: Sequence[RunningServer], clients: int) -> float:
    """One call through the next server in turn; the milliseconds of its authorization."""
    number = next(numbers)
    server = servers[number % len(servers)]
    account = f"client{number % clients}"
    channel = SimulatedChannel("127.0.0.1", server.port, f"bench-{number}", account, NUMBER)
    began = time.perf_counter()
    await channel.run("authorize")
    took = (time.perf_counter() - began) * 1000
    assert channel.variables["AC_STATUS"] == "ALLOWED", channel.variables
    await hang_up(channel)
    return took


async def measure(servers: Sequence[RunningServer], clients: int, calls: int, title: str) -> None:
    for together in CONCURRENCY:
        share = calls if together > 1 else calls // 5
        began = time.perf_counter()
        took = await at_once(share, together, lambda: whole_call(servers, clients))
        elapsed = time.perf_counter() - began
        p99 = statistics.quantiles(took, n=100)[98]
        print(
            f"{title:44} {together:4} {len(took) / elapsed:8.0f}"
            f" {statistics.median(took):8.1f} {p99:8.1f}",
            flush=True,
        )


def run(
    urls: Sequence[str], looked_at: Sequence[str], clients: int, calls: int, title: str
) -> None:
    """Measure servers on the databases of those addresses, one each; audit `looked_at`."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(urls[0], folder)
        servers = [
            stack.enter_context(
                serving(url, folder, log_level="error", call_answer_deadline_ms="9000")
            )
            for url in urls
        ]
        asyncio.run(at_once(40, 4, lambda: whole_call(servers, clients)))  # warm
        asyncio.run(measure(servers, clients, calls, title))
    for url in looked_at:
        astcredit(url, "audit")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1_000)
    calls = parser.parse_args().calls
    print(f"{'':44} {'at once':>4} {'calls/s':>5} {'p50 ms':>8} {'p99 ms':>8}")
    alone, cluster = MariaDb(), Galera()
    try:
        alone.start()
        url = alone.url(alone.create_database())
        run([url], [url], CLIENTS, calls, "one database server, one controller")
        alone.stop()
        cluster.start()
        for title, nodes, clients in (
            ("cluster, one controller", (0,), CLIENTS),
            ("cluster, two controllers, one writer", (0, 0), CLIENTS),
            ("cluster, two controllers, two writers", (0, 1), CLIENTS),
            ("cluster, one writer, one client", (0, 0), 1),
            ("cluster, two writers, one client", (0, 1), 1),
        ):
            database = cluster.nodes[0].create_database()
            urls = [cluster.url(database, node) for node in nodes]
            every = [cluster.url(database, node) for node in range(len(cluster.nodes))]
            run(urls, every, clients, calls, title)
        print("audit: clean on every server")
    finally:
        cluster.stop()
        alone.stop()


if __name__ == "__main__":
    main()
