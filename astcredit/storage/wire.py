"""Several statements in one packet to MariaDB or MySQL, and their answers read at once.

aiomysql sends one statement at a time and waits twice for each row of its answer. A call waits for
each of these round trips, and at thousands of calls a second the reading of rows would cost more
than everything else. So a batch of calls sends its statements together (CLIENT_MULTI_STATEMENTS:
the server executes them in order and stops at the first that fails), and the answers are taken
apart here. Everything else of a connection stays the driver's.

The protocol is MariaDB's "text protocol": https://mariadb.com/kb/en/clientserver-protocol/
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from pymysql.constants import CLIENT, COMMAND, CR
from pymysql.converters import escape_string
from pymysql.err import InternalError, MySQLError, OperationalError, raise_mysql_exception

from astcredit.storage.sql import Value
from astcredit.storage.tls import TlsConnection

Row: TypeAlias = Sequence[str | None]
"""The values of a row as the text protocol brings them; None is NULL."""

_HEADER: Final = 4
_LONGEST: Final = 0xFFFFFF  # of one packet; longer ones go on in the next
_OK, _NULL, _EOF, _ERROR = 0x00, 0xFB, 0xFE, 0xFF
_EOF_BYTES: Final = 9  # a packet that begins like EOF and is longer is a row
_IN_TRANSACTION: Final = 0x0001
_MORE_RESULTS: Final = 0x0008
_UNSAFE: Final = ("'", "\\", '"', "\n", "\r", "\0", "\x1a")


def literals(values: Sequence[Value]) -> list[str]:
    """Values as a statement has them. The session's sql_mode must not be NO_BACKSLASH_ESCAPES.

    Looking once at all texts of a batch is a third of the work of looking at each.
    """
    texts = "".join([value for value in values if isinstance(value, str)])
    if any(character in texts for character in _UNSAFE):
        values = [escape_string(value) if isinstance(value, str) else value for value in values]
    return [
        f"'{value}'" if isinstance(value, str) else "NULL" if value is None else str(int(value))
        for value in values
    ]


class AnswersParser:
    """Takes the answers to the statements of one packet, in pieces of any size.

    `rows` has those of each statement that was done, none for one that returns none; `error` is
    what the server said of the first that failed. `outside`: after how many of them the server was
    in no transaction.
    """

    def __init__(self) -> None:
        self.rows: list[list[Row]] = []
        self.error: MySQLError | None = None
        self.outside = 0
        self._buffer = bytearray()
        self._sequence = 1
        self._columns = -1  # still to be described; -1 before an answer, 0 while its rows come
        self._found: list[Row] = []

    def feed(self, data: bytes) -> bool:
        """Whether the last answer is complete. Raises InternalError for what is no answer."""
        buffer = self._buffer
        buffer += data
        position, end, done = 0, len(buffer), False
        while not done and end - position >= _HEADER:
            size = int.from_bytes(buffer[position : position + 3], "little")
            following = position + _HEADER + size
            if end < following:
                break
            if size == _LONGEST:
                raise InternalError(CR.CR_MALFORMED_PACKET, "an answer of more than 16 MB")
            if buffer[position + 3] != self._sequence:
                raise InternalError(CR.CR_COMMANDS_OUT_OF_SYNC, "packets out of order")
            self._sequence = (self._sequence + 1) & 0xFF
            try:
                done = self._take(bytes(buffer[position + _HEADER : following]))
            except (IndexError, KeyError, ValueError, struct.error):
                raise InternalError(CR.CR_MALFORMED_PACKET, "an answer cut short") from None
            position = following
        del buffer[:position]
        if done and buffer:
            raise InternalError(CR.CR_MALFORMED_PACKET, "more than was asked for")
        return done

    def _take(self, packet: bytes) -> bool:
        """Take one packet; whether it ends the last answer."""
        if not packet or (packet[0] == _NULL and self._columns < 0):
            # 0xFB asks for a file of ours: nobody here offers one.
            raise InternalError(CR.CR_MALFORMED_PACKET, "an answer that was not asked for")
        first = packet[0]
        if first == _ERROR:
            self.error = _error_of(packet)
            return True
        if self._columns < 0:
            if first == _OK:
                return self._answered(_status_of_ok(packet))
            self._columns = first + 1  # and one packet that ends the descriptions
        elif self._columns:
            self._columns -= 1
        elif first == _EOF and len(packet) < _EOF_BYTES:
            return self._answered(packet[3] | packet[4] << 8)
        else:
            self._found.append(_row(packet))
        return False

    def _answered(self, status: int) -> bool:
        self.rows.append(self._found)
        self._found, self._columns = [], -1
        self.outside += not status & _IN_TRANSACTION
        return not status & _MORE_RESULTS


def _error_of(packet: bytes) -> MySQLError:
    try:
        raise_mysql_exception(packet)
    except MySQLError as error:
        return error
    raise InternalError(CR.CR_MALFORMED_PACKET, "an error without a number")


def _status_of_ok(packet: bytes) -> int:
    """The server's status in an OK packet, behind two numbers (rows changed, id made)."""
    position = 1
    for _ in range(2):
        _, position = _number(packet, position)
    return packet[position] | packet[position + 1] << 8


