"""How the statements of a transaction reach the database: one by one, or several in one packet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.wire import StatementFailed, WireConnection, literals

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Question(Generic[Found]):
    """A SELECT, its values, and what is made of its rows.

    `read` takes rows as the driver brings them: numbers as numbers or as texts, times likewise.
    """

    statement: str
    values: Sequence[Value]
    read: Callable[[Sequence[Any]], Found]


class Session(Protocol):
    """A transaction. Every method raises the driver's errors."""

    @property
    def proves(self) -> bool:
        """Whether what is run can stop the transaction (`astcredit.storage.proofs`)."""

    async def look(self, question: Question[Found]) -> Found:
        """An answer that may be out of date when the transaction begins."""

    async def ask(self, *questions: Question[Any]) -> list[Any]:
        """The answers, together in as few round trips as possible; the questions take effect, as
        FOR UPDATE does, in their order and after all that was run before."""

    async def run(self, statement: str, values: Iterable[Value]) -> None:
        """Execute a statement without rows, at the latest before the next question or COMMIT."""


class CoreSession:
    """One statement after the other, through SQLAlchemy."""

    proves = False

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def look(self, question: Question[Found]) -> Found:
        """See `Session`."""
        (found,) = await self.ask(question)
        return cast(Found, found)

    async def ask(self, *questions: Question[Any]) -> list[Any]:
        """See `Session`."""
        found = []
        for question in questions:
            statement, values = question.statement, tuple(question.values)
            result = await self._connection.exec_driver_sql(statement, values)
            found.append(question.read(result.all()))
        return found

    async def run(self, statement: str, values: Iterable[Value]) -> None:
        """See `Session`."""
        await self._connection.exec_driver_sql(statement, tuple(values))


class WireSession:
    """All that can go together in one packet: BEGIN with the first question, what is written with
    COMMIT. A transaction of a single call has two round trips instead of a dozen (in a cluster a
    dozen all the same: see `WireConnection.together`)."""

    def __init__(self, connection: WireConnection, sql: SqlDialect) -> None:
        self.connection = connection
        self._sql = sql
        self._begun = False
        self._kept: list[str] = []
        self.committing = False
        """COMMIT was sent, and it is not known that it was not reached."""

    @property
    def proves(self) -> bool:
        """See `Session`: where a packet is stopped as a whole."""
        return self._sql.proves and self.connection.together

    async def look(self, question: Question[Found]) -> Found:
        """See `Session`: where nothing is found there need be no transaction."""
        if self._begun or self._kept:
            (found,) = await self.ask(question)
            return cast(Found, found)
        statement = _text(question.statement, question.values)
        (rows,) = await self.connection.send([statement], last=True)
        return question.read(rows)

    async def ask(self, *questions: Question[Any]) -> list[Any]:
        """See `Session`."""
        asked = [_text(question.statement, question.values) for question in questions]
        rows = await self.connection.send([*self._begin(), *self._written(), *asked])
        answers = rows[len(rows) - len(questions) :]
        return [question.read(found) for question, found in zip(questions, answers, strict=True)]

    async def run(self, statement: str, values: Iterable[Value]) -> None:
        """See `Session`: it is kept until the next question or COMMIT."""
        self._kept.append(_text(statement, tuple(values)))

    async def commit(self) -> None:
        """Execute what is kept and COMMIT. Nothing was asked and nothing kept: nothing is done."""
        if not self._begun and not self._kept:
            return
        statements = [*self._begin(), *self._written(), "COMMIT"]
        self.committing = True
        try:
            await self.connection.send(statements, last=True)
        except StatementFailed as error:
            self.committing = error.before == len(statements) - 1
            raise

    async def roll_back(self) -> None:
        """Undo what was executed."""
        if self._begun:
            await self.connection.send(["ROLLBACK"], last=True)

    def _begin(self) -> list[str]:
        begun, self._begun = self._begun, True
        return [] if begun else [self._sql.begin]

    def _written(self) -> Sequence[str]:
        kept, self._kept = self._kept, []
        return self._sql.silently(kept) if self.connection.together else kept


def _text(statement: str, values: Sequence[Value]) -> str:
    return statement % tuple(literals(values)) if values else statement
