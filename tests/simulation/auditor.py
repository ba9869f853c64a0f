"""The auditor of the books: after each commit it looks at every row that was touched.

It knows the rows and the world's plain data, and shares no code with the program. What it adds up
itself, row by row, must be what the books say:

1. balance = sum of the ledger, and the last balance_after says the same;
2. reserved, calls that are up and every counter of capacity = what the open reservations add up to;
3. a prepaid client's balance + credit limit - reserved is never below zero;
4. one charge for each completed call and none for others, never above what was reserved;
5. a reservation for each CDR that is open or answered, and for no other;

and besides: quotas are counted right and never passed, no level holds more calls than it has room
for (emergency calls pass any limit).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from astcredit.domain.books import LedgerEntry, LedgerKind, OpenCall
from astcredit.domain.capacity import Occupancy
from astcredit.service.ports import Changes
from simulation.store import Store
from simulation.world import EMERGENCY, World

Period = tuple[int, str]


class Auditor:
    """Watches a store. `wrong` is told what must not be."""

    def __init__(self, store: Store, world: World, wrong: Callable[[str], None]) -> None:
        self._store = store
        self._world = world
        self._wrong = wrong
        self._balance: Counter[int] = Counter()
        self._entries: Counter[int] = Counter()
        self._held: Counter[int] = Counter()
        self._calls: Counter[int] = Counter()
        self._levels: Counter[str] = Counter()
        self._paying: Counter[str] = Counter()
        self._reserved_of: Counter[Period] = Counter()
        self._spent_of: Counter[Period] = Counter()
        self._charges: dict[str, int] = {}
        for entry in store.ledger:
            self._take(entry)

    def committed(self, changes: Changes, before: Mapping[str, OpenCall | None]) -> None:
        """Look at what a commit has changed."""
        for entry in changes.ledger:
            self._take(entry)
        touched = {entry.client_id for entry in changes.ledger} | changes.clients.keys()
        keys: set[str] = set()
        periods: set[Period] = set()
        for id, old in before.items():
            now = self._store.open.get(id)
            for call, sign in ((old, -1), (now, 1)):
                if call is not None:
                    self._count(call, sign)
                    touched.add(call.client_id)
                    keys.update(_keys(call))
                    periods.update((call.client_id, period) for period in call.periods)
            if old is not None and now is None:
                self._spend(old)
            self._check_call(id)
        for client_id in sorted(touched):
            self._check_client(client_id)
        self._check_levels(keys, changes)
        for period in sorted(periods):
            self._check_period(period)

    def _take(self, entry: LedgerEntry) -> None:
        client = entry.client_id
        self._balance[client] += entry.amount
        self._entries[client] += 1
        if entry.seq != self._entries[client] or entry.balance_after != self._balance[client]:
            self._wrong(f"1: ledger row {entry.reference} does not follow the one before it")
        if entry.kind is LedgerKind.CHARGE:
            id = entry.call_id or ""
            if id in self._charges:
                self._wrong(f"4: {id} was charged twice")
            if entry.amount > 0:
                self._wrong(f"4: the charge of {id} is a gift")
            self._charges[id] = -entry.amount

    def _count(self, call: OpenCall, sign: int) -> None:
        self._held[call.client_id] += sign * call.reserved
        self._calls[call.client_id] += sign
        for key in _keys(call):
            self._levels[key] += sign
            if call.number != EMERGENCY:
                self._paying[key] += sign
        if call.number != EMERGENCY:
            self._paying[f"client:{call.client_id}:orig"] += sign
        for period in call.periods:
            self._reserved_of[call.client_id, period] += sign * call.reserved

    def _spend(self, call: OpenCall) -> None:
        for period in call.periods:
            self._spent_of[call.client_id, period] += self._charges.get(call.call_id, 0)

    def _check_call(self, id: str) -> None:
        cdr = self._store.cdrs[id]
        is_open = cdr.status in ("open", "answered")
        if is_open != (id in self._store.open):
            self._wrong(f"5: {id} is {cdr.status}, its reservation says otherwise")
        if (id in self._charges) != (cdr.status == "completed"):
            self._wrong(f"4: {id} is {cdr.status}, its charge says otherwise")
        price = cdr.price or 0
        if cdr.status == "completed" and self._charges.get(id) != price:
            self._wrong(f"4: {id} costs {price}, its charge says otherwise")
        if price > cdr.reserved:
            self._wrong(f"4: {id} costs {price}, reserved were {cdr.reserved}")

    def _check_client(self, id: int) -> None:
        client = self._store.clients[id]
        if (client.balance, client.ledger_seq) != (self._balance[id], self._entries[id]):
            self._wrong(f"1: client {id} has {client.balance}, its ledger says otherwise")
        if client.reserved != self._held[id] or client.active_calls != self._calls[id]:
            self._wrong(f"2: client {id} has {client.reserved} reserved, held {self._held[id]}")
        free = client.balance + (client.credit_limit or 0) - client.reserved
        if self._world.person(id).prepaid and free < 0:
            self._wrong(f"3: prepaid client {id} is {-free} below")
        self._check_room(f"client:{id}:orig")

    def _check_levels(self, keys: set[str], changes: Changes) -> None:
        counters = {level.key: calls for level, calls in self._store.uses.items()}
        for key in sorted(keys | {level.key for level in changes.uses}):
            if counters.get(key, 0) != self._levels[key]:
                self._wrong(f"2: counter {key} is {counters.get(key, 0)}, not {self._levels[key]}")
            self._check_room(key)

    def _check_room(self, key: str) -> None:
        most = self._world.capacities.get(key)
        if most is not None and self._paying[key] > most:
            self._wrong(f"capacity: {key} has {self._paying[key]} calls, room for {most}")

    def _check_period(self, period: Period) -> None:
        usage = self._store.usages.get(period)
        counted = (self._spent_of[period], self._reserved_of[period])
        if usage is None or (usage.spent, usage.reserved) != counted:
            self._wrong(f"quota: {period} is {usage}, counted {counted}")
        person = self._world.person(period[0])
        most = person.monthly_quota if len(period[1]) == len("2026-11") else person.daily_quota
        if most is not None and sum(counted) > most:
            self._wrong(f"quota: {period} has used {sum(counted)} of {most}")


def _keys(call: OpenCall) -> Iterator[str]:
    """The counters of capacity that a call is part of."""
    return _occupied(call.occupancy)


def _occupied(place: Occupancy) -> Iterator[str]:
    for scope, id, way in (
        ("reseller", place.reseller_id, "orig"),
        ("account", place.account_id, "orig"),
        ("route", place.route_id, "term"),
        ("account", place.term_account_id, "term"),
        ("client", place.term_client_id, "term"),
        ("reseller", place.term_reseller_id, "term"),
    ):
        if id is not None:
            yield f"{scope}:{id}:{way}"
