"""What a batch of operations writes to the books, as SQL: many rows in each statement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from astcredit.domain.books import ClientBooks
from astcredit.domain.capacity import Uses
from astcredit.domain.instants import instant_text
from astcredit.domain.settlement import Settlement
from astcredit.service.operations import Answered, Rerouted
from astcredit.service.ports import Changes
from astcredit.storage import proofs, rows
from astcredit.storage.guesses import Guesses
from astcredit.storage.sql import NO_MATTER, SqlDialect, Statement, Value, Was, flat


class BookWrites:
    """The statements, in the words of one kind of database."""

    def __init__(self, sql: SqlDialect) -> None:
        self._sql = sql

    def written(self, changes: Changes, guesses: Guesses) -> Iterator[Statement]:
        """Everything: first what locks the clients, if they are not locked, then what the later
        rows refer to."""
        sql, allowed = self._sql, [call for call in changes.calls if call.decision.allowed]
        yield from self._clients(changes.clients, guesses)
        yield from self._insert(
            "astcdr", rows.CDR_BEGIN, [rows.cdr_row(sql, call) for call in changes.calls], wide=True
        )
        yield from self._insert(
            "astcreditres", rows.RESERVATION, [rows.reservation_row(sql, call) for call in allowed]
        )
        yield from self._reroutes(changes.rerouted)
        yield from self._answers(changes.answered, guesses)
        yield from self._endings(changes.settlements, guesses)
        yield from self._untouched(changes, guesses)
        yield from self._insert(
            "astledger", rows.LEDGER, [rows.ledger_row(sql, entry) for entry in changes.ledger]
        )
        yield from self.counted({level: calls for level, calls in changes.uses.items() if calls})
        usages = sorted(changes.usages.items(), key=itemgetter(0))
        yield from self._put(
            "astquota",
            rows.USAGE,
            ("client_id", "period"),
            [rows.usage_row(sql, *usage) for usage in usages],
        )
        heard = [(node, instant_text(at)) for node, at in sorted(changes.heard.items())]
        yield from self._put("astnode", ("name", "heard_until"), ("name",), heard)
        alerts = [row for alert in changes.alerts for row in rows.outbox_rows(alert)]
        if alerts:
            # What is told once is never told twice, whatever is asked for.
            yield sql.insert_new("astoutbox", rows.OUTBOX, "reference", len(alerts)), flat(alerts)

    def counted(self, uses: Uses) -> Iterator[Statement]:
        """Change counters by so many calls, in the order of their keys."""
        if uses:
            ordered = sorted(uses, key=lambda level: level.key)
            statement = self._sql.add_many("astcapacity", rows.CAPACITY, "id", "calls", len(uses))
            yield statement, flat(rows.capacity_row(level, uses[level]) for level in ordered)

    def _clients(self, changed: Mapping[int, ClientBooks], guesses: Guesses) -> Iterator[Statement]:
        # One that was refused proves that it had no more when its row is written as it was.
        books, known = {**guesses.clients, **changed}, guesses.clients.values()
        was = proofs.client_was(self._sql, known) if known else NO_MATTER
        written = [rows.client_row(self._sql, client) for client in books.values()]
        yield from self._update("astclient", "id", rows.CLIENT, written, was)
        if guesses.version is not None:
            yield proofs.required_version(guesses.version), ()

    def _reroutes(self, rerouted: Sequence[Rerouted]) -> Iterator[Statement]:
        # A call may go through several routes in one batch: its last one is what is written.
        calls = list({event.call.call_id: event.call for event in rerouted}.values())
        changed = [rows.reroute_row(self._sql, call) for call in calls]
        yield from self._update("astcdr", "id", rows.CDR_REROUTE, changed)
        held = [rows.reservation_reroute_row(call) for call in calls]
        yield from self._update("astcreditres", "call_id", rows.RESERVATION_REROUTE, held)

    def _answers(self, answered: Sequence[Answered], guesses: Guesses) -> Iterator[Statement]:
        # A call may be told answered twice in one batch, by its caller's report and by the event:
        # its last state is what is written.
        last = {answer.call_id: answer for answer in answered}
        guessed = guesses.answered.keys() | guesses.calls.keys()
        sure = [rows.answer_row(last[id]) for id in last if id not in guessed]
        yield from self._update("astcdr", "id", rows.CDR_ANSWER, sure)
        # In one order, for they are locked here.
        unsure = [rows.answer_row(last[id]) for id in sorted(last) if id in guessed]
        yield from self._update(
            "astcdr", "id", rows.CDR_ANSWER, unsure, proofs.unanswered(self._sql, len(unsure))
        )

    def _endings(self, settlements: Sequence[Settlement], guesses: Guesses) -> Iterator[Statement]:
        if not settlements:
            return
        # The reservation first, as whoever locks a call does.
        ids = [settlement.call.call_id for settlement in settlements]
        yield self._sql.delete_many("astcreditres", "call_id", len(ids)), ids
        was = NO_MATTER
        if guesses.calls:
            was = proofs.call_was(self._sql, [settlement.call for settlement in settlements])
        ended = [rows.ending_row(self._sql, settlement) for settlement in settlements]
        yield from self._update("astcdr", "id", rows.CDR_END, ended, was)

    def _untouched(self, changes: Changes, guesses: Guesses) -> Iterator[Statement]:
        """Prove the calls that were left alone: that was decided on them, too."""
        done = {settlement.call.call_id for settlement in changes.settlements}
        done.update(answer.call_id for answer in changes.answered)
        left = [guesses.calls[id] for id in sorted(guesses.calls) if id not in done]
        was = proofs.call_was(self._sql, left)
        same = [(call.call_id, call.state) for call in left]
        yield from self._update("astcdr", "id", ("status",), same, was)

    def _insert(
        self,
        table: str,
        columns: Sequence[str],
        values: Sequence[Sequence[Value]],
        *,
        wide: bool = False,
    ) -> Iterator[Statement]:
        if values:
            columns, values = without_nulls(columns, values)
            most = self._sql.most_values // len(columns)
            for start in range(0, len(values), most):
                part = values[start : start + most]
                if wide:
                    yield self._sql.insert_wide(table, columns, part)
                else:
                    yield self._sql.insert_many(table, columns, len(part)), flat(part)

    def _put(
        self,
        table: str,
        columns: Sequence[str],
        key: Sequence[str],
        values: Sequence[Sequence[Value]],
    ) -> Iterator[Statement]:
        if values:
            yield self._sql.put_many(table, columns, key, len(values)), flat(values)

    def _update(
        self,
        table: str,
        key: str,
        columns: Sequence[str],
        values: Sequence[Sequence[Value]],
        was: Was = NO_MATTER,
    ) -> Iterator[Statement]:
        if values:
            yield self._sql.update_many(table, key, columns, values, was)
            if was.conditions:
                yield proofs.required(len(values)), ()


def without_nulls(
    columns: Sequence[str], rows: Sequence[Sequence[Value]]
) -> tuple[Sequence[str], Sequence[Sequence[Value]]]:
    """The same without the columns that are NULL in every row, which they are anyway: without
    routing plans and quotas a third of them."""
    kept = [n for n, each in enumerate(zip(*rows, strict=True)) if each.count(None) < len(each)]
    if len(kept) == len(columns):
        return columns, rows
    of = itemgetter(*kept)  # several: no table here has but one column that is never NULL
    return of(columns), list(map(of, rows))
