"""The private databases that other tests stand on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pymysql
import pytest

from support.databases import MariaDb, sweep_left_over
from support.project import ROOT, missing_part, require_programs


def test_a_database_is_empty_and_its_own(mariadb: MariaDb) -> None:
    one, two = mariadb.create_database(), mariadb.create_database()
    mariadb.execute("CREATE TABLE t (a INT)", one)
    assert mariadb.execute("SHOW TABLES", two) == []
    assert mariadb.execute("SHOW TABLES", one) == [("t",)]
    assert mariadb.execute("SELECT @@innodb_flush_log_at_trx_commit") == [(1,)]


def test_a_committed_row_survives_a_power_cut(mariadb: MariaDb) -> None:
    name = mariadb.create_database()
    mariadb.execute("CREATE TABLE t (a INT) ENGINE=InnoDB", name)
    mariadb.execute("INSERT INTO t VALUES (7)", name)
    mariadb.kill()
    with pytest.raises(pymysql.err.OperationalError):
        mariadb.connect()
    mariadb.restart()
    assert mariadb.execute("SELECT a FROM t", name) == [(7,)]


def test_nobody_gets_in_without_the_password(mariadb: MariaDb) -> None:
    for user in ("root", "astcredit", ""):
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            pymysql.connect(host="127.0.0.1", port=mariadb.port, user=user)


@pytest.mark.mariadb
@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_test_run_leaves_no_server_and_no_files(tmp_path: Path) -> None:
    require_programs("mariadbd", "mariadb-install-db", package="mariadb-server")
    tmp_path.chmod(0o755)
    code = (
        "from support.databases import start_mariadb\n"
        "s = start_mariadb()\n"
        "print(s._process.pid, s._folder, flush=True)\n"
        "input()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "TMPDIR": "/tmp"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        server = os.pidfd_open(int(pid))
        run.send_signal(signal.SIGKILL)
    _wait_for_end(server)
    assert Path(folder).exists()
    sweep_left_over()
    assert not Path(folder).exists()


def _wait_for_end(process: int) -> None:
    """Wait until the process of this descriptor is gone; end it if it does not go by itself."""
    ended, _, _ = select.select([process], [], [], 30)
    if not ended:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    os.close(process)
    assert ended, "mariadbd outlived the test run that started it"


def test_a_running_owner_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    mine, foreign = tmp_path / "astcredit-mariadb-a", tmp_path / "astcredit-mariadb-b"
    for folder in (mine, foreign):
        folder.mkdir()
    (mine / "owner").write_text(str(os.getpid()))
    sweep_left_over()
    assert mine.exists()
    assert foreign.exists()


def test_a_missing_part_is_a_skip_for_people_and_a_failure_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program .*apt-get install thing"):
        require_programs("sh", "no-such-program", package="thing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nothing is skipped"):
        missing_part("Asterisk")
