"""Where an Asterisk server is and how to log in to its manager interface (AMI)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from astcredit.service.errors import RefusedError

AMI_PORT: Final = 5038
"""The port of manager.conf's sample configuration."""

_SCHEME: Final = "ami://"
_EXPECTED: Final = "expected ami://USER:SECRET@HOST:PORT/NODE"
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_NODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class AmiNode:
    """One Asterisk server: `name` is how its calls are told from another server's."""

    name: str
    host: str
    port: int
    username: str
    secret: str = field(repr=False)


def parse_ami_url(url: str) -> AmiNode:
    """Read `ami://USER:SECRET@HOST[:PORT][/NODE]`; PORT defaults to 5038, NODE to the host.

    USER and SECRET may be percent-encoded, and must be where they contain a comma (which
    separates nodes in the settings) or a colon (USER). Everything to the last `@` is the login.
    Raises RefusedError, which says what is wrong and never shows the login.
    """
    # Not urllib's urlsplit: its errors quote what they could not read, a secret included.
    login, at, place = url.removeprefix(_SCHEME).rpartition("@")
    if not url.startswith(_SCHEME):
        raise RefusedError(f"AMI node does not start with {_SCHEME}: {_EXPECTED}")
    if not at:
        raise RefusedError(f"AMI node has no login before its host: {_EXPECTED}")
    username, colon, secret = login.partition(":")
    if not (username and colon and secret):
        raise RefusedError(f"AMI node has no user or no secret: {_EXPECTED}")
    authority, slash, name = place.partition("/")
    host, port = _host_and_port(authority)
    if slash and not _NODE.fullmatch(name):
        raise RefusedError("AMI node's name must be 1 to 64 letters, digits, '.', '_' or '-'")
    return AmiNode(
        name=name or host,
        host=host,
        port=port,
        username=_decoded(username, "user"),
        secret=_decoded(secret, "secret"),
    )


def _host_and_port(authority: str) -> tuple[str, int]:
    host, _, port = authority.rpartition(":")
    if not host or authority.endswith("]"):  # no port; or the colons of an IPv6 address
        host, port = authority, str(AMI_PORT)
    if not _HOST.fullmatch(host):
        raise RefusedError(f"AMI node has no valid host: {_EXPECTED}")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise RefusedError(f"AMI node's port must be a number from 1 to 65535: {_EXPECTED}")
    return host.strip("[]"), int(port)


def _decoded(text: str, what: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError:
        # `from None`: the codec's error carries the bytes.
        raise RefusedError(f"AMI node's {what} is not percent-encoded UTF-8") from None
    if _CONTROL.search(plain):
        # A line break in a header would let it carry further headers into the session.
        raise RefusedError(f"AMI node's {what} contains a control character")
    return plain
