"""Throughput and latency: each part measures one thing and says it in a table."""

from __future__ import annotations

import time

import floor
from measure import Bench, Sample, median
from report import Report
from rows import FULL_CALL, POOR, POOR_CALLS
from stage import CLIENTS, BenchError

LEVELS, QUICK_LEVELS = (1, 4, 16, 64, 256, 512), (1, 16, 64, 256)
UNBATCHED_LEVELS, QUICK_UNBATCHED_LEVELS = (1, 4, 16, 64, 256), (1, 16)
"""Above this a queue of single transactions takes longer than Asterisk waits for an answer."""
UNBATCHED = {
    "batch_max_operations": "1",
    "batch_event_delay_ms": "0",
    "call_answer_deadline_ms": "60000",
}
SOME_RATE = 500
"""Calls a second of a busy system that is far from its limit."""
STARTS = 50
"""Calls that begin at once on money for POOR_CALLS."""


def throughput(bench: Bench, report: Report) -> None:
    """Calls a second at growing concurrency, of many clients and of one, and without batches."""
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        levels = QUICK_LEVELS if bench.quick else LEVELS
        rounds = [
            [bench.closed(database, server, level) for level in levels] for _ in range(bench.rounds)
        ]
        many = [median(samples) for samples in zip(*rounds, strict=True)]
        report.samples("throughput", f"Throughput, {CLIENTS} clients", many)
        best = max(many, key=lambda sample: sample.rate)
        at_once = round(best.at_once)
        # In turn, so that what else the machine does disturbs both alike.
        pairs = [
            [bench.closed(database, server, at_once, clients=clients) for clients in (CLIENTS, 1)]
            for _ in range(bench.rounds)
        ]
        bench.check(database)
    many_again, one = (median(samples) for samples in zip(*pairs, strict=True))
    report.samples("one_client", f"{CLIENTS} clients, and all calls of one", [many_again, one])
    report.ratio("one_client_ratio", "One client against many", one.rate / many_again.rate)
    unbatched = _unbatched(bench, report)
    report.ratio(
        "batching",
        "Batches against a transaction for each operation, each at its best",
        best.rate / unbatched.rate,
    )
    _floor(bench, report, best)


def _unbatched(bench: Bench, report: Report) -> Sample:
    """The same program with a transaction for each operation; its best."""
    with (
        bench.stage.database() as database,
        bench.stage.serving(database, **UNBATCHED) as server,
    ):
        bench.warm_up(database, server)
        levels = QUICK_UNBATCHED_LEVELS if bench.quick else UNBATCHED_LEVELS
        rounds = [
            [bench.closed(database, server, level, may_fail=True) for level in levels]
            for _ in range(bench.rounds)
        ]
        bench.check(database)
    samples = [median(each) for each in zip(*rounds, strict=True)]
    report.samples("unbatched", f"A transaction for each operation, {CLIENTS} clients", samples)
    return max(samples, key=lambda sample: sample.rate)


def _floor(bench: Bench, report: Report, best: Sample) -> None:
    """The same rows by hand-written SQL, in batches of the server's size."""
    batch = max(1, round(best.batch / max(best.operations, 1)))
    found = []
    for _ in range(bench.rounds):
        with bench.stage.database() as database:
            cpu, began, used = bench.stage.cpu(None), time.monotonic(), time.process_time()
            calls = floor.run(database.url, CLIENTS, batch, bench.seconds)
            used, elapsed = time.process_time() - used, time.monotonic() - began
            database_cpu = (bench.stage.cpu(None) - cpu).database
            found.append((calls / elapsed, used / calls * 1e6, database_cpu / calls * 1e6))
    rate, client, database_us = sorted(found)[len(found) // 2]
    report.table(
        f"Floor: the same rows by hand-written SQL, {batch} calls a transaction",
        ("calls/s", "client µs", "database µs", "server: calls/s of the floor's",
         "server: database µs of the floor's"),
        [(f"{rate:.0f}", f"{client:.0f}", f"{database_us:.0f}", f"{best.rate / rate:.2f}",
          f"{best.database / database_us:.2f}")],
    )  # fmt: skip
    report.found["floor"] = {
        "batch": batch, "rate": rate, "client": client, "database": database_us,
        "ratio": best.rate / rate,
    }  # fmt: skip


def latency(bench: Bench, report: Report) -> None:
    """How long a dialplan waits for its answer."""
    alone, busy = [], []
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        for _ in range(bench.rounds):
            alone.append(bench.closed(database, server, 1, seconds=2 * bench.seconds))
            busy.append(bench.opened(database, server, SOME_RATE, 4 * bench.seconds))
        bench.check(database)
    samples = [median(alone), median(busy)]
    report.samples("latency", f"Latency: one at a time, and {SOME_RATE} calls/s", samples)
    report.table(
        "The same: how long a dialplan waits for an answer, ms",
        ("load", "median", "95 %", "99 %", "worst", "begun late by the generator at worst"),
        [
            (name, *(f"{v:.2f}" for v in (s.p50, s.p95, s.p99, s.worst, s.late)))
            for name, s in zip(("one at a time", f"{SOME_RATE} calls/s"), samples, strict=True)
        ],
    )


def overcommit(bench: Bench, report: Report) -> None:
    """Many calls at once on money for a few: not one too many, and not one too few."""
    with bench.stage.database(1) as database, bench.stage.serving(database) as server:
        ratios = []
        for _ in range(bench.rounds):
            free = database.ask("SELECT balance FROM astclient WHERE name = %s", f"{POOR}0")[0]
            plan = {"port": server.port, "calls": STARTS, "at_once": STARTS, "prefix": POOR}
            answer = bench.stage.generator.do("calls", **plan, hold=-1)
            reserved = database.ask("SELECT SUM(reservedamount) FROM astcreditres")[0]
            ratios.append(float(reserved / free))
            statuses = answer["statuses"]
            bench.stage.generator.do("end", talk_ms=0)
            database.settled()
    allowed, ratio = statuses.get("ALLOWED", 0), max(ratios)
    report.table(
        f"Over-commit: {STARTS} starts at once on money for {POOR_CALLS} calls of {FULL_CALL}",
        ("allowed", "refused for want of credit", "reserved of what there was"),
        [(str(allowed), str(statuses.get("NOCREDIT", 0)), f"{ratio:.4f}")],
    )
    report.found["overcommit"] = {"statuses": statuses, "ratio": ratio}
    if ratios != [1.0] * len(ratios) or allowed != POOR_CALLS:
        raise BenchError(f"credit was granted {ratios} times, {statuses}")
