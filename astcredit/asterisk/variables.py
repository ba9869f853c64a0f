"""Channel variables over AGI: many in one round trip, and nothing hostile among them.

Reading: `GET FULL VARIABLE "${A}|${B}"`. Asterisk substitutes once, so a value that reads `${…}`
stays text; a value with a `|` would shift the others, so the separators are counted, and if there
is one too many each variable is read by itself.

Writing: `EXEC MSet "A=1,B=2"`. MSet splits at commas outside brackets and drops quotes and
backslashes, so a comma, or a bracket without its pair, in one value eats the next variables. Such
values never get here: texts for people are cleaned (`clean_text`, `clean_number`), and what must
arrive unchanged (a dial string, its options) is refused when it cannot (`exact`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Protocol

from astcredit.asterisk.agi import AgiHungUp, AgiProtocolError, AgiReply
from astcredit.domain.text import printable
from astcredit.service.errors import AstcreditError

MSET_BYTES = 1_900
"""Longest MSet command: Asterisk 16 reads an AGI command into 2,048 bytes."""

MSET_PAIRS = 20
"""Most pairs in one MSet: Asterisk 16 takes 24."""

MOST_TEXT = 160
"""Characters of AC_REASON: two lines on a console."""

MOST_NUMBER = 80
"""Characters of a caller id: Asterisk keeps 80 in a CDR's `src`."""

