"""A million rates, a hundred thousand clients and accounts: how long an import takes, how soon it
is in force, what calls notice of it, what it costs in memory, and how long it takes to look up a
rate and to recognise an account among so many.

Each database has a server of its own that answers calls all the while, one after the other. The
price of the number that they dial changes with the deck: so the calls themselves say when it is in
force.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from astcredit.asterisk.simulator import SimulatedChannel, SimulationError
from astcredit.domain.calls import Origin
from astcredit.domain.catalog import Catalog
from astcredit.domain.ratetable import RateTable
from astcredit.storage.catalog import SqlCatalog, load_rates
from astcredit.storage.database import open_database
from astcredit.storage.rate_rows import RateRows
from support.databases import MariaDb
from support.server import COMMAND, RunningServer, astcredit, environment, serving

RATES = 1_000_000
QUICK_RATES = 30_000
CLIENTS = 100_000
QUICK_CLIENTS = 3_000
ACCOUNTS_A_CLIENT = 10
CLIENTS_AT_ONCE = 1_000
NUMBER = "442071234567"
"""What the calls dial; 442 is in every deck, at that deck's price."""
BETWEEN_CALLS = 0.005
"""Seconds between the end of one call's authorization and the next."""
ACCEPTED_MS = 50
QUIET_SECONDS, QUICK_QUIET_SECONDS = 5.0, 1.0
"""Calls alone, for comparison."""
LATEST = 600.0
"""Seconds after which a deck that is not in force never will be."""
LOOKUPS = 200_000
NOW_MS = 1_900_000_000_000
SEED = 6

Row = tuple[str, str]


@dataclass(slots=True)
class Answers:
    """What calls were told: when each was asked, milliseconds, status, rate."""

    found: list[tuple[float, float, str, str]] = field(default_factory=list)

    def worst(self, begin: float, end: float) -> str:
        """The longest wait in a span, and how many were not answered in time."""
        span = [each for each in self.found if begin <= each[0] < end]
        if not span:
            return "no calls"
        failed = sum(status == "ERROR" for _, _, status, _ in span)
        waits = [took for _, took, _, _ in span]
        over = sum(took > ACCEPTED_MS for took in waits)
        text = f"{max(waits):.0f} ms; {over} of {len(span)} calls above {ACCEPTED_MS} ms"
        return text + (f", {failed} failed" if failed else "")


def write_deck(path: Path, rates: int, price: str) -> None:
    """A deck in no order, with names, tariffs and instants as carriers have them."""
    draw = random.Random(SEED)
    prefixes = {"442"}
    while len(prefixes) < rates:
        country, rest = draw.randrange(1, 1000), draw.randrange(10**6)
        prefixes.add(f"{country}{rest:0{draw.randrange(2, 8)}}")
    shuffled = sorted(prefixes)
    draw.shuffle(shuffled)
    with path.open("w") as file:
        file.write(
            "prefix,destination,rate_per_minute,first_increment,next_increment,effective_from\n"
        )
        for prefix in shuffled:
            cost = price if prefix == "442" else f"{draw.randrange(1, 30_000) / 10_000:.4f}"
            increments = draw.choice(("1,1", "60,60", "30,6"))
            begin = draw.choice(("2020-01-01", "2021-06-01")) if prefix != "442" else "2020-01-01"
            file.write(f"{prefix},Destination {prefix[:4]},{cost},{increments},{begin}\n")


def prepare(url: str, folder: Path) -> None:
    """A client with money and a small deck, in which the number is known."""
    deck = folder / "small.csv"
    deck.write_text("prefix,rate_per_minute,effective_from\n442,0.5,2019-01-01\n")
    astcredit(url, "init")
    astcredit(url, "rate-table", "add", "retail")
    astcredit(url, "rates", "import", "retail", str(deck))
    astcredit(url, "client", "add", "acme", "--rate-table", "retail")
    astcredit(url, "account", "add", "acme", "acme", "--ident-by", "name", "--ident", "acme")
    astcredit(url, "topup", "acme", "1000000")


