"""Running an AGI script against a fake channel in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from astcredit.asterisk.agi import AgiReply, AgiRequest, HeaderParser, ReplyParser
from astcredit.asterisk.scripts import ANSWER_SECONDS, Scripts
from astcredit.asterisk.variables import ChannelVariables
from support.agi_fakes import FakeChannel, FakeControl, header_block

NOW_MS = 1_795_292_445_678


class Commands:
    """Commands to a fake channel. `before` is called with each: it may raise what the peer does."""

    def __init__(
        self, channel: FakeChannel, before: Callable[[str], None] = lambda command: None
    ) -> None:
        self._channel = channel
        self.before = before
        self.parser = ReplyParser()

    @property
    def hung_up(self) -> bool:
        return self.parser.hung_up

    async def command(self, line: str) -> AgiReply:
        await asyncio.sleep(0)
        self.before(line)
        self.parser.feed(self._channel.answer(line).encode())
        reply = self.parser.next_reply()
        assert reply is not None
        return reply


def request(script: str, *arguments: str, **changes: str) -> AgiRequest:
    found = HeaderParser().feed(header_block(script, arguments, **changes))
    assert found is not None
    return found


def make_scripts(control: FakeControl, answer_seconds: float = ANSWER_SECONDS) -> Scripts:
    numbers = count(1)
    return Scripts(
        control,
        new_call_id=lambda: f"call-{next(numbers)}",
        now_ms=lambda: NOW_MS,
        answer_seconds=answer_seconds,
    )


def play(
    control: FakeControl, asked: AgiRequest, channel: FakeChannel, node: str = "pbx1"
) -> dict[str, str]:
    """Run a script to its end; the channel's variables after it."""
    session = ChannelVariables(Commands(channel))
    asyncio.run(make_scripts(control).run(asked, session, node))
    return channel.variables
