"""A private cluster for tests: three MariaDB servers with Galera on the loopback.

The second and the third get their files from the first. One that was killed comes back with its
own files and what it missed, from another one's memory.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from support import databases
from support.core import opened, snapshot
from support.databases import MariaDb, free_port, sweep_left_over
from support.memory_books import Snapshot, audit
from support.project import missing_part, require_programs

SIZE = 3
_PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
_JOIN_SECONDS = 90
"""A server joins in two seconds; this is for a machine that is busy with other things."""

_GALERA = (
    "--wsrep-on=ON",
    f"--wsrep-provider={_PROVIDER}",
    "--wsrep-cluster-name=astcredit",
    "--wsrep-sst-method=rsync",
    "--binlog-format=ROW",
    "--innodb-autoinc-lock-mode=2",
)

# A server that is gone is put out of the cluster after `suspect_timeout`; until then nothing can
# be committed. By default that is five seconds, which is as long as the program waits at all.
QUICK = "evs.keepalive_period=PT0.3S;evs.inactive_check_period=PT0.2S;evs.suspect_timeout=PT1S"


class GaleraNode(MariaDb):
    """One server of a cluster. `kill` and `restart` it, `freeze` and `thaw` it."""

    def __init__(self, provider_options: str) -> None:
        super().__init__()
        self.group_port = free_port()
        self._state_ports = free_port(), free_port()
        self._provider_options = provider_options
        self.peers: Sequence[GaleraNode] = ()

    def prepare(self, password: str) -> None:
        """Make folders that the server can fill with what another one sends it."""
        self._folder.joinpath("owner").write_text(str(os.getpid()))
        self.password = password
        self.port = free_port()
        self._folder.chmod(0o755)
        self._data.mkdir()
        self._own(self._data)

    def end(self) -> None:
        """End the server in good order; its files stay."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(_JOIN_SECONDS)

    def join(self, peers: Sequence[GaleraNode]) -> None:
        """Start and come up to date. Without peers a cluster begins."""
        self.peers = peers
        self._galera()
        self.wait_until_synced()

    def restart(self) -> None:
        """Start again after `kill`, on the same files and port, and come up to date."""
        self._galera(f"--wsrep-start-position={self._position()}")
        self.wait_until_synced()

    def cut_off(self) -> None:
        """Cut the network between the server and the others; programs still reach it."""
        self.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")

    def reconnect(self) -> None:
        """Mend what `cut_off` cut, and wait until the server is up to date."""
        self.execute("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
        self.wait_until_synced()

    def freeze(self) -> None:
        """Stop the process without ending it: its connections stay open and say nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def status(self, name: str) -> str:
        """One of the server's wsrep_… states."""
        return str(self.execute(f"SHOW STATUS LIKE 'wsrep_{name}'")[0][1])

    def wait_until_synced(self) -> None:
        """Wait until the server takes part in the cluster; RuntimeError with its log otherwise."""
        self.wait_until(lambda: self.status("local_state_comment") == "Synced")

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for a state of the server, none of which has an event; RuntimeError with its log."""
        end = time.monotonic() + _JOIN_SECONDS
        while not reached():
            if time.monotonic() > end:
                raise RuntimeError(f"the server does not get there:\n{self.log_tail()}")
            time.sleep(0.02)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _galera(self, *options: str) -> None:
        with self._log.open("ab") as log:
            self._process = self._spawn(self._command(*options), log.fileno())
        if not self._answers():
            raise RuntimeError(f"mariadbd does not join:\n{self.log_tail()}")

    def _command(self, *options: str) -> list[str]:
        peers = ",".join(f"127.0.0.1:{peer.group_port}" for peer in self.peers)
        state_port, copy_port = self._state_ports
        provider = (
            f"gmcast.listen_addr=tcp://127.0.0.1:{self.group_port};gcache.size=32M;"
            f"ist.recv_addr=127.0.0.1:{state_port};{self._provider_options}"
        )
        return [
            "mariadbd",
            "--no-defaults",
            f"--datadir={self._data}",
            f"--port={self.port}",
            f"--tmpdir={self._temporary()}",
            *databases._OPTIONS,
            *_GALERA,
            f"--wsrep-cluster-address=gcomm://{peers}",
            f"--wsrep-node-address=127.0.0.1:{self.group_port}",
            f"--wsrep-sst-receive-address=127.0.0.1:{copy_port}",
            f"--wsrep-provider-options={provider}",
            *options,
        ]

    def _temporary(self) -> Path:
        """A folder for temporary tables. A server that starts removes what it finds there, and in
        /tmp would find the others'."""
        folder = self._folder / "tmp"
        if not folder.exists():
            folder.mkdir()
            self._own(folder)
        return folder

    def _own(self, folder: Path) -> None:
        user = databases._server_user()
        if user is not None:
            shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)

    def _position(self) -> str:
        """How far the server's files are after a crash; its own log knows less."""
        log = self._folder / "recovery.log"
        with log.open("wb") as output:
            status = self._spawn(self._command("--wsrep-recover"), output.fileno()).wait()
        found = re.search(r"Recovered position:\s*(\S+)", log.read_text(errors="replace"))
        if found is None:
            raise RuntimeError(f"no position ({status}):\n{log.read_text(errors='replace')}")
        return found.group(1)

    def _spawn(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        user = databases._server_user()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self._data,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            preexec_fn=databases._die_with_parent if sys.platform == "linux" else None,
        )


