"""How the statements of a transaction reach the database: one by one, or several in one packet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from astcredit.storage.sql import Value
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
    """A transaction. Both methods raise the driver's errors."""

    async def ask(self, *questions: Question[Any]) -> list[Any]:
        """The answers, together in as few round trips as possible; the questions take effect, as
        FOR UPDATE does, in their order and after all that was run before."""

    async def run(self, statement: str, values: Iterable[Value]) -> None:
        """Execute a statement without rows, at the latest before the next question or COMMIT."""


class CoreSession:
    """One statement after the other, through SQLAlchemy."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

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

    def __init__(self, connection: WireConnection, begin: str) -> None:
        self.connection = connection
        self._kept = [begin]
        self._begun = False
        self.committing = False
        """COMMIT was sent, and it is not known that it was not reached."""

    async def ask(self, *questions: Question[Any]) -> list[Any]:
        """See `Session`."""
        asked = [_text(question.statement, question.values) for question in questions]
        statements = self._kept + asked
        if not statements:
            return []
        self._kept, self._begun = [], True
        rows = await self.connection.send(statements)
        answers = rows[len(rows) - len(questions) :]
        return [question.read(found) for question, found in zip(questions, answers, strict=True)]

    async def run(self, statement: str, values: Iterable[Value]) -> None:
        """See `Session`: it is kept until the next question or COMMIT."""
        self._kept.append(_text(statement, tuple(values)))

    async def commit(self) -> None:
        """Execute what is kept and COMMIT. Nothing was asked and nothing kept: nothing is done."""
        if not self._begun and len(self._kept) == 1:
            return
        statements = [*self._kept, "COMMIT"]
        self._begun = self.committing = True
        try:
            await self.connection.send(statements, last=True)
        except StatementFailed as error:
            self.committing = error.before == len(statements) - 1
            raise

    async def roll_back(self) -> None:
        """Undo what was executed."""
        if self._begun:
            await self.connection.send(["ROLLBACK"], last=True)


def _text(statement: str, values: Sequence[Value]) -> str:
    return statement % tuple(literals(values)) if values else statement
