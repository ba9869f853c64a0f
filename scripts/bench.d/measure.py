"""One measurement: a load, what it took, and that nothing of it was lost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from stage import CLIENTS, BenchError, Database, Server, Stage

HOLD_SECONDS = 0.1
"""How long a call stays up for real, so that its answer and its end are not in one piece of events.
The events say up to two minutes."""
SECONDS = 5.0
QUICK_SECONDS = 1.0
"""How long a load lasts; some last a multiple of it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured. Times in milliseconds, CPU in µs a call, shares of all cores."""

    at_once: int
    calls: int
    failed: int
    rate: float
    """Whole calls a second: from the first question to the last end on record, without the time
    for which the last call was held."""
    p50: float
    p95: float
    p99: float
    worst: float
    server: float
    database: float
    generator: float
    generator_share: float
    """Of one core."""
    others: float
    batch: float
    """Operations in a transaction, on average."""
    operations: float
    """Operations of a call, on average."""
    late: float
    cpu_allows: float
    """Calls a second that the CPU would do if nothing else ran on the machine: a server process has
    one core, all three processes have all of them."""


class Bench:
    """Measures on one stage. `quick`: less of everything; `allowed` counts the calls of a database,
    `faults` says what went wrong and did not end the run."""

    def __init__(self, stage: Stage, *, quick: bool, rounds: int, cores: int, history: int) -> None:
        self.stage = stage
        self.history = history
        self.quick = quick
        self.seconds = QUICK_SECONDS if quick else SECONDS
        self.rounds = rounds
        self.cores = cores
        self.allowed = 0
        self.faults: list[str] = []

    def begin(self) -> None:
        """Forget what an earlier part may have left."""
        self.allowed = 0
        self.faults = []
        self.stage.generator.do("end")

    def closed(
        self,
        database: Database,
        server: Server,
        at_once: int,
        *,
        clients: int = CLIENTS,
        seconds: float = 0.0,
        may_fail: bool = False,
        **plan: Any,
    ) -> Sample:
        """So many authorizations in flight for a time."""
        wanted = {"at_once": at_once, "accounts": clients, "seconds": seconds or self.seconds}
        return self._sample(database, server, {**wanted, **plan}, may_fail=may_fail)

    def opened(
        self, database: Database, server: Server, rate: float, seconds: float, **plan: Any
    ) -> Sample:
        """So many calls a second, whatever becomes of them."""
        wanted = {"rate": rate, "accounts": CLIENTS, "seconds": seconds}
        return self._sample(database, server, {**wanted, **plan})

    def _sample(
        self,
        database: Database,
        server: Server,
        given: Mapping[str, Any],
        *,
        may_fail: bool = False,
    ) -> Sample:
        plan = {"hold": HOLD_SECONDS, **given, "port": server.port}
        up = database.count("astcreditres")
        held = max(0.0, plan["hold"])
        batches, operations = _batches(server)
        before = self.stage.cpu(server)
        answer = self.stage.generator.do("calls", **plan)
        calls, failed = self._counted(answer, may_fail)
        settled = database.settled(up + calls if plan["hold"] < 0 else up)
        used = self.stage.cpu(server) - before
        elapsed = max(settled - held, answer["ended"]) - answer["began"]
        whole = settled - answer["began"]
        more_batches, more_operations = _batches(server)
        done = more_operations - operations
        each = 1e6 / max(calls, 1)
        allows = min(calls / max(used.server, 1e-6), calls * self.cores / max(used.ours, 1e-6))
        return Sample(
            at_once=plan.get("at_once", 0),
            calls=calls,
            failed=failed,
            rate=calls / elapsed,
            **{name: answer[name] * 1000 for name in ("p50", "p95", "p99", "worst", "late")},
            server=used.server * each,
            database=used.database * each,
            generator=answer["cpu"] * each,
            generator_share=answer["cpu"] / whole,
            others=max(0.0, used.machine - used.ours) / whole / self.cores,
            batch=done / max(more_batches - batches, 1),
            operations=done / max(calls, 1),
            cpu_allows=allows,
        )

    def _counted(self, answer: dict[str, Any], may_fail: bool) -> tuple[int, int]:
        """Calls that were allowed, and others, which there should be none of."""
        if "two commands at once" in answer["faults"]:
            raise BenchError("the server sent two AGI commands at once: Asterisk would stall")
        calls = int(answer["statuses"].get("ALLOWED", 0))
        failed = int(answer["calls"]) - calls
        if failed and not may_fail:
            self.faults.append(f"{failed} of {answer['calls']} calls failed: {answer['statuses']}")
        self.allowed += calls
        return calls, failed

    def check(self, database: Database, before: int = 0) -> None:
        """Every call that was allowed is on record, complete, beside those from `before`, and
        nothing is open."""
        database.settled()
        completed = database.count("astcdr", "status = 'completed'") - before
        if completed != self.allowed:
            raise BenchError(f"{self.allowed} calls were made, {completed} are on record")
        self.allowed = 0

    def warm_up(self, database: Database, server: Server) -> None:
        """Let connections be made and caches fill."""
        for at_once in (1, 16):
            self.closed(database, server, at_once, seconds=self.seconds / 8, may_fail=True)


def _batches(server: Server) -> tuple[float, float]:
    """Transactions until now, and operations in them."""
    return (
        server.metric("astcredit_batch_operations_count"),
        server.metric("astcredit_batch_operations_sum"),
    )


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each value."""
    names = [field.name for field in fields(Sample)]
    return Sample(
        **{name: statistics.median(getattr(sample, name) for sample in samples) for name in names}
    )
