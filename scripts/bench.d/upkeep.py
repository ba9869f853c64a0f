"""What else a server must bear: many calls up, a storm of events, several workers, and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from measure import Bench, median
from report import Report
from stage import Database, Resources, Server

from support.server import astcredit

AT_ONCE = 64
"""Authorizations in flight where concurrency is not what is measured."""
WORKERS = 2
_STEP_SECONDS = 30.0
"""Between two looks at what the server holds, however slow the machine is."""


def open_calls(bench: Bench, report: Report) -> None:
    """Many calls up: what each costs in memory, and whether others become slower."""
    wanted = 2_000 if bench.quick else 10_000
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        without = median([bench.closed(database, server, AT_ONCE) for _ in range(bench.rounds)])
        before = server.resources()
        bench.closed(database, server, AT_ONCE, calls=wanted, hold=-1)
        during = server.resources()
        beside = median([bench.closed(database, server, AT_ONCE) for _ in range(bench.rounds)])
        cpu, began = bench.stage.cpu(server), time.monotonic()
        bench.stage.generator.do("end")
        elapsed = database.settled() - began
        used = bench.stage.cpu(server) - cpu
        bench.check(database)
    each = (during.rss_bytes - before.rss_bytes) / wanted
    report.samples(
        "beside_open_calls",
        f"Beside no other call, and beside {wanted} calls up",
        [without, beside],
    )
    report.table(
        f"{wanted} calls up at once",
        ("memory of one, bytes", "server RSS, MB", "files", "threads", "all of them end, s",
         "settled/s", "server µs", "database µs"),
        [(
            f"{each:.0f}", _change(before, during, lambda r: f"{r.rss_bytes / 1e6:.1f}"),
            _change(before, during, lambda r: str(r.files)),
            _change(before, during, lambda r: str(r.threads)),
            f"{elapsed:.2f}", f"{wanted / elapsed:.0f}", f"{used.server / wanted * 1e6:.0f}",
            f"{used.database / wanted * 1e6:.0f}",
        )],
    )  # fmt: skip
    report.found["open_calls"] = {"calls": wanted, "bytes": each, "settled": wanted / elapsed}


def _change(before: Resources, after: Resources, shown: Callable[[Resources], str]) -> str:
    return f"{shown(before)} → {shown(after)}"


@dataclass(frozen=True, slots=True)
class _Storm:
    """What a storm of events took; times in seconds, CPU in µs an event."""

    events: int
    elapsed: float
    server: float
    stall: float


def events(bench: Bench, report: Report) -> None:
    """Manager events in one go, and how late the end of a call behind them is on record."""
    count = 50_000 if bench.quick else 200_000
    kinds = {
        "of no use (as without a filter)": {"noise": count, "attempts": 0},
        "of attempts that fail": {"noise": 0, "attempts": count},
    }
    rows = []
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        for name, storm in kinds.items():
            found = [_storm(bench, database, server, storm) for _ in range(bench.rounds)]
            middle = sorted(found, key=lambda each: each.server)[len(found) // 2]
            rows.append((name, middle))
        bench.check(database)
    report.table(
        f"{count} manager events at once",
        ("events", "server µs an event", "events/s of one core", "events/s seen",
         "the end behind them on record after, s", "longest time of reading nothing, s"),
        [(
            name, f"{s.server:.1f}", f"{1e6 / s.server:.0f}", f"{s.events / s.elapsed:.0f}",
            f"{s.elapsed:.2f}", f"{s.stall:.2f}",
        ) for name, s in rows],
    )  # fmt: skip
    report.found["events"] = {name: s.server for name, s in rows}


def _storm(bench: Bench, database: Database, server: Server, storm: dict[str, int]) -> _Storm:
    """Events before the end of a call that is up."""
    bench.closed(database, server, 1, calls=1, hold=-1)
    before = bench.stage.cpu(server)
    answer = bench.stage.generator.do("blast", **storm)
    elapsed = database.settled() - answer["began"]
    used = bench.stage.cpu(server) - before
    count = sum(storm.values())
    return _Storm(count, elapsed, max(used.server, 1e-6) / count * 1e6, answer["stall"])


def workers(bench: Bench, report: Report) -> None:
    """Several processes that share a port, against one."""
    with bench.stage.database() as database:
        if "--workers" not in astcredit(database.url, "serve", "--help").stdout:
            report.say("workers", "Workers: `astcredit serve` has no --workers here; not measured.")
            return
        samples = []
        for number in (1, WORKERS):
            with bench.stage.serving(database, "--workers", str(number)) as server:
                bench.warm_up(database, server)
                found = [bench.closed(database, server, 4 * AT_ONCE) for _ in range(bench.rounds)]
                samples.append(median(found))
        bench.check(database)
    report.samples("workers", f"One process, and {WORKERS} workers", samples)
    report.ratio(
        "workers_ratio", f"{WORKERS} workers against one", samples[1].rate / samples[0].rate
    )


def growth(bench: Bench, report: Report) -> None:
    """Many calls, one after the other: what the server holds must not grow with them."""
    steps, share = (3, 1_500) if bench.quick else (8, 25_000)
    rows = []
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        done = 0
        for _ in range(steps + 1):
            held = server.resources()
            statements = database.ask("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")[1]
            clients = database.ask("SHOW GLOBAL STATUS LIKE 'Threads_connected'")[1]
            rows.append((done, held, statements, clients))
            if len(rows) <= steps:
                sample = bench.closed(database, server, AT_ONCE, calls=share, seconds=_STEP_SECONDS)
                done += sample.calls
        bench.check(database)
    report.table(
        "What the server holds after so many calls",
        ("calls", "RSS, MB", "files", "threads", "prepared statements", "database connections"),
        [(
            str(calls), f"{held.rss_bytes / 1e6:.1f}", str(held.files), str(held.threads),
            str(statements), str(clients),
        ) for calls, held, statements, clients in rows],
    )  # fmt: skip
    after = rows[1:]
    grown = (after[-1][1].rss_bytes - after[0][1].rss_bytes) / max(after[-1][0] - after[0][0], 1)
    report.say(
        "growth",
        f"Growth after the first {after[0][0]} calls: {grown:.1f} bytes a call",
        bytes=grown,
    )


_MONTH = """
SELECT day, SUM(calls), SUM(minutes), SUM(price) FROM v_daily_client
WHERE client = 'client7' AND day >= UTC_DATE() - INTERVAL 30 DAY GROUP BY day
"""


def history(bench: Bench, report: Report) -> None:
    """Calls on books that hold many finished ones, and a question of an accountant's."""
    before = bench.history
    samples = []
    for calls in (0, before):
        with (
            bench.stage.database(history=calls) as database,
            bench.stage.serving(database) as server,
        ):
            bench.warm_up(database, server)
            found = [bench.closed(database, server, AT_ONCE) for _ in range(bench.rounds)]
            samples.append(median(found))
            began = time.monotonic()
            database.ask(_MONTH)
            asked = time.monotonic() - began
            bench.check(database, calls)
    report.samples("history", f"With no finished calls on the books, and with {before}", samples)
    report.say(
        "month",
        f"A month of one client by v_daily_client, {before} calls on the books: {asked:.3f} s",
        seconds=asked,
    )


def scale(bench: Bench, report: Report) -> None:
    """A rate table of a million prefixes, a hundred thousand clients."""
    import scale as rate_scale  # it measures with servers of its own

    rows = asyncio.run(rate_scale.run(bench.quick))
    report.table("Scale", ("what", "measured"), rows)
    report.found["scale"] = dict(rows)