async def fill(url: str, clients: int) -> None:
    """Further clients without money, each with an account: too many for the command line."""
    database = open_database(url)
    columns = ("name", "kind", "currency", "rate_table_id", "date_created")
    rows = [(f"client{n}", "postpaid", "EUR", 1, "2026-01-01") for n in range(clients)]
    async with database.transaction(seconds=None) as connection:
        for start in range(0, clients, CLIENTS_AT_ONCE):
            part = rows[start : start + CLIENTS_AT_ONCE]
            await connection.exec_driver_sql(
                database.dialect.insert_many("astclient", columns, len(part)),
                tuple(value for row in part for value in row),
            )
        await connection.exec_driver_sql(
            "INSERT INTO astaccount (client_id, name, ident_by, ident, notes, date_created)"
            " SELECT id, name, 'name', name, '', '2026-01-01' FROM astclient WHERE name <> 'acme'"
        )
        await connection.exec_driver_sql("UPDATE astcatalog SET version = version + 1")
    await database.close()


async def calls(server: RunningServer, answers: Answers, done: asyncio.Event) -> None:
    """Make one call after the other; each is given up as soon as it has its answer."""
    for number in count():
        if done.is_set():
            return
        channel = SimulatedChannel(
            "127.0.0.1", server.port, f"scale-{time.time_ns()}-{number}", "acme", NUMBER
        )
        began = time.monotonic()
        try:
            await channel.run("authorize")
            status = channel.variables.get("AC_STATUS", "ERROR")
        except SimulationError:
            status = "ERROR"
        took = (time.monotonic() - began) * 1000
        answers.found.append((began, took, status, channel.variables.get("AC_RATE", "")))
        if status == "ALLOWED":
            channel.variables |= {"DIALSTATUS": "BUSY", "HANGUPCAUSE": "17"}
            await channel.run("hangup")
        await asyncio.sleep(BETWEEN_CALLS)


async def in_force(answers: Answers, price: str) -> float:
    """The instant at which the first call that is told this price was asked."""
    end = time.monotonic() + LATEST
    while time.monotonic() < end:
        for began, _, _, rate in reversed(answers.found[-20:]):
            if rate and float(rate) == float(price):
                return began
        await asyncio.sleep(BETWEEN_CALLS)
    raise AssertionError(f"the price {price} is not in force after {LATEST} s")


def rss_mb(pid: int) -> float:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def import_deck(url: str, deck: Path, *options: str) -> tuple[float, float, float, float]:
    """Seconds of an import by the command line, of its CPU time, and when it began and ended."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    await command(url, "rates", "import", "retail", str(deck), *options)
    ended = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended - began, cpu, began, ended


async def command(url: str, *arguments: str) -> None:
    """Run the command line beside everything else."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment(url), stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def import_beside_calls(
    url: str, server: RunningServer, folder: Path, rates: int, title: str, quiet_seconds: float
) -> list[Row]:
    """Import a deck and then the next one in its place, while calls are answered."""
    rows: list[Row] = []
    answers, done = Answers(), asyncio.Event()
    calling = asyncio.create_task(calls(server, answers, done))
    began = time.monotonic()
    await asyncio.sleep(quiet_seconds)
    quiet = answers.worst(began, time.monotonic())
    rows.append((f"{title}: longest authorization before", quiet))
    for what, price, options in (("import", "0.25", ()), ("replace", "0.125", ("--replace",))):
        deck = folder / "deck.csv"
        write_deck(deck, rates, price)
        memory = rss_mb(server.process.pid)
        seconds, cpu, began, ended = await import_deck(url, deck, *options)
        ready = await in_force(answers, price)
        rows += [
            (f"{title}: {what}, seconds (of its own CPU)", f"{seconds:.1f} ({cpu:.1f})"),
            (f"{title}: {what}, in force after its end, seconds", f"{max(0, ready - ended):.1f}"),
            (f"{title}: longest authorization during the {what}", answers.worst(began, ended)),
            (
                f"{title}: longest authorization from its end until in force",
                answers.worst(ended, max(ready, ended + 0.1)),
            ),
            (
                f"{title}: server's memory before and after, MB",
                f"{memory:.0f}, {rss_mb(server.process.pid):.0f}",
            ),
        ]
    done.set()
    await calling
    return rows


