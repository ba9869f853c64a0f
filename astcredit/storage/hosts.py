"""The servers of a cluster, of which a process uses one at a time.

The first is used until it fails; then the next one, in turn. Connections to a server that was left
are replaced when they are wanted: a process never writes through two servers at once, where its
own transactions could be in each other's way.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Engine, event, make_url
from sqlalchemy.exc import DisconnectionError

from astcredit.storage.wire import WireConnection

log = logging.getLogger(__name__)

# A server on the same network answers within milliseconds; one that does not within this is not
# there, or is as good as not there.
CONNECT_SECONDS = 2

_PARTS = re.compile(r"(?P<before>[^:/]*://(?:[^@]*@)?)(?P<hosts>[^/?]*)(?P<after>.*)", re.DOTALL)
_HOST = "host"


def addresses(url: str) -> list[str]:
    """An address with several hosts, HOST[:PORT],HOST[:PORT], as addresses with one host each."""
    parts = _PARTS.fullmatch(url)
    if parts is None:
        return [url]
    return [f"{parts['before']}{host}{parts['after']}" for host in parts["hosts"].split(",")]


def shown(url: str) -> str:
    """The address with its password hidden."""
    parts = _PARTS.fullmatch(url)
    hidden = make_url(addresses(url)[0]).render_as_string(hide_password=True)
    if parts is None or "," not in parts["hosts"]:
        return hidden
    return _PARTS.sub(lambda one: f"{one['before']}{parts['hosts']}{one['after']}", hidden)


class Hosts:
    """Which of the servers is used now. `check` raises the driver's error for a connection to one
    that can be reached and is of no use."""

    def __init__(self, servers: Sequence[URL], check: Callable[[Any], None]) -> None:
        self._servers = servers
        self._check = check
        self._current = 0

    def watch(self, engine: Engine) -> None:
        """Have the engine's connections lead to the server that is used."""
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "invalidate", self._invalidated)

    def is_used(self, info: Mapping[Any, Any]) -> bool:
        """Whether a connection, by its `info`, leads to the server that is used."""
        return bool(info[_HOST] == self._current)

    def _connect(self, dialect: Any, record: Any, _arguments: object, _parameters: object) -> Any:
        """A connection to the first server that gives one, fit for use."""
        for left in reversed(range(len(self._servers))):
            number = self._current
            try:
                connection = self._connection(dialect, self._servers[number])
            except (dialect.loaded_dbapi.Error, OSError) as error:
                self._leave(number, error)
                if not left:
                    raise
            except asyncio.CancelledError as error:
                # Whoever wanted it waits no longer: most likely because this takes so long.
                self._leave(number, error)
                raise
            else:
                record.info[_HOST] = number
                return connection
        return None

    def _connection(self, dialect: Any, server: URL) -> Any:
        arguments, parameters = dialect.create_connect_args(server)
        connection = dialect.connect(*arguments, **parameters, async_creator_fn=_in_time)
        try:
            self._check(connection)
        except BaseException:
            dialect.do_terminate(connection)
            raise
        return connection

    def _checked_out(self, _connection: object, record: Any, _proxy: object) -> None:
        if not self.is_used(record.info):
            raise DisconnectionError("the server of this connection was left")

    def _invalidated(self, _connection: object, record: Any, error: BaseException | None) -> None:
        # Without an error it was only interrupted; the other is our own, above.
        if error is not None and not isinstance(error, DisconnectionError):
            self._leave(record.info[_HOST], error)

    def _leave(self, number: int, error: BaseException) -> None:
        if number != self._current or len(self._servers) == 1:
            return
        self._current = (number + 1) % len(self._servers)
        log.warning(
            "database server left for the next",
            extra={
                "action": "database_left",
                "host": self._servers[number].host,
                "next": self._servers[self._current].host,
                "error": repr(error),
            },
        )


async def _in_time(**parameters: object) -> Any:
    """A connection. The driver's own limit is for the network alone, and the network of a frozen
    server is alive."""
    connection = WireConnection(**parameters)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.ping(reconnect=True)
    except BaseException:
        connection.close()
        raise
    return connection
