"""A TCP proxy that looks at nothing: its connections can be cut or frozen, at any moment.

It runs in a thread of its own, so that tests without an event loop can use it, and listens on one
port as long as it lives: whoever connects through it need not know when its target restarts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from support.ports import LOOPBACK

_READ_BYTES = 65_536
_PATIENCE_SECONDS = 30.0

T = TypeVar("T")


class TcpGate:
    """A proxy to a port of the loopback. Use as a context manager."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: asyncio.Event
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.port = 0

    def __enter__(self) -> TcpGate:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    def cut(self) -> None:
        """Break all connections, without a word to either side; new ones pass."""
        self._call(self._cut)

    def freeze(self) -> None:
        """Let nothing pass any more. Connections stay open, new ones are taken and not answered."""
        self._call(lambda: self._open.clear())

    def thaw(self) -> None:
        """Let everything pass again, what has waited first."""
        self._call(lambda: self._open.set())

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._writers) // 2

    def _call(self, what: Callable[[], object]) -> None:
        async def do() -> None:
            what()

        self._do(do())

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_PATIENCE_SECONDS)

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        me = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cut()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        others: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            await self._open.wait()
            others = await asyncio.open_connection(LOOPBACK, self._target_port)
            self._writers.add(others[1])
            pumps = [
                asyncio.ensure_future(self._pump(reader, others[1])),
                asyncio.ensure_future(self._pump(others[0], writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the target is down: so is the connection
        finally:
            for end in (writer, *(others[1:] if others else ())):
                self._writers.discard(end)
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
