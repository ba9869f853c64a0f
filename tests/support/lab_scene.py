"""Real calls on the stage: sipp → Asterisk → astcredit on MariaDB → sipp, and a look at the books.

One database and one server serve all tests of a session; each test has customers of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from support.asterisk_cdr import AsteriskCdr
from support.databases import MariaDb
from support.lab import Lab, wait_until
from support.server import RunningServer, astcredit, serving

Row: TypeAlias = dict[str, Any]

# What customers pay: a cent a second. What terminators charge: half of it, a fifth of it.
CENT_A_SECOND = "prefix,rate_per_minute,destination\n44,0.60,United Kingdom\n"
DECKS = {
    "retail": CENT_A_SECOND,
    "dear": CENT_A_SECOND.replace("0.60", "0.30"),
    "cheap": CENT_A_SECOND.replace("0.60", "0.12"),
}
SETTLE_SECONDS = 20.0
ANSWER_SECONDS = 20.0
# A record is written a moment after its channel is gone.
RECORD_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A real Asterisk, a server that listens to it, and a database."""

    lab: Lab
    server: RunningServer
    mariadb: MariaDb
    url: str

    # ---- setting up

    def cli(self, *arguments: str) -> str:
        """What one command of the command line prints; AssertionError if it fails."""
        return astcredit(self.url, *arguments).stdout

    def customer(self, name: str, *options: str, balance: str = "1000") -> str:
        """A client with money, and an account of the same name with these options; the name."""
        self.cli("client", "add", name, "--rate-table", "retail")
        self.cli("topup", name, balance)
        self.cli("account", "add", name, name, *options)
        return name

    def terminator(self, name: str, *options: str, rates: str = "dear") -> str:
        """A client and its account that takes calls at the rates of that table; the name."""
        self.cli("client", "add", name)
        idents = ("--ident-by", "name", "--ident", name)
        self.cli("account", "add", name, name, *idents, "--term-rate-table", rates, *options)
        return name

    # ---- looking

    def query(self, statement: str, *values: object) -> list[Row]:
        """The rows that one SQL statement finds."""
        connection = self.mariadb.connect(self.url.rpartition("/")[2])
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            connection.close()

    def rows(self, table: str, account: str) -> list[Row]:
        """A table's rows of one account, oldest first."""
        order = "id" if table == "astcdr" else "call_id"
        return self.query(
            f"SELECT t.* FROM {table} t JOIN astaccount a ON a.id = t.account_id "
            f"WHERE a.name = %s ORDER BY t.{order}",
            account,
        )

    def id_of(self, account: str) -> int:
        """The account's id."""
        return int(self.query("SELECT id FROM astaccount WHERE name = %s", account)[0]["id"])

    def uses(self) -> dict[str, int]:
        """The counters of capacity that are not zero."""
        return {
            row["id"]: row["calls"]
            for row in self.query("SELECT id, calls FROM astcapacity WHERE calls <> 0")
        }

    def denied_from(self, address: str) -> list[Row]:
        """Refused calls that came from an address, whoever made them; oldest first."""
        statement = "SELECT * FROM astcdr WHERE source LIKE %s AND status = 'denied' ORDER BY id"
        return self.query(statement, f"{address}:%")

    def wait_answered(self, account: str, calls: int) -> list[Row]:
        """The account's CDRs of calls that are up, once there are so many."""

        def up() -> list[Row]:
            return [cdr for cdr in self.rows("astcdr", account) if cdr["status"] == "answered"]

        wait_until(lambda: len(up()) == calls, ANSWER_SECONDS, f"{calls} answered calls")
        return up()

    def wait_statuses(self, account: str, **calls: int) -> None:
        """Wait until the account has so many CDRs of each status, and no others."""
        expected = Counter(calls)

        def found() -> Counter[str]:
            return Counter(cdr["status"] for cdr in self.rows("astcdr", account))

        wait_until(lambda: found() == expected, ANSWER_SECONDS, str(calls), lambda: repr(found()))

    def settled(self, account: str, calls: int, *, transferred: bool = False) -> list[Row]:
        """The account's CDRs, once there are so many and none is open; the books agree with one
        another and with Asterisk's own records. (Those end with the calling channel, and so say
        too little of calls that were `transferred`, or went through Local channels.)"""
        self.lab.wait_idle()
        wait_until(
            lambda: (
                len(self.rows("astcdr", account)) == calls
                and not self.rows("astcreditres", account)
            ),
            SETTLE_SECONDS,
            f"{calls} settled calls",
            lambda: repr(self.rows("astcdr", account)),
        )
        self.cli("audit")
        cdrs = self.rows("astcdr", account)
        if not transferred:
            self.agrees_with_asterisk(cdrs)
        return cdrs

    def agrees_with_asterisk(self, cdrs: Sequence[Row]) -> None:
        """Asterisk recorded each attempt of these calls once, and as much talk, ±1 s."""
        wait_until(
            lambda: all(len(self._legs(cdr)) == attempts(cdr) for cdr in cdrs),
            RECORD_SECONDS,
            "Asterisk's records of these calls",
            lambda: "\n".join(f"{cdr}\n{self._legs(cdr)}" for cdr in cdrs),
        )
        for cdr in cdrs:
            talk_ms = int((cdr["answeredtime"] or 0) * 1000)
            recorded_ms = sum(leg.billsec_ms for leg in self._legs(cdr))
            assert abs(recorded_ms - talk_ms) <= 1000, (cdr, self._legs(cdr))

    def _legs(self, cdr: Row) -> list[AsteriskCdr]:
        """Asterisk's records of the calls to carriers. (What a channel does after a Dial that
        failed is another record, without a second leg.)"""
        return [
            record
            for record in self.lab.asterisk_cdrs()
            if record.dstchannel and record.uniqueid == cdr["uniqueid"]
        ]


def attempts(cdr: Row) -> int:
    """To how many carriers the call went."""
    if cdr["status"] == "denied":
        return 0
    return 1 + len(cdr["tried"].split("; ")) if cdr["tried"] else 1


def slug(request: pytest.FixtureRequest) -> str:
    """The test's name, as the name of a client."""
    return re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[-60:].strip("-")


@pytest.fixture(scope="session")
def controller(
    lab: Lab, mariadb: MariaDb, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The server that listens to the lab; a test takes `scene`."""
    name = mariadb.create_database()
    url = mariadb.url(name)
    folder = tmp_path_factory.mktemp("real-calls")
    astcredit(url, "init")
    for table, lines in DECKS.items():
        deck = folder / f"{table}.csv"
        deck.write_text(lines)
        astcredit(url, "rate-table", "add", table)
        astcredit(url, "rates", "import", table, str(deck))
    with serving(url, folder, ami_nodes=lab.ami.url) as server:
        wait_until(
            lambda: "action=ami_up" in server.log.read_text(),
            SETTLE_SECONDS,
            "the AMI link",
            server.log.read_text,
        )
        yield Scene(lab, server, mariadb, url)
    mariadb.drop_database(name)


@pytest.fixture(scope="module")
def scene(controller: Scene) -> Iterator[Scene]:
    """The lab asks the session's server while the module's tests run."""
    lab = controller.lab
    agi = f"agi://127.0.0.1:{controller.server.port}/"
    with lab.globals(AC_AGI=agi, AC_NODE=lab.ami.node):
        yield controller
