"""Asterisk's side of FastAGI, for trying the controller without one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from astcredit.service.errors import AstcreditError

# The controller answers within two seconds; whoever waits longer waits for nothing.
RUN_SECONDS = 10.0

PJSIP = "PJSIP/"
REMOTE_ADDRESS = "CHANNEL(pjsip,remote_addr)"

_VARIABLE = re.compile(r"\$\{([^${}]*)\}")
_GET_FULL = re.compile(r'GET FULL VARIABLE "?(.*?)"?')
_GET = re.compile(r'GET VARIABLE "?(.*?)"?')
_SET = re.compile(r'SET VARIABLE "?([^" ]+)"? "?(.*?)"?')
_MSET = re.compile(r'EXEC "?MSet"? "?(.*?)"?', re.IGNORECASE)


class SimulationError(AstcreditError):
    """The server does not answer as an AGI server does."""


@dataclass(slots=True)
class SimulatedChannel:
    """A channel that runs AGI scripts, and the variables that it has.

    `channel` is its name; one of PJSIP (`PJSIP/alice-0000001a`) knows the address from which its
    signalling comes, `remote_address`, as ADDRESS:PORT. `callerid` is the caller's number.

    Raises SimulationError when the server cannot be reached, or ends the connection before it
    has sent anything.
    """

    host: str
    port: int
    uniqueid: str
    accountcode: str
    extension: str
    callerid: str = "simulate"
    channel: str = ""
    remote_address: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    async def run(self, script: str, arguments: Sequence[str] = ()) -> None:
        """Run `AGI(agi://HOST:PORT/script,arguments…)` to its end."""
        try:
            async with asyncio.timeout(RUN_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(self.request(script, arguments).encode())
                    await self._answer_commands(reader, writer)
                finally:
                    writer.close()
        except OSError as error:
            raise SimulationError(
                f"no answer from {self.host}:{self.port}: is `astcredit serve` running?"
            ) from error

    async def _answer_commands(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        commands = 0
        while line := await reader.readline():
            commands += 1
            writer.write(f"{self.reply(line.decode().rstrip())}\n".encode())
            await writer.drain()
        if not commands:
            raise SimulationError(
                f"{self.host}:{self.port} closed the connection: not this program, or not allowed"
            )

    def reply(self, command: str) -> str:
        """What Asterisk would answer; SET VARIABLE and MSet change `variables`."""
        if match := _MSET.fullmatch(command):
            self.variables.update(_assignments(match[1]))
            return "200 result=0"
        if match := _SET.fullmatch(command):
            self.variables[match[1]] = match[2]
            return "200 result=1"
        if match := _GET_FULL.fullmatch(command):
            return f"200 result=1 ({_VARIABLE.sub(self._value, match[1])})"
        if match := _GET.fullmatch(command):
            value = self._known(match[1])
            return "200 result=0" if value is None else f"200 result=1 ({value})"
        return "510 Invalid or unknown command"

    def _value(self, match: re.Match[str]) -> str:
        return self._known(match[1]) or ""

    def _known(self, name: str) -> str | None:
        if name == REMOTE_ADDRESS and self.channel.startswith(PJSIP):
            return self.remote_address
        return self.variables.get(name)

    def request(self, script: str, arguments: Sequence[str]) -> str:
        """The header block with which Asterisk begins."""
        channel = self.channel or f"Simulated/{self.uniqueid}"
        headers: Mapping[str, str] = {
            "agi_network": "yes",
            "agi_network_script": script,
            "agi_request": f"agi://{self.host}:{self.port}/{script}",
            "agi_channel": channel,
            "agi_language": "en",
            "agi_type": channel.partition("/")[0],
            "agi_uniqueid": self.uniqueid,
            "agi_version": "22.0.0",
            "agi_callerid": self.callerid,
            "agi_calleridname": "unknown",
            "agi_context": "default",
            "agi_extension": self.extension,
            "agi_priority": "1",
            "agi_enhanced": "0.0",
            "agi_accountcode": self.accountcode,
            "agi_threadid": "1",
            **{f"agi_arg_{number}": value for number, value in enumerate(arguments, 1)},
        }
        return "".join(f"{name}: {value}\n" for name, value in headers.items()) + "\n"


def _assignments(text: str) -> dict[str, str]:
    """The assignments of MSet(A=1,B=2); parentheses hide commas, as in Asterisk."""
    found: dict[str, str] = {}
    depth, start = 0, 0
    for position, character in enumerate(text + ","):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            name, _, value = text[start:position].partition("=")
            found[name.strip()] = value
            start = position + 1
    return found
