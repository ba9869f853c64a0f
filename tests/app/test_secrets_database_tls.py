"""TLS to the database: with the right server, or no connection; nothing is sent before that."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pymysql.constants import CLIENT

from astcredit.service.errors import RefusedError, StorageError
from astcredit.storage.database import open_database
from support import databases
from support.databases import MariaDb
from support.project import require_programs
from support.server import astcredit_process, serving

PATIENCE_SECONDS = 30
PASSWORD = "gr\u00fcn/s3cr3t"
QUOTED = "gr%C3%BCn%2Fs3cr3t"

CIPHER = (
    "SELECT variable_value FROM information_schema.session_status"
    " WHERE variable_name = 'Ssl_cipher'"
)

Run = Callable[[Coroutine[Any, Any, str]], str]


@dataclass(frozen=True, slots=True)
class Site:
    """A server that speaks TLS, its authority, one that is not its, and a user who must use it."""

    server: MariaDb
    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def url(self, options: str = "", host: str = "127.0.0.1", port: int = 0) -> str:
        """The address of the database `tls`, as the user who must use TLS."""
        query = f"?{options}" if options else ""
        return f"mysql://careful:{QUOTED}@{host}:{port or self.server.port}/tls{query}"

    def trusting(self, authority: str = "ca", more: str = "") -> str:
        return f"ssl_ca={self.path(authority)}{more}"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """Two authorities of our own; the first vouches for 127.0.0.1, and for a client."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "stranger"):
        usage = ("-addext", "keyUsage=critical,keyCertSign")
        named = ("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")
        openssl(folder, "req", "-x509", *curve, "-days", "2", *usage, *named)
    for name in ("server", "client"):
        named = ("-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        openssl(folder, "req", "-new", *curve, *named)
        folder.joinpath("names").write_text("subjectAltName=IP:127.0.0.1\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names")
        openssl(
            folder,
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            f"{name}.csr",
            "-out",
            f"{name}.pem",
            *signed,
        )


@contextmanager
def certificates() -> Iterator[Path]:
    """A folder that the database server, another user, can read."""
    folder = Path(tempfile.mkdtemp(prefix="astcredit-tls-"))
    try:
        make_certificates(folder)
        folder.chmod(0o755)
        folder.joinpath("server-key.pem").chmod(0o644)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    require_programs("mariadbd", "mariadb-install-db", package="mariadb-server")
    require_programs("openssl", package="openssl")
    with certificates() as folder, pytest.MonkeyPatch.context() as patch:
        ours = [
            f"--ssl-{name}={folder}/{file}.pem"
            for name, file in (("ca", "ca"), ("cert", "server"), ("key", "server-key"))
        ]
        patch.setattr(databases, "_OPTIONS", (*databases._OPTIONS, *ours))
        server = databases.start_mariadb()
        try:
            server.execute("CREATE DATABASE tls CHARACTER SET utf8mb4")
            server.execute(f"CREATE USER careful@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE SSL")
            server.execute("GRANT ALL ON tls.* TO careful@'%'")
            yield Site(server, folder)
        finally:
            server.stop()


def open_sockets() -> int:
    """Sockets of this process."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(entry).startswith("socket:")
    return count


async def hung_up(sockets: int) -> None:
    """Until there are no more than so many: TLS says goodbye, and that takes a moment of a loop
    which does not end before."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while open_sockets() > sockets:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def cipher(url: str) -> str:
    """What a connection is encrypted with, as the server says."""
    sockets = open_sockets()
    database = open_database(url)
    try:
        async with database.reading() as connection:
            return str((await connection.exec_driver_sql(CIPHER)).scalar_one())
    finally:
        await database.close()
        await hung_up(sockets)


def refusal(url: str) -> str:
    """What is said when there is no connection; never with the password."""
    with pytest.raises((StorageError, RefusedError)) as caught:
        asyncio.run(cipher(url))
    for text in (str(caught.value), repr(caught.value)):
        assert "s3cr3t" not in text
    return str(caught.value)


# ---- a server with TLS

pytestmark = pytest.mark.mariadb


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_with_the_right_authority_it_is_encrypted(site: Site, run: Run) -> None:
    assert run(cipher(site.url(site.trusting())))


def test_without_options_the_servers_rule_decides(site: Site) -> None:
    """A user who must use TLS is not let in without: so the tests above prove something."""
    assert "Access denied" in refusal(site.url())


def test_another_authority_is_not_believed(site: Site) -> None:
    assert "certificate verify failed" in refusal(site.url(site.trusting("stranger")))


def test_the_machines_authorities_do_not_know_it(site: Site) -> None:
    assert "certificate verify failed" in refusal(site.url("ssl_ca=system"))


def test_a_certificate_for_another_name_is_not_enough(site: Site) -> None:
    here = site.url(site.trusting(), host="localhost")
    assert "certificate is not valid for 'localhost'" in refusal(here)
    assert asyncio.run(cipher(f"{here}&ssl_check_hostname=false"))
    wrong = site.url(site.trusting("stranger", "&ssl_check_hostname=false"))
    assert "certificate verify failed" in refusal(wrong)


def test_a_server_may_ask_for_a_certificate_too(site: Site) -> None:
    site.server.execute("ALTER USER careful@'%' REQUIRE X509")
    try:
        assert "Access denied" in refusal(site.url(site.trusting()))
        site.path("client-key").chmod(0o600)
        shown = f"&ssl_cert={site.path('client')}&ssl_key={site.path('client-key')}"
        assert asyncio.run(cipher(site.url(site.trusting(more=shown))))
        site.path("client-key").chmod(0o644)
        said = refusal(site.url(site.trusting(more=shown)))
        assert said.endswith(f"chmod 640 {site.path('client-key')}")
    finally:
        site.server.execute("ALTER USER careful@'%' REQUIRE SSL")


def test_the_program_works_so(site: Site, tmp_path: Path) -> None:
    """Commands and server; `doctor` says why when it cannot."""
    url = site.url(site.trusting())
    assert astcredit_process(url, "init").status == 0
    with serving(url, tmp_path, log_level="debug") as server:
        assert server.process.poll() is None
    assert "s3cr3t" not in server.log.read_text()
    failed = astcredit_process(site.url(site.trusting("stranger")), "doctor")
    assert failed.status == 1
    assert "certificate verify failed" in failed.stdout + failed.stderr
    assert "s3cr3t" not in failed.stdout + failed.stderr


# ---- whoever stands in between

CAPABLE = 0xFFFF_F7FF & ~CLIENT.SSL & ~CLIENT.COMPRESS
SALT = b"12345678", b"123456789012\0"


def greeting(plugin: bytes, capable: int = CAPABLE) -> bytes:
    """A server's first packet, with or without the offer of TLS."""
    low, high = struct.pack("<I", capable & 0xFFFF_FFFF)[:2], struct.pack("<I", capable)[2:]
    body = b"\x0a8.0.36\0" + struct.pack("<I", 1) + SALT[0] + b"\0" + low + b"\x2d\x02\0" + high
    body += bytes([21]) + bytes(10) + SALT[1] + plugin + b"\0"
    return struct.pack("<I", len(body))[:3] + b"\0" + body


def asked_to_switch(plugin: bytes) -> bytes:
    body = b"\xfe" + plugin + b"\0" + b"".join(SALT)
    return struct.pack("<I", len(body))[:3] + b"\x02" + body


def heard_by(first: bytes, then: bytes, options: str) -> tuple[bytes, str]:
    """What a server hears that says `first`, and `then` after an answer; and how that ends."""

    async def play() -> tuple[bytes, str]:
        heard: list[bytes] = []
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(first)
            while data := await reader.read(4_096):
                heard.append(data)
                if len(heard) == 1:
                    writer.write(then)
            writer.close()
            await writer.wait_closed()
            ended.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(StorageError) as caught:
                await cipher(f"mysql://careful:{QUOTED}@127.0.0.1:{port}/tls{options}")
            await ended.wait()
        return b"".join(heard), str(caught.value)

    return asyncio.run(play())


def test_a_server_that_offers_no_tls_hears_nothing() -> None:
    """Not even the user's name: whoever takes the offer out of its packet gains nothing."""
    native = greeting(b"mysql_native_password")
    assert heard_by(native, b"", "?ssl_ca=system") == (
        b"",
        "OperationalError: (2026, 'TLS: the server offers none')",
    )
    heard, _ = heard_by(native, asked_to_switch(b"mysql_native_password"), "")
    assert b"careful" in heard, "without TLS asked for it does log in"


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"mysql_old_password"])
def test_nobody_is_told_the_password_as_it_is(plugin: bytes) -> None:
    """Asked at once, or after a first answer."""
    heard, said = heard_by(greeting(plugin), b"", "")
    assert (heard, "not without TLS" in said) == (b"", True)
    heard, said = heard_by(greeting(b"mysql_native_password"), asked_to_switch(plugin), "")
    assert "not without TLS" in said
    assert b"s3cr3t" not in heard


