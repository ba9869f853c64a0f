"""TLS to the database: asked for in its address, checked, and never done without.

    mysql://USER:PASSWORD@HOST/NAME?ssl_ca=/etc/astcredit/database-ca.pem

ssl_ca              a PEM file with the authorities that are trusted; `system`: the machine's own
ssl_cert, ssl_key   PEM files of the certificate and key to show, where the server wants that
ssl_check_hostname  `false`: the certificate may have any name, if such an authority signed it

aiomysql asks for TLS only if the server says that it has it: whoever stands in between could say
no, and read all that follows. Here such a server is not logged in to. The files are read for each
new connection: certificates are renewed while the program runs.
"""

from __future__ import annotations

import os
import shlex
import ssl
import stat
from collections.abc import Mapping
from typing import Any, Final

import aiomysql
from pymysql.constants import CLIENT, CR
from pymysql.err import OperationalError
from sqlalchemy import URL

from astcredit.service.errors import RefusedError

SYSTEM: Final = "system"
_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key")
_OPTIONS: Final = (*_FILES, "ssl_check_hostname", "unix_socket", "charset")
"""What an address may have behind its `?`. The driver would take any of its parameters there: a
password that nothing hides, or a file with one."""

_READABLE: Final = frozenset({"mysql_clear_password", "mysql_old_password"})
"""Ways to log in that show the password, or as good as that."""

_OTHERS_MAY: Final = stat.S_IROTH | stat.S_IWOTH


def check_options(address: URL) -> None:
    """Raise RefusedError for an option that there is not or that cannot be used, for a file that
    cannot be read, and for a key that every user of the machine can read."""
    options = dict(address.query)
    for name, value in options.items():
        if name not in _OPTIONS or not isinstance(value, str):
            more = "" if isinstance(value, str) else " twice"
            known = f"there are {', '.join(_OPTIONS)}"
            raise RefusedError(f"database: there is no option {name!r}{more}; {known}")
    if options.get("charset", "utf8mb4") != "utf8mb4":
        raise RefusedError("database: charset can only be utf8mb4")
    if options.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise RefusedError("database: ssl_check_hostname: expected true or false")
    if any(name.startswith("ssl_") for name in options):
        _check_files({name[4:]: str(options[name]) for name in _FILES if name in options})


def _check_files(files: Mapping[str, str]) -> None:
    if "ca" not in files:
        raise RefusedError(f"database: TLS needs ssl_ca, a PEM file or the word {SYSTEM!r}")
    if ("cert" in files) is not ("key" in files):
        raise RefusedError("database: ssl_cert and ssl_key go together")
    for path in (path for name, path in files.items() if (name, path) != ("ca", SYSTEM)):
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise RefusedError(f"database: {path!r} cannot be read: {error.strerror}") from None
        if path == files.get("key") and mode & _OTHERS_MAY:
            raise RefusedError(
                f"database: {path!r} is a key and every user of this machine can read or change "
                f"it: chmod 640 {shlex.quote(path)}"
            )
    try:
        _context(files)
    except (OSError, ssl.SSLError) as error:
        shown = ", ".join(files.values())
        raise RefusedError(f"database: no certificates can be read from {shown}: {error}") from None


class TlsConnection(aiomysql.Connection):  # type: ignore[misc] # aiomysql comes without types
    """The driver's connection, whose login nobody on the way can read. With `ssl`, which SQLAlchemy
    makes a dict of the options, it is encrypted and to the right server, or there is none."""

    def __init__(
        self, ssl: Mapping[str, Any] | None = None, password: str = "", **parameters: Any
    ) -> None:
        try:
            context = None if ssl is None else _context(ssl)
        except OSError as error:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"TLS: {error}") from error
        # The driver sends a password's characters as Latin-1; servers keep it as UTF-8.
        super().__init__(ssl=context, password=password.encode().decode("latin-1"), **parameters)

    async def _request_authentication(self) -> None:
        """Encrypt, and log in."""
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, "TLS: the server offers none")
        if not self._ssl_context:
            self._refuse_readable(self._server_auth_plugin)
        try:
            await super()._request_authentication()
        except ssl.SSLError as error:  # else it would only say that it cannot connect
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"TLS: {error}") from error

    async def _process_auth(self, plugin_name: bytes, auth_packet: object) -> Any:
        """Log in another way, because the server wants that."""
        if not self._secure:
            self._refuse_readable(plugin_name.decode("latin-1"))
        return await super()._process_auth(plugin_name, auth_packet)

    async def caching_sha2_password_auth(self, pkt: object) -> Any:
        """Log in as MySQL 8 wants it by itself. As long as the server remembers the password it can
        do without seeing it; else it asks for it, under a key of which nobody knows whose it is.
        What would end with the server's next restart is refused from the beginning."""
        self._refuse_asked_for("caching_sha2_password")
        return await super().caching_sha2_password_auth(pkt)

    async def sha256_password_auth(self, pkt: object) -> Any:
        """Log in as MySQL 5.6 did: the server always asks for the password."""
        self._refuse_asked_for("sha256_password")
        return await super().sha256_password_auth(pkt)

    def _refuse_readable(self, plugin: str) -> None:
        """Whoever answers in the server's place could ask for the password as it is."""
        if plugin in _READABLE:
            self._refuse_asked_for(plugin)

    def _refuse_asked_for(self, plugin: str) -> None:
        if not self._secure and not self._unix_socket:
            ways = "not without TLS (ssl_ca) or its socket (unix_socket)"
            reason = f"the server wants the password by {plugin}: {ways}"
            raise OperationalError(CR.CR_SSL_CONNECTION_ERROR, reason)


def _context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """What a server must show, and what is shown to it."""
    context = ssl.create_default_context(cafile=None if options["ca"] == SYSTEM else options["ca"])
    context.check_hostname = options.get("check_hostname", True)
    if "cert" in options:
        context.load_cert_chain(options["cert"], options["key"])
    return context