async def accounts_beside_calls(
    url: str, server: RunningServer, folder: Path, accounts: int, title: str
) -> list[Row]:
    """Import accounts of the client that calls, while calls are answered."""
    answers, done = Answers(), asyncio.Event()
    calling = asyncio.create_task(calls(server, answers, done))
    file = folder / "accounts.csv"
    lines = (f"acme,new{number},name,new{number}\n" for number in range(accounts))
    file.write_text("client,name,ident_by,ident\n" + "".join(lines))
    began = time.monotonic()
    await command(url, "account", "import", str(file))
    ended = time.monotonic()
    last = f"new{accounts - 1}"
    while await asked(server, last) == "NOACCOUNT":  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(BETWEEN_CALLS)
    ready = time.monotonic()
    done.set()
    await calling
    what = f"{title}: import of {accounts} accounts"
    return [
        (f"{what}, seconds", f"{ended - began:.1f}"),
        (f"{what}, in force after its end, seconds", f"{ready - ended:.1f}"),
        (f"{what}, longest authorization during it", answers.worst(began, ended)),
        (f"{what}, from its end until in force", answers.worst(ended, max(ready, ended + 0.1))),
    ]


async def asked(server: RunningServer, accountcode: str) -> str:
    """What one call is told; it is given up at once."""
    channel = SimulatedChannel(
        "127.0.0.1", server.port, f"asked-{time.time_ns()}", accountcode, NUMBER
    )
    await channel.run("authorize")
    status = channel.variables.get("AC_STATUS", "ERROR")
    if status == "ALLOWED":
        channel.variables |= {"DIALSTATUS": "BUSY", "HANGUPCAUSE": "17"}
        await channel.run("hangup")
    return status


async def in_memory(url: str) -> list[Row]:
    """What it takes to load a table, and how long a look-up takes, in CPU time."""
    database = open_database(url)
    began = time.process_time()
    async with database.reading(seconds=None) as connection:
        index = await load_rates(RateRows(connection, database.dialect, 1))
    took = time.process_time() - began
    await database.close()
    table = RateTable.of(1, "retail", "EUR", 1, index)
    return [
        (f"table of {len(table)} rates: CPU seconds to load", f"{took:.1f}"),
        ("look-up of a number never asked for before, µs", f"{lookup_us(table, LOOKUPS):.1f}"),
        ("look-up of one of a thousand numbers, µs", f"{lookup_us(table, 1_000):.1f}"),
    ]


def lookup_us(table: RateTable, different: int) -> float:
    """Microseconds of CPU time for a number of fifteen digits."""
    draw = random.Random(SEED)
    numbers = [f"{draw.randrange(10**14, 10**15)}" for _ in range(different)]
    numbers *= LOOKUPS // different
    began = time.process_time()
    for number in numbers:
        table.lookup(number, NOW_MS)
    return (time.process_time() - began) / len(numbers) * 1e6


async def many_clients(url: str, clients: int) -> list[Row]:
    """What a start with many clients takes."""
    await fill(url, clients)
    database = open_database(url)
    await _drop_rates(url)
    before, began = rss_mb(os.getpid()), time.process_time()
    catalog = SqlCatalog(database, inline_rates=0)
    await catalog.at_least(1)
    took, memory = time.process_time() - began, rss_mb(os.getpid()) - before
    await catalog.close()
    await database.close()
    return [
        (f"{clients} clients with an account each: CPU seconds to load", f"{took:.1f}"),
        (f"{clients} clients with an account each: memory, MB", f"{memory:.0f}"),
    ]


