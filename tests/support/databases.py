"""A private MariaDB server for tests: own files, own port, nothing shared with the machine's.

The server dies with the process that started it, however that ends (PR_SET_PDEATHSIG), and what a
killed run left in the temporary folder is swept by the next one.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import pymysql

from support.project import require_programs

USER = "astcredit"
_PREFIX = "astcredit-mariadb-"
_START_SECONDS = 60
"""A start takes one second; this is for a machine that is busy with other things."""
_STOP_SECONDS = 20
_START_TRIES = 5
"""The free port may be taken by another process between looking and listening."""
_PR_SET_PDEATHSIG = 1

_OPTIONS = (
    "--bind-address=127.0.0.1",
    "--socket=mariadbd.sock",  # relative: in the data folder, so that its path is never too long
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--innodb-flush-log-at-trx-commit=1",  # as in production: COMMIT means on disk
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=32M",
    "--max-connections=400",
    "--performance-schema=OFF",
    "--skip-log-bin",
)


class MariaDb:
    """A private server. `start()` it, take fresh databases from it, `stop()` it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.password = secrets.token_hex(8)
        self.port = 0

    def start(self) -> None:
        """Install and start the server; raises RuntimeError with the end of its log."""
        self._folder.joinpath("owner").write_text(str(os.getpid()))
        self._install()
        for _ in range(_START_TRIES):
            if self._launch():
                return
        raise RuntimeError(f"mariadbd does not start:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the server and remove its files. May be called at any time, also twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """End the server without warning, as a power cut would. Its files stay; see `restart`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start again, on the same files and the same port, after `kill`."""
        if not self._launch(self.port):
            raise RuntimeError(f"mariadbd does not start again:\n{self.log_tail()}")

    def create_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"astcredit_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def url(self, database: str) -> str:
        """The database's address as astcredit's setting database.url wants it."""
        return f"mysql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str | None = None) -> pymysql.Connection:
        """A plain blocking connection, autocommit on, for looking from outside."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            database=database,
            autocommit=True,
            connect_timeout=5,
        )

    def execute(self, statement: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run one statement with all rights; return its rows."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def log_tail(self, characters: int = 3000) -> str:
        try:
            return self._log.read_text(errors="replace")[-characters:]
        except FileNotFoundError:
            return "(no log)"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _scratch(self) -> Path:
        """For its temporary tables: each server that starts clears /tmp of those of all others."""
        return self._folder / "tmp"

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _install(self) -> None:
        self._data.mkdir()
        self._scratch.mkdir()
        self._folder.joinpath("init.sql").write_text(self._accounts())
        if (user := _server_user()) is not None:
            self._folder.chmod(0o755)
            for path in (self._folder, self._data, self._scratch, self._folder / "init.sql"):
                shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        done = subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self._data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *([f"--user={user}"] if user is not None else []),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")

    def _accounts(self) -> str:
        """Replace the password-less root by one user whose password only this run knows."""
        return (
            "DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys';\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )

    def _launch(self, port: int = 0) -> bool:
        """Start mariadbd and wait until it answers; False when it ended instead."""
        first = port == 0
        self.port = port or free_port()
        command = [
            "mariadbd",
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._scratch}",
            f"--port={self.port}",
            *([f"--init-file={self._folder / 'init.sql'}"] if first else []),
            *_OPTIONS,
        ]
        user = _server_user()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        return self._answers()

    def _answers(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            try:
                self.connect().close()
            except pymysql.err.OperationalError:
                time.sleep(0.05)
            else:
                return True
        if self._process.poll() is None:
            self.kill()
        return False


def start_mariadb() -> MariaDb:
    """A running private server; skips the test (CI=true: fails it) where none is installed."""
    require_programs("mariadbd", "mariadb-install-db", package="mariadb-server")
    sweep_left_over()
    server = MariaDb()
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server


def sweep_left_over() -> None:
    """Remove what test runs that were killed left in the temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        try:
            owner = int(folder.joinpath("owner").read_text())
        except (OSError, ValueError):
            continue  # just being made, or not ours
        if not _alive(owner):
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _server_user() -> str | None:
    """The user to run the server as: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("mysql").pw_name
    except KeyError:
        return "nobody"


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    """Between fork and exec, after the change of user (which would clear it)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