MOST_EXACT = 400
"""Characters of a dial string: four of them fit into one MSet."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TEXT_SIGNS = frozenset(" .:-_/+@#*%=?!")
_NUMBER = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+*#._@-")
_EXACT = re.compile(r"[A-Za-z0-9@/.:;=+*#_&()\[\]^!~%-]*", re.ASCII)
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f\"\\$`{},']")
_BRACKETS = {")": "(", "]": "["}

# What is clean already, which is nearly everything, is recognised in one look; what is not is gone
# through sign by sign.
_CLEAN_TEXT = re.compile(r"(?:[A-Za-z0-9.:_/+@#*%=?!-]+(?: [A-Za-z0-9.:_/+@#*%=?!-]+)*)?", re.ASCII)
_CLEAN_NUMBER = re.compile(r"[0-9a-zA-Z+*#._@-]*", re.ASCII)
_CLEAN_EXACT = re.compile(
    r"[A-Za-z0-9@/.:;=+*_&^!~%#-]*(?:\([A-Za-z0-9@/.:;=+*_&^!~%#-]*\))?", re.ASCII
)
_SIGNS = "-A-Za-z0-9@/.:;=+*_&^!~%# "
_CLEAN_PAIRS = re.compile(rf"[{_SIGNS},]*(?:\([{_SIGNS}]*\)[{_SIGNS},]*)*", re.ASCII)


class UnsafeValue(AstcreditError):  # noqa: N818 - names the value, not the act
    """A value of ours that cannot be sent to Asterisk unchanged."""


class AgiCommands(Protocol):
    """A peer that takes AGI commands, one at a time."""

    @property
    def hung_up(self) -> bool:
        """Asterisk has told that the channel is hung up."""

    async def command(self, line: str) -> AgiReply:
        """Send one command and wait for its reply. Raises AgiError when there will be none."""


class ChannelVariables:
    """Reads and writes the variables of the channel that is at the other end of `commands`."""

    def __init__(self, commands: AgiCommands) -> None:
        self._commands = commands
        self._mset_known = True

    @property
    def hung_up(self) -> bool:
        """Whether Asterisk has told that the channel is hung up."""
        return self._commands.hung_up

    async def get_variables(self, names: Sequence[str]) -> dict[str, str]:
        """The values of variables and functions, `CDR(billsec,f)` for example.

        What is not set, or not known to the peer, is empty. Raises AgiError.
        """
        reply = await self._ask(read_command(tuple(names)))
        values = split_values(reply.data or "", len(names)) if reply.result == "1" else None
        if values is None:
            return {name: await self._get_one(name) for name in names}
        found = dict(zip(names, values, strict=True))
        for name, value in found.items():
            if value == f"${{{name}}}":  # a peer that knows no such function
                found[name] = await self._get_one(name)
        return found

    async def set_variables(self, values: Mapping[str, str]) -> None:
        """Set all of them; when this returns, Asterisk has said that it did.

        Raises UnsafeValue before anything is sent, AgiError when it cannot be known.
        """
        for command in list(mset_commands(values)) if self._mset_known else []:
            if (await self._ask(command)).refused:
                self._mset_known = False
                break
        if not self._mset_known:
            await self._set_each(values)

    async def _set_each(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            reply = await self._ask(f'SET VARIABLE {name} "{_sendable(name, value)}"')
            if reply.code != 200:
                raise AgiProtocolError(f"SET VARIABLE was answered with {reply.code}")

    async def _get_one(self, name: str) -> str:
        reply = await self._ask(f"GET VARIABLE {name}")
        return (reply.data or "") if reply.result == "1" else ""

    async def _ask(self, command: str) -> AgiReply:
        reply = await self._commands.command(command)
        if reply.hung_up:
            raise AgiHungUp("the channel is hung up")
        return reply


@cache
def read_command(names: tuple[str, ...]) -> str:
    """The command that reads all `names`, which are constants of this program, at once."""
    return 'GET FULL VARIABLE "' + "|".join(f"${{{name}}}" for name in names) + '"'


def split_values(data: str, count: int) -> list[str] | None:
    """The values that `read_command` asked for; None if one of them contains the separator."""
    values = data.split("|") if count > 1 else [data]
    return values if len(values) == count else None


def mset_commands(values: Mapping[str, str]) -> Iterator[str]:
    """The commands that set `values`: one, unless they are very long. Raises UnsafeValue."""
    if (command := _one_command(values)) is not None:
        yield command
        return
    pairs: list[str] = []
    for name, value in values.items():
        pair = f"{name}={_sendable(name, value)}"
        if pairs and (len(pairs) == MSET_PAIRS or len(_mset([*pairs, pair]).encode()) > MSET_BYTES):
            yield _mset(pairs)
            pairs = []
        pairs.append(pair)
    if pairs:
        yield _mset(pairs)


def _one_command(values: Mapping[str, str]) -> str | None:
    """The command that sets `values`, if one look shows that one does and that all can be sent.

    No more commas than stand between pairs: so there is none in a value, and each pair is one.
    """
    pairs = ",".join([f"{name}={value}" for name, value in values.items()])
    if not 0 < len(values) <= MSET_PAIRS or pairs.count(",") >= len(values):
        return None
    names = pairs.isascii() and all(map(str.isidentifier, values))
    command = _mset([pairs])
    fits = len(command) <= MSET_BYTES
    return command if names and fits and _CLEAN_PAIRS.fullmatch(pairs) else None


def _mset(pairs: Sequence[str]) -> str:
    return 'EXEC MSet "' + ",".join(pairs) + '"'


def _sendable(name: str, value: str) -> str:
    """The last check before the wire, whoever made the value."""
    if not _NAME.fullmatch(name) or _UNSENDABLE.search(value) or not _balanced(value):
        raise UnsafeValue(f"{printable(name)} cannot be {printable(value)}")
    return value


def _balanced(value: str) -> bool:
    """Whether each bracket has its pair, as MSet counts them."""
    open_brackets: list[str] = []
    for sign in value:
        if sign in "([":
            open_brackets.append(sign)
        elif sign in _BRACKETS and (not open_brackets or open_brackets.pop() != _BRACKETS[sign]):
            return False
    return not open_brackets


def clean_text(text: str) -> str:
    """`text` for a person: one line of letters, digits and harmless signs.

    Commas, quotes, brackets, control characters and whatever else is not on the list become
    spaces. At most MOST_TEXT characters.
    """
    if len(text) <= MOST_TEXT and _CLEAN_TEXT.fullmatch(text):
        return text
    looked_at = text[: MOST_TEXT * 4]  # a hostile text may be long, and most of it spaces
    kept = (sign if sign.isalnum() or sign in _TEXT_SIGNS else " " for sign in looked_at)
    return " ".join("".join(kept).split())[:MOST_TEXT].rstrip()


def clean_number(text: str) -> str:
    """A caller id to present: what is not part of a number or of a SIP user's name is left out."""
    if len(text) <= MOST_NUMBER and _CLEAN_NUMBER.fullmatch(text):
        return text
    return "".join(sign for sign in text if sign in _NUMBER)[:MOST_NUMBER]


def exact(name: str, value: str) -> str:
    """`value` as it is. Raises UnsafeValue if Asterisk would get, or do, something else."""
    if len(value) <= MOST_EXACT and _CLEAN_EXACT.fullmatch(value):
        return value
    if len(value) > MOST_EXACT or not _EXACT.fullmatch(value) or not _balanced(value):
        raise UnsafeValue(f"{name} cannot be {printable(value)}")
    return value