class Galera:
    """The cluster. `start()` it, use its nodes, `stop()` it."""

    def __init__(self, provider_options: str = QUICK) -> None:
        self.nodes = [GaleraNode(provider_options) for _ in range(SIZE)]

    def start(self) -> None:
        """Install and start all servers; raises RuntimeError with the end of a log."""
        first, *others = self.nodes
        first.start()
        first.end()
        first.join(())
        for node in others:
            node.prepare(first.password)
            node.join(self.nodes)
        first.peers = self.nodes

    def url(self, name: str, *order: int) -> str:
        """The address of a database on those servers, of which the first is tried first."""
        first = self.nodes[0]
        hosts = ",".join(f"127.0.0.1:{self.nodes[number].port}" for number in order)
        return f"mysql://{databases.USER}:{first.password}@{hosts}/{name}"

    async def agreed(self, name: str) -> Snapshot:
        """The books in that database, which are right and the same on every server."""
        found = []
        for number in range(SIZE):
            async with opened(self.url(name, number)) as database:
                found.append(await snapshot(database))
        assert audit(found[0]) == []
        assert found.count(found[0]) == SIZE
        return found[0]

    def wait_until_whole(self) -> None:
        """Wait until all servers, none of which is away any more, know each other and agree."""
        self.nodes[0].wait_until(self._is_whole)

    def _is_whole(self) -> bool:
        # A server that slept does not know yet that the others went on without it: its number of
        # the cluster's composition is an older one.
        wanted = "'wsrep_cluster_conf_id', 'wsrep_cluster_size', 'wsrep_local_state_comment'"
        ask = f"SHOW STATUS WHERE variable_name IN ({wanted})"
        states = [{str(name): value for name, value in node.execute(ask)} for node in self.nodes]
        here = states[0]["wsrep_cluster_size"], states[0]["wsrep_local_state_comment"]
        return states.count(states[0]) == SIZE and here == (str(SIZE), "Synced")

    def stop(self) -> None:
        """End the servers and remove their files."""
        for node in reversed(self.nodes):
            node.stop()


def start_galera(provider_options: str = QUICK) -> Galera:
    """A running cluster; skips the test (CI=true: fails it) where it cannot be."""
    require_programs("mariadbd", "mariadb-install-db", package="mariadb-server")
    require_programs("rsync", package="rsync")
    if not _PROVIDER.exists():
        missing_part(f"{_PROVIDER} is not there (Debian: apt-get install galera-4)")
    sweep_left_over()
    cluster = Galera(provider_options)
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _has(node: GaleraNode, name: str) -> bool:
    return bool(node.execute(f"SHOW DATABASES LIKE '{name}'"))


@pytest.fixture(scope="session")
def galera() -> Iterator[Galera]:
    """The session's cluster. Whoever kills, freezes or cuts off a server must bring it back."""
    cluster = start_galera()
    yield cluster
    cluster.stop()


@pytest.fixture
def galera_name(galera: Galera) -> Iterator[str]:
    """The name of an empty database of this test's own; `galera.url(name, …)` leads to it."""
    name = galera.nodes[0].create_database()
    for node in galera.nodes:
        node.wait_until(partial(_has, node, name))
    yield name  # it is gone with the cluster: to drop its tables on three servers takes seconds
    galera.wait_until_whole()