Account = tuple[str, str, str]
"""By what an account is recognised: kind, ident and tech prefix."""


def accounts_of_many_kinds(accounts: int) -> list[Account]:
    """A tenth are networks, of both protocols and many lengths; a fifth single addresses; a fifth
    beginnings of callers' numbers; a tenth share addresses and are told apart by tech prefixes; all
    others have names."""
    tenth = accounts // 10
    v6 = "2001:db8:{:x}:{:x}::/{}".format
    others = accounts - 5 * tenth - tenth // 4 * 2 - tenth // 2
    return [
        *(("ip", f"10.{n // 256}.{n % 256}.0/{24 + n % 2}", "") for n in range(tenth // 2)),
        *(("ip", v6(n // 65_536, n % 65_536, 64), "") for n in range(tenth // 4)),
        *(("ip", v6(n, 0, 48), "") for n in range(60_000, 60_000 + tenth // 4)),
        *(("ip", f"172.{n // 65_536}.{n // 256 % 256}.{n % 256}", "") for n in range(tenth)),
        *(("ip", f"2001:db8:ffff::{n:x}", "") for n in range(tenth)),
        *(("ani", f"{44_000_000 + n}*", "") for n in range(tenth)),
        *(("ani", f"4420{7_000_000 + n}", "") for n in range(tenth)),
        *(("ip", f"192.168.{n // 2_560}.{n // 10 % 256}", f"77{n % 10}") for n in range(tenth)),
        *(("name", f"trunk-{n}", "") for n in range(others)),
    ]  # fmt: skip


async def fill_accounts(url: str, accounts: Sequence[Account]) -> None:
    """Clients without money, with so many accounts each, of all kinds."""
    clients = len(accounts) // ACCOUNTS_A_CLIENT
    await fill(url, clients)
    database = open_database(url)
    columns = ("client_id", "name", "ident_by", "ident", "tech_prefix", "notes", "date_created")
    rows = [
        (2 + n % clients, f"account{n}", *account, "", "2026-01-01")
        for n, account in enumerate(accounts)
    ]
    async with database.transaction(seconds=None) as connection:
        await connection.exec_driver_sql("DELETE FROM astaccount WHERE name <> 'acme'")
        for start in range(0, len(rows), CLIENTS_AT_ONCE):
            part = rows[start : start + CLIENTS_AT_ONCE]
            await connection.exec_driver_sql(
                database.dialect.insert_many("astaccount", columns, len(part)),
                tuple(value for row in part for value in row),
            )
    await database.close()


async def many_accounts(url: str, accounts: int, title: str) -> list[Row]:
    """What a start with many accounts takes, and to recognise one of them."""
    await fill_accounts(url, accounts_of_many_kinds(accounts))
    await _drop_rates(url)
    database = open_database(url)
    catalog = SqlCatalog(database, inline_rates=0)
    began, elapsed = time.process_time(), time.monotonic()
    loaded = await catalog.at_least(1)
    took, elapsed = time.process_time() - began, time.monotonic() - elapsed
    await catalog.close()
    await database.close()
    what = f"{title}: {len(loaded.accounts)} accounts of {len(loaded.clients)} clients"
    rows = [(f"{what}: seconds of CPU (and in all) to load", f"{took:.2f} ({elapsed:.2f})")]
    if title == "MariaDB":
        rows += identification(loaded, accounts // 10)
    return rows


def identification(catalog: Catalog, different: int) -> list[Row]:
    """Microseconds to recognise an account, from origins that were not seen before and from ones
    that were."""
    every = range(different)
    origins = {
        "a name": [Origin("pbx", accountcode=f"trunk-{n}") for n in every],
        "the name in the script": [Origin("pbx", f"account{n}") for n in every],
        "an IPv4 address": [Origin("pbx", source=_ipv4(n)) for n in every],
        "an IPv6 address": [Origin("pbx", source=f"[2001:db8:ffff::{n:x}]:5060") for n in every],
        "an IPv6 network": [Origin("pbx", source=f"[2001:db8:0:{n:x}::1]:5060") for n in every],
        "a tech prefix": [Origin("pbx", source=f"{_shared(n)}:5060") for n in every],
        "a caller's number": [_known_by_nothing_else(n, f"4420{7_000_000 + n}") for n in every],
        "its beginning": [_known_by_nothing_else(n, f"{44_000_000 + n}123") for n in every],
        "nothing: nobody's call": [_known_by_nothing_else(n, "33123456789") for n in every],
    }
    rows = []
    for what, found in origins.items():
        number = "77344207123" if what == "a tech prefix" else "442071234567"
        nobody = what.startswith("nothing")
        assert all((catalog.identify(o, number) is None) is nobody for o in found[:50]), what
        first = _us(catalog, number, found)
        again = _us(catalog, number, found[-1_000:] * 5)
        rows.append((f"recognised by {what}, µs (seen before)", f"{first:.1f} ({again:.1f})"))
    return rows


def _ipv4(number: int) -> str:
    return f"172.{number // 65_536}.{number // 256 % 256}.{number % 256}:5060"


def _shared(number: int) -> str:
    return f"192.168.{number // 2_560}.{number // 10 % 256}"


def _known_by_nothing_else(number: int, callerid: str) -> Origin:
    """A call that is looked for by everything else first."""
    source = f"203.0.{number // 256 % 256}.{number % 256}:{1024 + number // 65_536}"
    return Origin("pbx", "", "nobody", "nobody", source, f"+{callerid}")


def _us(catalog: Catalog, number: str, origins: list[Origin]) -> float:
    """Microseconds of CPU time that each takes."""
    began = time.process_time()
    for origin in origins:
        catalog.identify(origin, number)
    return (time.process_time() - began) / len(origins) * 1e6


async def _drop_rates(url: str) -> None:
    """Have the clients alone measured."""
    database = open_database(url)
    async with database.transaction(seconds=None) as connection:
        await connection.exec_driver_sql("UPDATE astratetable SET enabled = 0")
    await database.close()


@contextmanager
def databases(folder: Path) -> Iterator[Iterator[tuple[str, str]]]:
    """Name and address of an empty database of each kind."""
    mariadb = MariaDb()
    try:
        mariadb.start()
        mariadb.execute("SET GLOBAL innodb_buffer_pool_size = 1073741824")
        yield iter(
            [
                ("MariaDB", mariadb.url(mariadb.create_database())),
                ("SQLite", f"sqlite:///{folder / 'scale.db'}"),
            ]
        )
    finally:
        mariadb.stop()


async def run(quick: bool) -> list[Row]:
    """Measure; what, and the figure."""
    rates, clients = (QUICK_RATES, QUICK_CLIENTS) if quick else (RATES, CLIENTS)
    still = QUICK_QUIET_SECONDS if quick else QUIET_SECONDS
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, databases(Path(name)) as found:
        folder = Path(name)
        for title, url in found:
            await asyncio.to_thread(prepare, url, folder)  # it has an event loop of its own
            with serving(url, folder, log_level="warning") as server:
                rows += await accounts_beside_calls(url, server, folder, clients, title)
                rows += await import_beside_calls(url, server, folder, rates, title, still)
            if title == "MariaDB":
                rows += await in_memory(url)
                rows += await many_clients(url, clients)
        others = folder / "accounts"
        others.mkdir()
        with databases(others) as empty:
            for title, url in empty:
                await asyncio.to_thread(prepare, url, folder)
                rows += await many_accounts(url, clients, title)
    return rows


def main(argv: list[str]) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a thirtieth of it")
    for what, figure in asyncio.run(run(parser.parse_args(argv).quick)):
        print(f"{what:70} {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
