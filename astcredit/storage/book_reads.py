"""What a batch of operations asks of the books, as SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.service.errors import StorageError
from astcredit.service.ports import Channel, FoundCall
from astcredit.storage import rows, tables
from astcredit.storage.column_types import instant_ms
from astcredit.storage.sessions import Question
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import fit


class BookReads:
    """The questions, in the words of one kind of database."""

    def __init__(self, sql: SqlDialect) -> None:
        self._sql = sql

    def catalog_version(self) -> Question[int]:
        """The version of the catalog."""

        def read(found: Sequence[Sequence[str]]) -> int:
            if not found:
                raise StorageError("astcatalog has no row: run `astcredit init`")
            return int(found[0][0])

        return Question("SELECT version FROM astcatalog WHERE id = 1", (), read)

    def open_calls(
        self, call_ids: Collection[str], channels: Collection[Channel]
    ) -> Question[Mapping[str, FoundCall]]:
        """Open calls by id, by calling channel or by answered leg, without their rates."""
        held = self._sql.by_key("astcreditres", "r")
        select, parts, values = f"SELECT {rows.FOUND_CALL} FROM ", [], list[Value]()
        if call_ids:
            parts.append(f"{held} WHERE {self._sql.in_list('r.call_id', len(call_ids))}")
            values.extend(call_ids)
        # One SELECT for each index: an OR of them would use none.
        for node, uniqueids in _by_node(channels).items():
            listed = self._sql.in_list("r.uniqueid", len(uniqueids))
            parts.append(f"astcreditres r WHERE r.node = {self._sql.mark} AND {listed}")
            listed = self._sql.in_list("c.leg_uniqueid", len(uniqueids))
            legs = f"{self._sql.by_index('astcdr', 'c', 'ix_astcdr_leg')} {self._sql.then} {held}"
            parts.append(f"{legs} ON r.call_id = c.id WHERE r.node = {self._sql.mark} AND {listed}")
            values.extend((node, *uniqueids) * 2)
        return Question(" UNION ALL ".join(select + part for part in parts), values, _found_calls)

    def answered(self, call_ids: Collection[str]) -> Question[Mapping[str, str | None]]:
        """Those of the calls that are still open, locked in the order of their ids; of each its
        leg, if it has one."""
        # `seconds` is read for MySQL: where a small table's index has all that is asked for, it
        # would rather walk through the whole index, and wait for rows that others have locked.
        statement = (
            "SELECT r.call_id, c.leg_uniqueid, r.seconds"
            f" FROM {self._sql.by_key('astcreditres', 'r')}"
            f" {self._sql.then} {self._sql.by_key('astcdr', 'c')} ON c.id = r.call_id"
            f" WHERE {self._sql.in_list('r.call_id', len(call_ids))} ORDER BY r.call_id"
            f"{self._sql.for_update}"
        )
        return Question(statement, sorted(call_ids), lambda found: {r[0]: r[1] for r in found})

    def clients(self, ids: Collection[int], *, lock: bool) -> Question[Mapping[int, ClientBooks]]:
        """The books of clients, in the order of their ids; locked in that order if asked for."""
        statement = (
            "SELECT id, kind, balance, credit_limit, reserved, active_calls, ledger_seq,"
            " monthly_quota, daily_quota, timezone, low_balance, low_balance_told, quota_counted"
            f" FROM {self._sql.by_key('astclient', 'c')}"
            f" WHERE {self._sql.in_list('id', len(ids))} ORDER BY id"
            f"{self._sql.for_update if lock else ''}"
        )

        def read(found: Sequence[Sequence[str]]) -> Mapping[int, ClientBooks]:
            return {books.id: books for books in map(rows.client_books, found)}

        return Question(statement, sorted(ids), read)

    def whole_calls(self, call_ids: Collection[str], *, lock: bool) -> Question[Sequence[OpenCall]]:
        """Those of the calls that are still open, with all that settling needs; locked in the order
        of their ids if asked for: the answer of a call is noted without its client's lock."""
        statement = (
            f"SELECT {rows.OPEN_CALL_COLUMNS}"
            f" FROM {self._sql.by_key('astcreditres', 'r')}"
            f" {self._sql.then} {self._sql.by_key('astcdr', 'c')} ON c.id = r.call_id"
            f" WHERE {self._sql.in_list('r.call_id', len(call_ids))} ORDER BY r.call_id"
            f"{self._sql.for_update if lock else ''}"
        )
        return Question(statement, tuple(call_ids), lambda found: [*map(rows.open_call, found)])

    def counters(self, keys: Collection[str]) -> Question[Mapping[str, int]]:
        """Counters of capacity that there are, locked in the order of their keys."""
        statement = (
            f"SELECT id, calls FROM {self._sql.by_key('astcapacity', 'k')}"
            f" WHERE {self._sql.in_list('id', len(keys))} ORDER BY id{self._sql.for_update}"
        )
        return Question(statement, sorted(keys), lambda found: {r[0]: int(r[1]) for r in found})

    def usages(self, periods: Collection[ClientPeriod]) -> Question[Mapping[ClientPeriod, Usage]]:
        """What clients used in those periods, if anything."""
        statement = (
            "SELECT client_id, period, quota, spent, reserved, waived, told, first_over_at,"
            " last_over_at, blocked_at, reset_at"
            f" FROM astquota WHERE {self._sql.in_rows(('client_id', 'period'), len(periods))}"
        )
        values = [value for period in periods for value in period]
        return Question(
            statement, values, lambda found: {(int(r[0]), r[1]): rows.usage(r[2:]) for r in found}
        )

    def heard_until(self, nodes: Collection[str]) -> Question[Mapping[str, int]]:
        """Up to when all that happened on those nodes is on record; nothing for others."""
        listed = self._sql.in_list("name", len(nodes))
        statement = f"SELECT name, heard_until FROM astnode WHERE {listed}"
        return Question(
            statement, sorted(nodes), lambda found: {r[0]: instant_ms(r[1]) for r in found}
        )

    def recorded(self, call_ids: Collection[str]) -> Question[frozenset[str]]:
        """Those of the ids that have a CDR."""
        statement = f"SELECT id FROM astcdr WHERE {self._sql.in_list('id', len(call_ids))}"
        return Question(
            statement, tuple(call_ids), lambda found: frozenset(row[0] for row in found)
        )


def _found_calls(found: Sequence[Sequence[str]]) -> Mapping[str, FoundCall]:
    return {row[0]: rows.found_call(row) for row in found}


def _by_node(channels: Collection[Channel]) -> Mapping[str, Sequence[str]]:
    """The unique ids of channels, as the columns hold them, by the name of their server."""
    found: dict[str, list[str]] = {}
    for channel in channels:
        node = fit(tables.astcreditres, "node", channel.node)
        found.setdefault(node, []).append(fit(tables.astcreditres, "uniqueid", channel.uniqueid))
    return found
