"""No password leaves the program: not on a command line, not in a log at debug level with the
tracebacks of whatever fails, not in what commands print, not in metrics.

Everything that wants a password is there in three states: nobody listens, it does not accept the
password, or it answers nonsense.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socketserver
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from astcredit.app.setting_kinds import hide_secrets, secret_of
from astcredit.asterisk.simulator import SimulatedChannel
from astcredit.cli.main import main
from support.databases import MariaDb, free_port
from support.lab import wait_until
from support.server import (
    COMMAND,
    RunningServer,
    astcredit,
    astcredit_process,
    environment,
    serving,
)

DATABASE, AMI, MAIL = "s3cr3t/db:1", "s3cr3t@ami,2", "s3cr3t mail 3"
SECRETS = (DATABASE, AMI, MAIL)
PATIENCE_SECONDS = 30.0


def needles() -> Iterator[str]:
    """Each password as it is, as a part of an address, and as it goes to a mail server."""
    for secret in SECRETS:
        yield from (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1])
        for plain in (secret, f"\0postmaster\0{secret}"):
            yield base64.b64encode(plain.encode()).decode()


def clean(text: str) -> None:
    """There is something, and no password in it."""
    assert text
    assert "s3cr3t" not in text
    for needle in needles():
        assert needle not in text


def test_the_needles_are_found() -> None:
    for needle in needles():
        with pytest.raises(AssertionError):
            clean(f"a log line with {needle} in it")


@given(
    password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    host=st.sampled_from(["host", "h1,h2:3307", "[::1]:3306"]),
)
def test_what_is_hidden_in_an_address_is_the_password(password: str, host: str) -> None:
    """However it is written, a raw `@`, `:` or `/` in it included."""
    url = f"mysql://user:{password}@{host}/name?ssl_ca=/a.pem"
    assert secret_of(url) == password
    assert hide_secrets(url) == f"mysql://user:***@{host}/name?ssl_ca=/a.pem"
    assert secret_of(url.replace(f":{password}@", "@", 1)) == ""


# ---- those that want a password

Talk = Callable[[socketserver.StreamRequestHandler], None]


def refuses_ami(talk: socketserver.StreamRequestHandler) -> None:
    talk.wfile.write(b"Asterisk Call Manager/11.0.0\r\n")
    action_id = b""
    while (line := talk.rfile.readline()).strip():
        action_id = line if line.startswith(b"ActionID") else action_id
    message = b"Message: Authentication failed\r\n\r\n"
    talk.wfile.write(b"Response: Error\r\n" + action_id + message)


def refuses_mail(talk: socketserver.StreamRequestHandler) -> None:
    talk.wfile.write(b"220 mail.test\r\n")
    while line := talk.rfile.readline():
        if line.startswith(b"EHLO"):
            talk.wfile.write(b"250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n")
        elif line.startswith(b"AUTH PLAIN"):
            talk.wfile.write(b"535 5.7.8 Authentication failed\r\n")
        else:
            talk.wfile.write(b"334 UGFzc3dvcmQ6\r\n")


def talks_nonsense(talk: socketserver.StreamRequestHandler) -> None:
    talk.wfile.write(random.Random(4711).randbytes(20_000))


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side has gone."""


@contextmanager
def listening(talk: Talk) -> Iterator[int]:
    """A server on a free port, which talks so to each connection."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            talk(self)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nobody(_: Talk) -> Iterator[int]:
    """A port on which nobody listens."""
    yield free_port()


@pytest.fixture(params=["refused", "nonsense", "nobody"])
def places(request: pytest.FixtureRequest) -> Iterator[tuple[int, int, int]]:
    """Ports of database, manager interface and mail server."""
    state = request.param
    here = nobody if state == "nobody" else listening
    with (
        here(talks_nonsense) as database,
        here(refuses_ami if state == "refused" else talks_nonsense) as ami,
        here(refuses_mail if state == "refused" else talks_nonsense) as mail,
    ):
        if state == "refused":
            mariadb: MariaDb = request.getfixturevalue("mariadb")
            database = mariadb.port
        yield database, ami, mail


def mysql(port: int) -> str:
    return f"mysql://astcredit:{quote(DATABASE, safe='')}@127.0.0.1:{port}/astcredit"


def settings_for(ami: int, mail: int) -> dict[str, str]:
    return {
        "ami_nodes": f"ami://astcredit:{quote(AMI, safe='')}@127.0.0.1:{ami}/pbx1",
        "mail_server": f"127.0.0.1:{mail}",
        "mail_tls": "none",
        "mail_user": "postmaster",
        "mail_password": MAIL,
        "mail_sender": "billing@example.com",
        "mail_timeout_seconds": "5",
        "log_level": "debug",
    }


def fetched(server: RunningServer, path: str) -> str:
    try:
        url = f"http://127.0.0.1:{server.metrics_port}/{path}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.read().decode())


def family(pid: int) -> set[int]:
    """A process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
            children.setdefault(parent, []).append(int(entry.name))
    found, left = set(), [pid]
    while left:
        one = left.pop()
        found.add(one)
        left += children.get(one, [])
    return found


