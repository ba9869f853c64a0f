"""A database to measure on: clients, accounts, rates and money, as an import would have made them.

A thousand clients by the command line would take longer than the run. What is written here obeys
the same rules: the money is there by ledger rows, and the catalog's version is raised.
"""

from __future__ import annotations

from pathlib import Path

import pymysql

from support.server import astcredit

MONEY = 1_000_000
"""What each client has, in whole units: more than any run spends."""
POOR = "poor"
FULL_CALL = "1.08"
"""What is reserved for a call: an hour at 0.018 a minute."""
POOR_CALLS = 5
"""The poor client's money is enough for so many calls at once and not one more."""
_RATE = "44,0.018,30,6"

_CLIENTS = """
INSERT INTO astclient (name, kind, currency, balance, credit_limit, ledger_seq, rate_table_id,
  date_created)
SELECT CONCAT(%s, seq), 'prepaid', 'EUR', %s, 0, 1, 1, UTC_TIMESTAMP(3) FROM seq_0_to_{last}
"""
_ACCOUNTS = """
INSERT INTO astaccount (client_id, name, ident_by, ident, notes, date_created)
SELECT id, name, 'name', name, '', UTC_TIMESTAMP(3) FROM astclient ORDER BY id
"""
_LEDGER = """
INSERT INTO astledger (client_id, seq, kind, amount, balance_after, reference, actor, date_created)
SELECT id, 1, 'topup', balance, balance, CONCAT('bench-', id), 'bench', UTC_TIMESTAMP(3)
FROM astclient ORDER BY id
"""
# A change by hand: version alone, so that servers read everything.
_CHANGED = "UPDATE astcatalog SET version = version + 1"


_OLD_CALLS = """
INSERT INTO astcdr (id, node, uniqueid, linkedid, leg_uniqueid, channel, client_id, account_id,
  accountcode, callerid, dialednum, callednum, prefix, destination, currency, rate, connect_fee,
  first_increment, next_increment, grace_seconds, minimum_charge, trunk, status, dialstatus,
  hangupcause, date_created, dialed_at, answered_at, ended_at, dialedtime, answeredtime, seconds,
  billsec, price, reservedamount, overrun_ms, settled_by, ani, source, ident_by, quota_month,
  quota_day)
SELECT CONCAT('0', LPAD(s.seq, 10, '0'), LPAD(c.id, 9, '0')), 'bench', CONCAT('1.', s.seq),
  CONCAT('1.', s.seq), CONCAT('2.', s.seq), CONCAT('PJSIP/', c.name), c.id, c.id, c.name,
  '4930123456', '442071230001', '442071230001', '44', '', 'EUR', 0.018, 0, 30, 6, 0, 0,
  'PJSIP/carrier', 'completed', 'ANSWER', 16, {at}, {at}, {at}, {at} + INTERVAL 60 SECOND, 60, 60,
  3600, 60, 0.018, 1.08, 0, 'ami', '4930123456', '192.0.2.7:5060', 'name',
  DATE_FORMAT({at}, '%Y-%m'), DATE_FORMAT({at}, '%Y-%m-%d')
FROM seq_{first}_to_{last} s JOIN astclient c ON c.name LIKE 'client%' ORDER BY s.seq, c.id
"""
_OLD_INSTANT = "UTC_TIMESTAMP(3) - INTERVAL 60 DAY + INTERVAL s.seq * {apart} SECOND"
_OLD_CHARGES = """
INSERT INTO astledger (client_id, seq, kind, amount, balance_after, call_id, reference, actor,
  date_created)
SELECT client_id, 1 + seq, 'charge', -0.018, {money} - 0.018 * seq, id, CONCAT('call:', id), 'ami',
  ended_at
FROM (
  SELECT id, client_id, ended_at, CAST(SUBSTR(id, 2, 10) AS UNSIGNED) AS seq FROM astcdr
  WHERE id BETWEEN '{from_id}' AND '{to_id}'
) c ORDER BY id
"""
_OLD_BALANCES = """
UPDATE astclient SET balance = balance - 0.018 * {calls}, ledger_seq = 1 + {calls}
WHERE name LIKE 'client%'
"""
_PIECE = 100
"""Calls of each client in one transaction."""


def add_history(connection: pymysql.Connection, calls: int, clients: int) -> None:
    """Finished calls of the last sixty days, with their charges, of all clients in turn. Closes
    the connection."""
    each = calls // clients
    at = _OLD_INSTANT.format(apart=60 * 86_400 // (each + 1))
    with connection, connection.cursor() as cursor:
        for first in range(1, each + 1, _PIECE):
            last = min(each, first + _PIECE - 1)
            cursor.execute(_OLD_CALLS.format(at=at, first=first, last=last))
            ids = {"from_id": f"0{first:010d}", "to_id": f"0{last:010d}999999999"}
            cursor.execute(_OLD_CHARGES.format(money=MONEY, **ids))
        cursor.execute(_OLD_BALANCES.format(calls=each))


def fill(url: str, connection: pymysql.Connection, clients: int, folder: Path) -> None:
    """Make the tables, client0 … and poor0, each with an account of its name. Closes the
    connection."""
    deck = folder / "deck.csv"
    deck.write_text(f"prefix,rate_per_minute,first_increment,next_increment\n{_RATE}\n")
    astcredit(url, "init")
    astcredit(url, "rate-table", "add", "retail")
    astcredit(url, "rates", "import", "retail", str(deck))
    with connection, connection.cursor() as cursor:
        cursor.execute(_CLIENTS.format(last=clients - 1), ("client", MONEY))
        enough = f"{POOR_CALLS} * {FULL_CALL}"
        cursor.execute(_CLIENTS.replace("%s, 0, 1", f"{enough}, 0, 1").format(last=0), (POOR,))
        for statement in (_ACCOUNTS, _LEDGER, _CHANGED):
            cursor.execute(statement)