@pytest.mark.parametrize("plugin", [b"caching_sha2_password", b"sha256_password"])
def test_nobody_is_told_the_password_under_an_unknown_key(plugin: bytes) -> None:
    """Nor asked for that key. MySQL 8 may know the password (3) or want it (4), as it does after
    each of its restarts: what would work only until then never works."""
    for first, then in (
        (plugin, b"\x02\x00\x00\x02\x01\x03"),
        (plugin, b"\x02\x00\x00\x02\x01\x04"),
        (b"mysql_native_password", asked_to_switch(plugin)),
    ):
        heard, said = heard_by(greeting(first), then, "")
        assert f"wants the password by {plugin.decode()}: not without TLS" in said
        assert len(heard) == 4 + int.from_bytes(heard[:3], "little"), "one packet and no more"
        assert b"s3cr3t" not in heard


def test_a_server_that_prefers_another_way_is_logged_in_to() -> None:
    """MySQL 8 with a user of the old way: its greeting speaks of the new one."""
    heard, said = heard_by(
        greeting(b"caching_sha2_password"), asked_to_switch(b"mysql_native_password"), ""
    )
    assert b"careful" in heard
    assert "without TLS" not in said


# ---- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("password=s3cr3t", "there is no option 'password'"),
        ("read_default_file=/root/.my.cnf", "there is no option 'read_default_file'"),
        ("ssl_verify=no", "there is no option 'ssl_verify'"),
        ("ssl_ca=a&ssl_ca=b", "there is no option 'ssl_ca' twice"),
        ("ssl_cert=/c&ssl_key=/k", "TLS needs ssl_ca"),
        ("ssl_check_hostname=false", "TLS needs ssl_ca"),
        ("ssl_ca=system&ssl_cert=/c", "ssl_cert and ssl_key go together"),
        ("ssl_ca=system&ssl_check_hostname=no", "expected true or false"),
        ("ssl_ca=/nowhere.pem", "'/nowhere.pem' cannot be read: No such file or directory"),
        ("ssl_ca=/etc/hostname", "no certificates can be read from /etc/hostname"),
        ("charset=latin1", "charset can only be utf8mb4"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: str, said: str) -> None:
    """Before anything is connected, and for each of several servers."""
    for hosts in ("db", "db1,db2:3307"):
        assert said in refusal(f"mysql://careful:s3cr3t@{hosts}/tls?{options}")


def test_options_that_were_always_taken_are_taken() -> None:
    for options in ("charset=utf8mb4", "unix_socket=/run/mysqld/mysqld.sock"):
        database = open_database(f"mysql://careful:s3cr3t@db/tls?{options}")
        assert "s3cr3t" not in database.shown_url
        asyncio.run(database.close())
