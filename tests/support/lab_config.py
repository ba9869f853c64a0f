"""The configuration of a lab instance: dialplan/ as it stands, on ports of the instance's own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.ports import LOOPBACK, keep_port

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATES = PROJECT / "scripts" / "lab.d" / "etc"
DIALPLAN = PROJECT / "dialplan"
# Instances may share it: Asterisk takes the next port when one is in use.
RTP_FIRST, RTP_LAST = 20_000, 29_999
FOLDERS = ("db", "run", "spool", "cache", "agi-bin", "sipp", "log/cdr-csv", "log/cdr-custom")
# The endpoint of dialplan/pjsip.conf for customers without an accountcode takes calls from these
# addresses: 127.0.1.1 to 127.0.1.254.
WHOLESALE = "127.0.1.{}"
# An endpoint without an accountcode whose name is all that tells who calls, and its address.
DESK, DESK_ADDRESS = "desk", "127.0.2.1"
MEDIA = f"media_address = {LOOPBACK}\nbind_rtp_to_media_address = yes\n"


def new_secret() -> str:
    """A password for AMI, another for each instance."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Ports:
    """UDP ports of SIP on the loopback, and the TCP port of AMI."""

    sip: int = 5070
    ami: int = 5038
    carrier: int = 5090
    backup: int = 5092

    @classmethod
    def free(cls) -> Ports:
        return cls(*(keep_port() for _ in range(4)))


@dataclass(frozen=True, slots=True)
class AmiAccess:
    """How to log in to an instance's manager interface."""

    port: int
    secret: str = field(repr=False)
    node: str
    host: str = LOOPBACK
    username: str = "astcredit"

    @property
    def url(self) -> str:
        """The node as ASTCREDIT_AMI_NODES wants it."""
        return f"ami://{self.username}:{self.secret}@{self.host}:{self.port}/{self.node}"


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What distinguishes an instance: the accounts whose telephones call, the controller it asks.

    The first account's telephone has the address 127.0.0.1, the next 127.0.0.2 and so on.
    `agi` is the AC_AGI of the dialplan, `node` the name given to the controller as AC_NODE."""

    accounts: Sequence[str] = ("demo",)
    agi: str = "agi://127.0.0.1:4573/"
    node: str = ""

    def address_of(self, account: str) -> str:
        """Where the account's telephone calls from; its first telephone for an empty name."""
        return f"127.0.0.{self.accounts.index(account) + 1 if account else 1}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that an instance in `directory` is configured with; `tree` is the installed Asterisk."""

    directory: Path
    tree: Path
    ports: Ports
    options: LabOptions
    ami: AmiAccess

    def write(self) -> None:
        """Make the instance's folders and files; what earlier runs recorded stays."""
        for name in FOLDERS:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        etc = self.directory / "etc"
        shutil.rmtree(etc, ignore_errors=True)
        shutil.copytree(TEMPLATES, etc)
        shutil.copytree(DIALPLAN, etc / "astcredit")
        values = self._values()
        for path in etc.glob("*.conf"):
            path.write_text(re.sub(r"@([A-Z_]+)@", lambda m: values[m[1]], path.read_text()))
        example = etc / "astcredit" / "pjsip.conf"
        example.write_text(self._with_own_ports(example.read_text()))
        with (etc / "pjsip.conf").open("a") as endpoints:
            endpoints.write(self._more_endpoints())
        _give_to_asterisk(self.tree, self.directory)

    def _values(self) -> dict[str, str]:
        modules = next(self.tree.glob("usr/lib/*/asterisk/modules"))
        return {
            "MODULES": f"/{modules.relative_to(self.tree)}",
            "RTP_FIRST": str(RTP_FIRST),
            "RTP_LAST": str(RTP_LAST),
            "AGI": self.options.agi,
            "NODE": self.options.node,
            "AMI_PORT": str(self.ports.ami),
            "AMI_SECRET": self.ami.secret,
        }

    def _with_own_ports(self, example: str) -> str:
        """The example of dialplan/pjsip.conf, moved to this instance's ports and account."""
        moves = {
            ":5070\n": f":{self.ports.sip}\n",
            ":5090\n": f":{self.ports.carrier}\n",
            "accountcode = demo\n": f"accountcode = {self.options.accounts[0]}\n",
        }
        for old, new in moves.items():
            assert old in example, f"dialplan/pjsip.conf has no {old!r} any more"
            example = example.replace(old, new)
        return example

    def _more_endpoints(self) -> str:
        """A second carrier, the desk, and the telephones of the further accounts."""
        text = (
            f"\n[backup](astcredit-carrier)\naors = backup\n"
            f"[backup]\ntype = aor\ncontact = sip:{LOOPBACK}:{self.ports.backup}\n"
        )
        text += _telephone(DESK, DESK_ADDRESS)
        for account in self.options.accounts[1:]:
            text += _telephone(account, self.options.address_of(account), account)
        return text


def _telephone(name: str, address: str, accountcode: str = "") -> str:
    code = f"accountcode = {accountcode}\n" if accountcode else ""
    return (
        f"\n[{name}](astcredit-customer)\n{code}{MEDIA}"
        f"[{name}]\ntype = identify\nendpoint = {name}\nmatch = {address}\n"
    )


def _give_to_asterisk(tree: Path, directory: Path) -> None:
    """To the user that runs Asterisk in the tree, whose number the host may use otherwise."""
    entry = next(
        line
        for line in (tree / "etc" / "passwd").read_text().splitlines()
        if line.startswith("asterisk:")
    )
    uid, gid = (int(part) for part in entry.split(":")[2:4])
    for path in (directory, *directory.rglob("*")):
        os.chown(path, uid, gid)
