"""A channel of Asterisk as AGI sees it, and a CallControl that does what a test says.

What the channel does was seen on Asterisk 22.10: how MSet splits its arguments, that values are
substituted once, what unknown things are answered with.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from astcredit.domain.calls import (
    Authorization,
    AuthStatus,
    CallRequest,
    Funds,
    HangupReport,
    Origin,
    RouteRequest,
)

ALLOWED = Authorization(
    status=AuthStatus.ALLOWED,
    reason="",
    call_id="",
    seconds=754,
    options="L(754000:60000:30000)",
    dial="PJSIP/442071234567@carrier",
    callerid="+4930123456",
    rate=12_000,
    reserved=150_800,
    available=9_849_200,
    number="442071234567",
    payer="acme office",
)

AC_VARIABLES = (
    "AC_STATUS",
    "AC_REASON",
    "AC_SECONDS",
    "AC_OPTS",
    "AC_DIAL",
    "AC_CALLERID",
    "AC_NUMBER",
    "AC_PAYER",
    "AC_RATE",
    "AC_RESERVED",
    "AC_AVAILABLE",
    "AC_CALL",
    "AC_CAUSE",
)
"""What `authorize` sets, always all of them: the public interface."""

LINKEDID = "1795292445.2"
SOURCE = "192.0.2.7:5060"
"""Where the fake channel's signalling comes from."""


@dataclass(slots=True)
class FakeControl:
    """Answers `answer`, once `gate` is set, or raises `error`; remembers what it was told."""

    answer: Authorization = ALLOWED
    error: BaseException | None = None
    gate: asyncio.Event | None = None
    account: Funds | None = None
    requests: list[CallRequest] = field(default_factory=list)
    routes: list[RouteRequest] = field(default_factory=list)
    reports: list[HangupReport] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def authorize(self, request: CallRequest) -> Authorization:
        self.requests.append(request)
        return await self._answered()

    async def next_route(self, request: RouteRequest) -> Authorization:
        self.routes.append(request)
        return await self._answered()

    async def report_hangup(self, report: HangupReport) -> None:
        await self._answered()
        self.reports.append(report)

    async def funds(self, origin: Origin, number: str = "") -> Funds | None:
        self.origins.append(origin)
        await self._answered()
        return self.account

    def abandon(self, call_id: str) -> None:
        self.abandoned.append(call_id)

    async def _answered(self) -> Authorization:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.answer


class FakeChannel:
    """A channel with variables, which answers AGI commands as Asterisk does.

    `mset=False` plays an Asterisk without MSet, `plain=True` one whose GET FULL VARIABLE knows
    no functions and leaves them as they stand.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        mset: bool = True,
        plain: bool = False,
        full: bool = True,
    ) -> None:
        known = {"CHANNEL(linkedid)": LINKEDID, "CHANNEL(pjsip,remote_addr)": SOURCE}
        self.variables = {**known, **(variables or {})}
        self.commands: list[str] = []
        self._mset = mset
        self._plain = plain
        self._full = full

    def answer(self, command: str) -> str:
        """Asterisk's answer, with its line end."""
        self.commands.append(command)
        words = agi_words(command)
        match words:
            case ["GET", "FULL", "VARIABLE", text] if self._full:
                return f"200 result=1 ({self._substituted(text)})\n"
            case ["GET", "VARIABLE", name]:
                value = self.variables.get(name, "")
                return f"200 result=1 ({value})\n" if value else "200 result=0\n"
            case ["SET", "VARIABLE", name, value]:
                self.variables[name] = value
                return "200 result=1\n"
            case ["EXEC", "MSet", pairs] if self._mset:
                for pair in mset_pairs(pairs):
                    name, _, value = pair.partition("=")
                    self.variables[name] = value
                return "200 result=0\n"
            case ["EXEC", _, _]:
                return "200 result=-2\n"
        return "510 Invalid or unknown command\n"

    def _substituted(self, text: str) -> str:
        names = r"\$\{(\w+)\}" if self._plain else r"\$\{([^{}]+)\}"
        return re.sub(names, lambda match: self.variables.get(match[1], ""), text)


def agi_words(command: str) -> list[str]:
    """The words of a command as res_agi's parse_args makes them: quotes, backslashes, blanks."""
    words: list[str] = []
    word: list[str] = []
    quoted = escaped = begun = False
    for sign in command:
        if escaped:
            word.append(sign)
            escaped = False
        elif sign == "\\":
            escaped = begun = True
        elif sign == '"':
            quoted = not quoted
            begun = True
        elif sign in " \t" and not quoted:
            if begun:
                words.append("".join(word))
            word, begun = [], False
        else:
            word.append(sign)
            begun = True
    return [*words, "".join(word)] if begun else words


def mset_pairs(text: str) -> list[str]:
    """The pairs that MSet sees, as ast_app_separate_args makes them."""
    pairs = [""]
    parens = brackets = 0
    quoted = escaped = False
    for sign in text:
        if escaped:
            pairs[-1] += sign
            escaped = False
            continue
        parens += (sign == "(") - (sign == ")" and parens > 0)
        brackets += (sign == "[") - (sign == "]" and brackets > 0)
        if sign == '"':
            quoted = not quoted
        elif sign == "\\":
            escaped = True
        elif sign == "," and not (parens or brackets or quoted):
            pairs.append("")
        else:
            pairs[-1] += sign
    return pairs


def header_block(script: str, arguments: Sequence[str] = (), **changes: str) -> bytes:
    """The request block that Asterisk 22 sends; `changes` replace values of `agi_` names."""
    headers = {
        "network": "yes",
        "network_script": script,
        "request": f"agi://127.0.0.1:4573/{script}",
        "channel": "PJSIP/acme-00000007",
        "language": "en",
        "type": "PJSIP",
        "uniqueid": "1795292445.7",
        "version": "22.10.1",
        "callerid": "030123456",
        "calleridname": "unknown",
        "dnid": "442071234567",
        "rdnis": "unknown",
        "context": "customers",
        "extension": "442071234567",
        "priority": "1",
        "enhanced": "0.0",
        "accountcode": "acme",
        "threadid": "140609853802176",
    }
    headers.update(changes)
    headers.update({f"arg_{number}": value for number, value in enumerate(arguments, 1)})
    lines = [f"agi_{name}: {value}\n" for name, value in headers.items()]
    return ("".join(lines) + "\n").encode("utf-8", "surrogateescape")
