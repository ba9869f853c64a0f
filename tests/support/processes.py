"""Server processes that are all asked at the same instant."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

from sqlalchemy import select

from astcredit.domain.calls import CallRequest
from astcredit.domain.decisions import Decision
from astcredit.storage.tables import astcatalog
from support.core import opened, server


def authorized_by_processes(
    url: str, shares: Sequence[Sequence[CallRequest]], most_operations: int = 256
) -> dict[str, str]:
    """Authorize calls by server processes, one for each share, all at one instant; statuses by the
    id of the call. A transaction has at most so many operations."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(len(shares)), context.SimpleQueue()
    servers = [
        context.Process(
            target=_authorize_in_a_process, args=(url, share, most_operations, ready, answers)
        )
        for share in shares
    ]
    for process in servers:
        process.start()
    statuses: dict[str, str] = {}
    for _ in servers:
        statuses |= answers.get()
    for process in servers:
        process.join(60)
    answers.close()
    return statuses


def _authorize_in_a_process(
    url: str,
    requests: Sequence[CallRequest],
    most_operations: int,
    ready: Barrier,
    answers: SimpleQueue[dict[str, str]],
) -> None:
    """A server process of its own: authorizes calls, all at once, when all processes are ready."""

    async def run() -> dict[str, str]:
        async with (
            opened(url) as database,
            server(database, most_operations=most_operations) as batcher,
        ):
            async with database.reading() as connection:  # connected before the start
                await connection.execute(select(astcatalog.c.version))
            ready.wait(60)
            outcomes = await asyncio.gather(*(batcher.submit(asked) for asked in requests))
            decided = zip(requests, outcomes, strict=True)
            return {r.call_id: o.status.value for r, o in decided if isinstance(o, Decision)}

    answers.put(asyncio.run(run()))