def command_lines(pid: int) -> str:
    return "\n".join(
        f"{one} {Path(f'/proc/{one}/cmdline').read_bytes()!r}" for one in sorted(family(pid))
    )


# ---- what is said of them


@pytest.mark.mariadb
def test_a_server_whose_peers_all_fail_shows_no_password(
    places: tuple[int, int, int], tmp_path: Path
) -> None:
    """Nor does the answer to a call, which goes into a dialplan."""
    database, ami, mail = places
    with serving(mysql(database), tmp_path, **settings_for(ami, mail)) as server:
        call = SimulatedChannel("127.0.0.1", server.port, "1.1", "acme", "442071234567")
        asyncio.run(call.run("authorize"))
        assert call.variables["AC_STATUS"] == "ERROR"
        clean(repr(call.variables))
        wait_until(
            lambda: "AMI link to pbx1" in fetched(server, "healthz"), PATIENCE_SECONDS, "health"
        )
        clean(fetched(server, "healthz"))
        clean(fetched(server, "metrics"))
        clean(command_lines(server.process.pid))
    log = server.log.read_text()
    assert "ami_down" in log
    clean(log)


@pytest.mark.mariadb
def test_commands_that_fail_show_no_password(places: tuple[int, int, int], tmp_path: Path) -> None:
    """With tracebacks and debug lines, where there are any."""
    database, ami, mail = places
    settings = settings_for(ami, mail)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    for url, *command in (
        (mysql(database), "-v", "init"),
        (mysql(database), "--format", "json", "client", "list"),
        (empty, "-v", "--format", "csv", "doctor"),
    ):
        done = astcredit_process(url, *command, **settings)
        assert done.status == 1, done
        clean(done.stdout + done.stderr)


def test_a_mail_that_cannot_be_sent_shows_no_password(sqlite_url: str, tmp_path: Path) -> None:
    """In the log, and in the outbox, where administrators read why."""
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "client", "add", "acme", "--email", "acme@example.com")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
        database.execute(
            "INSERT INTO astoutbox (reference, kind, audience, client_id, facts, next_attempt,"
            " date_created) SELECT 'r', 'low-balance', 'client', id, '{}',"
            " '2026-01-01 00:00:00.000', '2026-01-01 00:00:00.000' FROM astclient"
        )
        database.commit()
        with listening(refuses_mail) as mail:
            settings = settings_for(free_port(), mail)
            with serving(sqlite_url, tmp_path, **settings) as server:
                wait_until(
                    lambda: database.execute("SELECT error FROM astoutbox").fetchone()[0],
                    PATIENCE_SECONDS,
                    "the mail's failure",
                    server.log.read_text,
                )
        clean(database.execute("SELECT error FROM astoutbox").fetchone()[0])
    clean(server.log.read_text())
    clean(astcredit(sqlite_url, "outbox", "list").stdout)


def test_a_password_on_the_command_line_is_not_in_the_process_list(tmp_path: Path) -> None:
    """Of the server and of whatever it starts, while it runs; the rest of the line stays."""
    with listening(talks_nonsense) as database:
        secret = quote(DATABASE, safe="")
        url = f"mysql://astcredit:{secret}@127.0.0.1:{database}/astcredit"
        options = environment("", metrics_listen="", fastagi_listen="127.0.0.1:0")
        del options["ASTCREDIT_DATABASE_URL"]
        with subprocess.Popen(
            [*COMMAND, "--database", url, "serve"],
            env=options,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            try:
                process.stdout.readline()
                shown = command_lines(process.pid)
            finally:
                process.terminate()
    assert "serve" in shown
    assert f"astcredit:{'*' * len(secret)}@127.0.0.1:{database}/astcredit" in shown
    clean(shown)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://astcredit:s3cr3t@host:port/x",
        "mysql://astcredit:s3cr3t@ho st:3306/x",
        "mysql://astcredit:s3cr3t@[::1/x",
        "mysql://astcredit:s3@cr3t:s3cr3t@host/",
        "mysql://astcredit:s3cr3t",
        "postgresql://astcredit:s3cr3t@host/x",
        "mysql://host/x?user=astcredit&password=s3cr3t",
        "mysql://a:s3cr3t@h1,h2:s3cr3t/x",
        "s3cr3t",
    ],
)
def test_an_address_that_cannot_be_read_is_not_quoted(url: str, tmp_path: Path) -> None:
    """From the command line, the environment and a file, of a database and of a manager
    interface."""
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    config = tmp_path / "astcredit.toml"
    config.write_text(f"[database]\nurl = {json.dumps(url)}\n")
    config.chmod(0o600)
    for done in (
        astcredit("", "--database", url, "doctor", status=1),
        astcredit(url, "doctor", status=1),
        astcredit(empty, "doctor", status=1, ami_nodes=url.replace("mysql", "ami")),
    ):
        clean(done.stdout + done.stderr)
    result = CliRunner().invoke(main, ["--config", str(config), "doctor"])
    assert result.exit_code == 1
    clean(result.output)
