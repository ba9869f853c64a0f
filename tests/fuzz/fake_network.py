"""A network without sockets: the program's own server and client code, fed with bytes by a fuzzer.

Time passes only when everybody waits, so that a hang is seen at once and a time-out takes no time.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, TypeVar, cast

from simulation.virtual_time import VirtualLoop

from fuzz.pieces import demand

T = TypeVar("T")
Protocol = asyncio.Protocol | asyncio.BufferedProtocol
Factory = Callable[[], Protocol]

MOST_STEPS: Final = 20_000
"""Rounds of the event loop for one input. It takes some hundred; more is a loop without an end."""

CONTAINERS: Final = (str, bytes, bytearray, memoryview)
_NOT_DATA: Final = (
    *(type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType),
    asyncio.AbstractEventLoop,
)


class FakeNetwork(VirtualLoop):
    """A loop in which servers do not listen and clients do not connect: `arrive` and `connection`
    are the other ends."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: Connection | None = None
        self.faults: list[str] = []
        self._factory: Factory | None = None
        self._idle: asyncio.Future[None] | None = None
        self._steps = 0
        self.set_exception_handler(self._note_fault)

    def play(self, main: Callable[[FakeNetwork], Coroutine[Any, Any, T]]) -> T:
        """Run one exchange to its end. Raises BrokenError for an exception that nobody caught or
        that was caught only to be logged, for a task that is left over, and for an exchange that
        does not end."""
        self._steps, self.connection, self._factory, self.faults = 0, None, None, []
        with _tracebacks_noted(self.faults):
            try:
                result = self.run_until_complete(main(self))
                demand(not self.faults, f"nobody expected: {self.faults}")
                demand(not asyncio.all_tasks(self), f"left over: {asyncio.all_tasks(self)}")
            except BaseException:
                self._clear()
                raise
            return result

    def arrive(self) -> Connection:
        """A connection from outside to the server that listens."""
        assert self._factory is not None
        return Connection(self, self._factory())

    async def idle(self) -> None:
        """Until everybody waits for time to pass, or for the other side."""
        self._idle = self.create_future()
        await self._idle

    def select(self, timeout: float | None) -> tuple[()]:
        self._steps += 1
        demand(self._steps <= MOST_STEPS, "it does not come to an end")
        if self._idle is not None and timeout != 0:
            idle, self._idle = self._idle, None
            idle.set_result(None)
            return ()
        return super().select(timeout)

    async def create_server(self, factory: Factory, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        self._factory = factory
        return _Listening()

    async def create_connection(self, factory: Factory, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        self.connection = Connection(self, factory())
        return self.connection, self.connection.protocol

    def _clear(self) -> None:
        """Leave nothing to the next exchange."""
        self._steps, self._idle = 0, None
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def _note_fault(self, _loop: object, context: dict[str, Any]) -> None:
        self.faults.append(repr(context))


@contextmanager
def _tracebacks_noted(faults: list[str]) -> Iterator[None]:
    """Note what the program logs with a traceback: an error that it did not reckon with."""
    handler = _NotesTracebacks(faults)
    logger = logging.getLogger("astcredit")
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(handler)


class _NotesTracebacks(logging.Handler):
    def __init__(self, faults: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._faults.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class _Listening:
    """A server socket that nobody needs."""

    sockets: Sequence[object] = ()

    def close(self) -> None: ...

    def is_serving(self) -> bool:
        return True

    async def wait_closed(self) -> None: ...

    async def start_serving(self) -> None: ...


class Connection(asyncio.Transport):
    """The program's transport, and the peer that sends it what the fuzzer made up.

    `written` is what the program sent. Bytes that come while it does not read wait, as in a kernel.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000), "sockname": ("127.0.0.1", 4_573)})
        self.protocol = protocol
        self.written = b""
        self.closed = False
        self.paused = False
        self._loop = loop
        self._waiting: list[bytes] = []
        protocol.connection_made(self)

    # ---- the peer's side

    def deliver(self, data: bytes) -> None:
        """Bytes from the network."""
        if self.paused:
            self._waiting.append(data)
        elif not self.closed:
            self._receive(data)

    def end(self) -> None:
        """The peer closes its side."""
        if not self.closed and not self.protocol.eof_received():
            self.close()

    def commands(self) -> list[bytes]:
        """The lines that the program sent."""
        return self.written.splitlines()

    def _receive(self, data: bytes) -> None:
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            while data and not self.closed:
                room = cast("bytearray", self.protocol.get_buffer(len(data)))
                taken = min(len(data), len(room))
                room[:taken] = data[:taken]
                self.protocol.buffer_updated(taken)
                data = data[taken:]
        else:
            self.protocol.data_received(data)

    # ---- the program's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._loop.call_soon(self.deliver, data)

    def is_reading(self) -> bool:
        return not self.paused and not self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, Protocol)
        self.protocol = protocol


def bytes_held(*roots: object) -> int:
    """The size of all texts and bytes that can be reached from there, code left aside."""
    return sum(len(found) for found in _reached(roots) if isinstance(found, CONTAINERS))


def _reached(roots: Sequence[object]) -> Iterator[object]:
    seen: dict[int, object] = {}
    left = list(roots)
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, (*_NOT_DATA, Connection)):
            continue
        seen[id(one)] = one
        yield one
        if not isinstance(one, CONTAINERS):
            left += gc.get_referents(one)
