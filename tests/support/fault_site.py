"""A whole installation of which each part can be killed: Asterisk, server, MariaDB, connections.

    with FaultSite(folder, tree, mariadb) as site:
        site.kill_server(); site.start_server()
        site.ami.cut(); site.agi.freeze(); site.database.freeze()
        site.lab.crash(); site.start_asterisk()

Server and Asterisk reach each other, and the server its database, through gates on ports that stay
the same; whoever looks on from outside goes straight.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

from sqlalchemy import make_url

from support.databases import MariaDb
from support.lab import Lab, LabOptions, wait_until
from support.lab_scene import DECKS, Scene
from support.ports import keep_port
from support.project import ROOT
from support.server import COMMAND, STOP_SECONDS, RunningServer, astcredit, environment
from support.tcp_gate import TcpGate

NODE = "pbx"
RICH, POOR, CHOOSY = "rich", "poor", "choosy"
ACCOUNTS = (RICH, POOR, CHOOSY)
FORTUNE = "1000000"
FAILOVER, TERMINATORS = "failover", (("broken", "backup"), ("working", "carrier"))
HEALED_SECONDS = 60.0
"""Within this all must be in order again, whatever was broken."""


class FaultSite:
    """The installation: `lab`, `server`, `mariadb`, and the gates `ami`, `agi`, `database`.

    Three customers call from 127.0.0.1, 2 and 3: `rich` has money, `poor` has what a test gives it,
    the calls of `choosy` go to a terminator that is out of order (the lab's backup carrier) before
    they go to one that works.
    """

    def __init__(self, folder: Path, tree: Path, mariadb: MariaDb) -> None:
        self.folder = folder
        self.mariadb = mariadb
        self._server_port, self._metrics_port = keep_port(), keep_port()
        self._process: subprocess.Popen[str] | None = None
        self._stack = ExitStack()
        self._database_name = mariadb.create_database()
        self.url = mariadb.url(self._database_name)
        self.agi = TcpGate(self._server_port)
        self.database = TcpGate(mariadb.port)
        self._tree = tree

    def __enter__(self) -> FaultSite:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _build(self) -> None:
        stack = self._stack
        stack.callback(self.mariadb.drop_database, self._database_name)
        stack.enter_context(self.agi)
        stack.enter_context(self.database)
        agi = f"agi://127.0.0.1:{self.agi.port}/"
        options = LabOptions(accounts=ACCOUNTS, agi=agi, node=NODE)
        self.lab = stack.enter_context(Lab(self.folder / "lab", options=options, tree=self._tree))
        self.ami = stack.enter_context(TcpGate(self.lab.ports.ami))
        stack.callback(self.stop_server)
        self._furnish()
        self.start_server()
        self.wait_healthy()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- the server

    def start_server(self) -> None:
        """Start it and wait until it serves."""
        through = make_url(self.url).set(port=self.database.port)
        ami = replace(self.lab.ami, port=self.ami.port)
        log = self.log.open("a")
        self._process = subprocess.Popen(
            [*COMMAND, "serve"],
            env=environment(
                through.render_as_string(hide_password=False),
                fastagi_listen=f"127.0.0.1:{self._server_port}",
                metrics_listen=f"127.0.0.1:{self._metrics_port}",
                ami_nodes=ami.url,
            ),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), f"the server did not start:\n{self.log_tail()}"

    def kill_server(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._end_server(signal.SIGKILL)

    def stop_server(self) -> None:
        """SIGTERM, and wait until it has ended; harmless when it does not run."""
        if self._process is not None:
            self._end_server(signal.SIGTERM)

    def _end_server(self, how: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(how)
        self._process.wait(STOP_SECONDS)
        self._process.stdout.close()
        self._process = None

    @property
    def log(self) -> Path:
        """What all server processes logged."""
        return self.folder / "server.log"

    def log_tail(self, characters: int = 4_000) -> str:
        return self.log.read_text()[-characters:]

    def logged(self, action: str) -> int:
        """How many events of that action were logged."""
        return self.log.read_text().count(f"action={action}")

    def wait_logged(self, action: str, count: int = 1, seconds: float = HEALED_SECONDS) -> None:
        """Wait until so many events of that action were logged."""
        wait_until(lambda: self.logged(action) >= count, seconds, action, self.log_tail)

    def wait_healthy(self) -> None:
        """Wait until the server says of itself that nothing is wrong: database and link are up."""
        wait_until(self._is_healthy, HEALED_SECONDS, "a healthy server", self.log_tail)

    def _is_healthy(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._metrics_port}/healthz", timeout=2.0) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:  # an HTTPError for a server that is not healthy is one
            return False

    # ---- the rest

    def start_asterisk(self) -> None:
        """Start Asterisk again after a crash, on the same ports."""
        self.lab.start()

    @property
    def scene(self) -> Scene:
        """To look at the books, and to change what people configure."""
        assert self._process is not None
        server = RunningServer(self._process, self._server_port, self._metrics_port, self.log)
        return Scene(self.lab, server, self.mariadb, self.url)

    def heal(self) -> None:
        """Mend whatever is broken, and wait until the server says that nothing is wrong."""
        for gate in (self.ami, self.agi, self.database):
            gate.thaw()
        if self._process is None:
            self.start_server()
        self.wait_healthy()

    def _furnish(self) -> None:
        astcredit(self.url, "init")
        for table, lines in DECKS.items():
            deck = self.folder / f"{table}.csv"
            deck.write_text(lines)
            astcredit(self.url, "rate-table", "add", table)
            astcredit(self.url, "rates", "import", table, str(deck))
        astcredit(self.url, "routing-plan", "add", FAILOVER)
        for priority, (name, proxy) in enumerate(TERMINATORS, 1):
            self._add_account(name, "--term-rate-table", "cheap", "--proxy", proxy)
            order = ("--priority", str(priority))
            astcredit(self.url, "route", "add", FAILOVER, "44", name, *order)
        for name in ACCOUNTS:
            self._add_account(name)
            astcredit(self.url, "topup", name, FORTUNE if name != POOR else "0.01")
        astcredit(self.url, "client", "set", CHOOSY, "--routing-plan", FAILOVER)

    def _add_account(self, name: str, *options: str) -> None:
        astcredit(self.url, "client", "add", name, "--rate-table", "retail")
        idents = ("--ident-by", "name", "--ident", name)
        astcredit(self.url, "account", "add", name, name, *idents, *options)
