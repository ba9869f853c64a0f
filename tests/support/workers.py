"""`astcredit serve --workers N` beside a fake Asterisk, for tests of a server of several processes.

async with FakeAmi() as ami, team(url, folder, 2, ami) as it:
    await it.healthy(1)                      # worker 1 says that the link to pbx1 is up
    (call,) = await it.authorized("1000.1")
    it.answer(call); it.hang_up(call)
"""

from __future__ import annotations

import asyncio
import re
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from astcredit.asterisk.simulator import SimulatedChannel, SimulationError
from astcredit.storage.database import open_database
from astcredit.storage.inspection import rows_of_call
from astcredit.storage.tables import astcdr
from support.fake_ami import FakeAmi
from support.leg_events import begin, end, hangup
from support.ports import free_port
from support.project import ROOT
from support.server import COMMAND, astcredit, environment

NUMBER = "00442071234567"
DECK = "prefix,rate_per_minute,first_increment,next_increment\n44,1.00,60,60\n"
NODE = "pbx1"

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that another process does."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(POLL_SECONDS)


def prepare(database_url: str, folder: Path, balance: str = "10000") -> None:
    """One prepaid client; a minute costs 1.00, in whole minutes."""
    deck = folder / "deck.csv"
    deck.write_text(DECK)
    for command in (
        ("init",),
        ("rate-table", "add", "retail"),
        ("rates", "import", "retail", str(deck)),
        ("client", "add", "acme", "--rate-table", "retail"),
        ("account", "add", "acme", "pbx", "--ident-by", "name", "--ident", "pbx"),
        ("topup", "acme", balance),
    ):
        astcredit(database_url, *command)


@dataclass(slots=True)
class Team:
    """A server of several processes, and the Asterisk server that asks it."""

    process: asyncio.subprocess.Process
    port: int
    metrics_port: int
    log: Path
    database_url: str
    ami: FakeAmi | None

    def pids(self) -> list[int]:
        """The workers' process ids."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    async def are(self, workers: int, without: int) -> None:
        """Until there are so many workers, and one process is none of them (any more)."""

        async def there() -> bool:
            pids = self.pids()
            return len(pids) == workers and without not in pids

        await until(there)

    def pid_of(self, worker: int) -> int:
        """The process id of one worker: it listens on this metrics port."""
        listening = {pid: _listens(pid, self.metrics_port + worker) for pid in self.pids()}
        (pid,) = (pid for pid, listens in listening.items() if listens)
        return pid

    def answers(self, worker: int) -> bool:
        """Whether a worker listens on the FastAGI port."""
        return _listens(self.pid_of(worker), self.port)

    def health(self, worker: int) -> str:
        """What a worker says of itself; empty while it is not there."""
        try:
            url = f"http://127.0.0.1:{self.metrics_port + worker}/healthz"
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
                return cast(bytes, answer.read()).decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode().strip()
        except OSError:
            return ""

    async def says(self, worker: int, health: str) -> None:
        """Until a worker says so of its health."""

        async def said() -> bool:
            return await asyncio.to_thread(self.health, worker) == health

        await until(said)

    def logged(self, action: str) -> int:
        """How often that is in the log."""
        return len(re.findall(rf" action={action}\b", self.log.read_text()))

    async def ask(self, script: str, *calls: SimulatedChannel) -> None:
        """Run a script on all channels at once. Whose worker dies under it gets no answer, as a
        dialplan would not."""
        answers = await asyncio.gather(
            *(call.run(script) for call in calls), return_exceptions=True
        )
        for answer in answers:
            assert answer is None or isinstance(answer, SimulationError), answer

    async def authorized(self, *uniqueids: str) -> list[SimulatedChannel]:
        """New calls of which the dialplan has asked."""
        calls = [SimulatedChannel("127.0.0.1", self.port, u, "pbx", NUMBER) for u in uniqueids]
        await self.ask("authorize", *calls)
        return calls

    def answer(self, call: SimulatedChannel) -> None:
        """Asterisk tells that the call's outbound leg was answered."""
        assert self.ami is not None
        caller, leg, call_id = call.uniqueid, leg_of(call), call.variables["AC_CALL"]
        self.ami.event(cast(dict[str, str], begin(caller, leg, call=call_id)))
        self.ami.event(cast(dict[str, str], end(caller, leg, call=call_id)))

    def hang_up(self, call: SimulatedChannel) -> None:
        """Asterisk tells that leg and caller were hung up."""
        assert self.ami is not None
        for uniqueid in (leg_of(call), call.uniqueid):
            self.ami.event(cast(dict[str, str], hangup(uniqueid)))

    async def cdr(self, call: SimulatedChannel) -> dict[str, Any]:
        """What is on record of a call."""
        database = open_database(self.database_url)
        try:
            rows = await rows_of_call(database, call.variables["AC_CALL"])
            return dict(rows[astcdr])
        finally:
            await database.close()

    async def has(self, status: str, *calls: SimulatedChannel) -> None:
        """Until that is on record of each of the calls."""

        async def recorded() -> bool:
            return all([(await self.cdr(call))["status"] == status for call in calls])

        await until(recorded)


def leg_of(call: SimulatedChannel) -> str:
    """The unique id of a call's outbound leg."""
    return f"L{call.uniqueid}"


@asynccontextmanager
async def team(
    database_url: str, folder: Path, workers: int, ami: FakeAmi | None = None, **settings: str
) -> AsyncIterator[Team]:
    """A server of so many processes that answers; ended at the end of the block."""
    port, metrics_port = free_port(), free_port(workers)
    given = {
        "fastagi_listen": f"127.0.0.1:{port}",
        "metrics_listen": f"127.0.0.1:{metrics_port}",
        "ami_nodes": f"ami://astcredit:s3cr3t@127.0.0.1:{ami.port}/{NODE}" if ami else "",
    }
    log = folder / f"team-{port}.log"
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            "serve",
            "--workers",
            str(workers),
            env=environment(database_url, **given, **settings),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    it = Team(process, port, metrics_port, log, database_url, ami)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.stdout.readline(), f"not started:\n{log.read_text()}"
        yield it
    finally:
        await _ended(it)


async def _ended(it: Team) -> None:
    """End the supervisor, and see that it leaves nobody behind."""
    if it.process.returncode is None:
        pids = it.pids()
        it.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await it.process.wait() == 0, it.log.read_text()
        assert not any(lives(pid) for pid in pids)


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _listens(pid: int, port: int) -> bool:
    """Whether a process has the socket that listens on a TCP port of the loopback."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{f[9]}]" for f in lines if f[1].endswith(f":{port:04X}") and f[3] == "0A"}
    fds = Path(f"/proc/{pid}/fd")
    return any(str(fd.readlink()) in inodes for fd in fds.iterdir() if fd.is_symlink())


async def gone(pids: Sequence[int]) -> None:
    """Until none of the processes lives."""

    async def dead() -> bool:
        return not any(lives(pid) for pid in pids)

    await until(dead)