def _number(packet: bytes, position: int) -> tuple[int, int]:
    """A length-encoded number, and where what follows it begins."""
    first = packet[position]
    if first < _NULL:
        return first, position + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    end = position + 1 + width
    return int.from_bytes(packet[position + 1 : end], "little"), end


def _row(packet: bytes) -> Row:
    row: list[str | None] = []
    # Positions in the text are those in the packet as long as each byte is one character.
    plain = packet.isascii()
    text = packet.decode("ascii" if plain else "latin-1")
    position, end = 0, len(packet)
    while position < end:
        size = packet[position]
        position += 1
        if size == _NULL:
            row.append(None)
            continue
        if size > _NULL:
            size, position = _number(packet, position - 1)
        following = position + size
        value = text[position:following]
        row.append(value if plain or value.isascii() else packet[position:following].decode())
        position = following
    return row


class StatementFailed(Exception):  # noqa: N818 - the server's word, chained
    """The server refused a statement: the first `before` of those sent are executed, this one and
    the others are not. `error` is pymysql's."""

    def __init__(self, before: int, error: MySQLError) -> None:
        super().__init__(str(error))
        self.before = before
        self.error = error


class _Receiver(asyncio.Protocol):
    """Hears a connection in the driver's place until the answers are `complete`.

    The server sends each answer by itself. The driver's stream would wake whoever waits for every
    one of them, which costs more than to take it apart.
    """

    def __init__(self, transport: asyncio.Transport, answers: AnswersParser) -> None:
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._driver: Any = transport.get_protocol()
        self._answers = answers

    def __enter__(self) -> _Receiver:
        if self._transport.is_closing():
            raise _lost()
        self._transport.set_protocol(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.set_protocol(self._driver)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answers."""
        try:
            if self._answers.feed(data):
                self._end(None)
        except InternalError as error:
            self._end(error)

    def eof_received(self) -> bool | None:
        """The server sends no more."""
        self._end(_lost())
        kept_open: bool | None = self._driver.eof_received()
        return kept_open

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end(_lost())
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        """The server takes what is sent more slowly than it is sent."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._driver.resume_writing()

    def _end(self, error: Exception | None) -> None:
        if self.complete.done():
            return
        if error is None:
            self.complete.set_result(None)
        else:
            self.complete.set_exception(error)


def _lost() -> OperationalError:
    return OperationalError(CR.CR_SERVER_LOST, "connection lost during a query")


class WireConnection(TlsConnection):
    """The driver's connection, which can also send several statements in one packet.

    `together`: it is safe to send statements that depend on each other in one packet. It is not
    where another server of a cluster may undo a transaction at any moment (Galera's "brute force
    abort", seen with MariaDB 10.11): the statements behind that moment are executed all the same,
    each in a transaction of its own.
    """

    def __init__(self, **parameters: Any) -> None:
        self.together = True
        # ROW_COUNT() counts rows that are changed to what they were.
        flags = CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS
        flags |= parameters.pop("client_flag", 0)
        super().__init__(client_flag=flags, **parameters)

    async def send(self, statements: Sequence[str], *, last: bool = False) -> list[list[Row]]:
        """Execute statements of a transaction, in one round trip if that is safe; the rows of each.
        `last`: the last of them ends it.

        Raises StatementFailed; and pymysql's error or OSError when the connection is lost, then it
        is closed, and nobody knows what was executed.
        """
        if self.together:
            return await self._send(statements, int(last))
        rows: list[list[Row]] = []
        for number, statement in enumerate(statements, 1):
            try:
                rows += await self._send([statement], int(last and number == len(statements)))
            except StatementFailed as error:
                raise StatementFailed(len(rows), error.error) from error
        return rows

    async def _send(self, statements: Sequence[str], endings: int) -> list[list[Row]]:
        answers = AnswersParser()
        try:
            if self._reader.at_eof():
                raise _lost()
            with _Receiver(self._writer.transport, answers) as receiver:
                await self._execute_command(COMMAND.COM_QUERY, ";".join(statements))
                await receiver.complete
            if answers.outside > endings:
                raise InternalError(CR.CR_COMMANDS_OUT_OF_SYNC, "the transaction has ended early")
        except BaseException:
            self.close()
            raise
        if answers.error is not None:
            raise StatementFailed(len(answers.rows), answers.error)
        return answers.rows
