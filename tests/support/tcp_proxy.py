"""A TCP proxy in front of a MariaDB server that loses just what a test wants lost.

It follows the protocol only as far as needed: a client's packet is three bytes of length, one of
sequence, then the command; 0x03 is a query with its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url

_HEADER = 4
_QUERY = b"\x03"
_READ_BYTES = 65_536


class Proxy:
    """Connections to a server, each of which can be cut or silenced.

    `on_query` is asked about each query before it is passed on; it may call `cut`, `freeze` or
    `swallow`. What it returns is ignored.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._pipes: set[Pipe] = set()
        self._server: asyncio.Server | None = None
        self.on_query: Callable[[Pipe, str], object] | None = None
        self.frozen = False
        self.accepted = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for pipe in list(self._pipes):
            pipe.cut()
        await asyncio.gather(*(pipe.ended.wait() for pipe in list(self._pipes)))
        await self._server.wait_closed()

    def freeze(self) -> None:
        """From now on nothing passes in either direction, and new connections get no answer."""
        self.frozen = True

    def thaw(self) -> None:
        """Cut what was frozen; new connections pass again."""
        self.frozen = False
        for pipe in list(self._pipes):
            pipe.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pipe = Pipe(self, reader, writer)
        self._pipes.add(pipe)
        try:
            await pipe.run(*self._target)
        finally:
            self._pipes.discard(pipe)
            pipe.ended.set()


class Pipe:
    """One client's connection; the server sees it come from `server_side_port`."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._swallowing: Callable[[], object] | None = None
        self._cut = asyncio.Event()
        self.server_side_port = 0
        self.ended = asyncio.Event()

    def cut(self) -> None:
        """Close the connection on both sides, without a word."""
        self._cut.set()

    def swallow(self, then: Callable[[], object] | None = None) -> None:
        """Lose the server's next reply; `then`, by default `cut`, is called when it has come."""
        self._swallowing = then or self.cut

    async def run(self, host: str, port: int) -> None:
        reader, writer = self._client
        server_writer: asyncio.StreamWriter | None = None
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(self._wait_for_cut())]
        try:
            if not self._proxy.frozen:
                server_reader, server_writer = await asyncio.open_connection(host, port)
                self.server_side_port = server_writer.get_extra_info("sockname")[1]
                tasks.append(asyncio.create_task(self._upwards(reader, server_writer)))
                tasks.append(asyncio.create_task(self._downwards(server_reader, writer)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the server is down: so is the connection
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, server_writer):
                if end is not None:
                    end.close()
                    with suppress(OSError):
                        await end.wait_closed()

    async def _wait_for_cut(self) -> None:
        await self._cut.wait()

    async def _upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Packet by packet, so that each query can be looked at before it is passed on."""
        while True:
            header = await reader.readexactly(_HEADER)
            body = await reader.readexactly(int.from_bytes(header[:3], "little"))
            is_query = header[3] == 0 and body[:1] == _QUERY
            if is_query and self._proxy.on_query is not None:
                self._proxy.on_query(self, body[1:].decode("utf-8", "replace"))
            if self._proxy.frozen:
                await self._cut.wait()
            if self._cut.is_set():
                return
            writer.write(header + body)
            await writer.drain()

    async def _downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            if self._swallowing is not None:
                then, self._swallowing = self._swallowing, None
                then()
                continue
            if self._proxy.frozen:
                await self._cut.wait()
            if self._cut.is_set():
                return
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the database at `url`, and the address that goes through it."""
    address = make_url(url)
    assert address.host is not None
    assert address.port is not None
    proxy = Proxy(address.host, address.port)
    await proxy.start()
    try:
        through = address.set(port=proxy.port)
        yield proxy, through.render_as_string(hide_password=False)
    finally:
        await proxy.stop()
