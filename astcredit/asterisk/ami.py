"""The link to one Asterisk server: hears what happens to its calls, and asks what is true.

A link is kept up for ever: connect, log in, ask Asterisk who it is, listen; ask every few seconds
whether it is still there; when it is not, say so and begin again. While a link is down nothing
that happens on that server is heard. Who was told by `on_change` that it is up again has to ask
`channels()` what still lives: that list is complete or there is none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from astcredit.asterisk.ami_node import AmiNode, parse_ami_url
from astcredit.asterisk.ami_session import (
    AmiError,
    AmiIncompleteError,
    AmiLostError,
    AmiRefusedError,
    AmiRejectedError,
    AmiSession,
    AmiTimeoutError,
    AmiTimes,
    Headers,
    text_of,
)
from astcredit.asterisk.legs import LegTracker, Seen, call_variable
from astcredit.domain.calls import LegAnswered
from astcredit.service.ports import LegEvents, LiveChannel

__all__ = [
    "AmiError",
    "AmiIncompleteError",
    "AmiLink",
    "AmiLostError",
    "AmiNode",
    "AmiRefusedError",
    "AmiRejectedError",
    "AmiTimeoutError",
    "AmiTimes",
    "LinkPhase",
    "LinkState",
    "LiveChannel",
    "parse_ami_url",
]

EVENT_FILTERS: Final = (
    "^Event: (DialBegin|DialEnd|Hangup|FullyBooted|Shutdown)[^A-Za-z]",
    "![[:cntrl:]]{4}[^[:cntrl:]]",
)
"""What Asterisk shall send and, after the `!`, what not. The first: of some 30 events a call, the
three or four that matter (the end of it keeps HangupRequest out).

The second is against forgery. Asterisk 22 decodes `%0d%0a` in the user part of a SIP address and
writes it raw into CallerIDNum and Exten: a caller could end an event there and put one of their
own behind it, say the hangup of a call that goes on. An event with an empty line in it is
therefore dropped at the source, and `^` keeps out those that only quote a name in their text.
Answers to actions pass any filter."""

NORMAL_CLEARING: Final = 16
"""Q.850: the call is ended because one of the users has asked for it."""

SHORTEST_LIMIT: Final = 0.1
"""Seconds: Asterisk takes a timeout of 0 for none."""

_EPOCH = re.compile(r"([0-9]{9,12})\.([0-9]{1,9})")
_LEG = re.compile(r"AC_LEG=([0-9A-Za-z]{1,64})/([0-9.]{0,24})")
_NUMBER = re.compile(r"[0-9]{1,10}")
_DURATION = re.compile(r"([0-9]{1,6}):([0-9]{2}):([0-9]{2})")

_log = logging.getLogger(__name__)


class LinkPhase(StrEnum):
    """What a link is doing."""

    CONNECTING = "connecting"
    """Started, and not yet known whether Asterisk can be reached."""
    UP = "up"
    """Logged in: events are heard."""
    DOWN = "down"
    """Cannot be reached, or not any more; tried again and again."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of a link now. What comes from Asterisk is that of the last time it was up.

    `since_ms` is when the phase began, `reason` why the link is down. `heard_until_ms`: what
    happened until then, by Asterisk's clock, has been heard, for Asterisk answered a question that
    was sent then. `asterisk_started` is the start of Asterisk in its own words (CoreStatus, no time
    zone): compare it, do not read it; when it has changed, every earlier channel is gone.
    `asterisk_started_ms` is that instant to a second or so, None where Asterisk did not (yet) say
    for how long it has been up.
    """

    phase: LinkPhase
    since_ms: int
    reason: str = ""
    last_event_ms: int | None = None
    heard_until_ms: int | None = None
    version: str = ""
    system_name: str = ""
    asterisk_started: str = ""
    asterisk_started_ms: int | None = None


class AmiLink:
    """Keeps the manager interface of one Asterisk server and brings what it hears to `events`.

    `now_ms` is the clock, ms since 1970. `on_change` is called with the link after each change of
    its phase. Both, and `events`, are called in the event loop and must not block.
    """

    def __init__(
        self,
        node: AmiNode,
        events: LegEvents,
        now_ms: Callable[[], int],
        *,
        times: AmiTimes | None = None,
        on_change: Callable[[AmiLink], None] | None = None,
    ) -> None:
        self.node = node
        self._events = events
        self._now_ms = now_ms
        self._times = times or AmiTimes()
        self._on_change = on_change
        self._tracker = LegTracker(node.name)
        self._session: AmiSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._last_event_ms: int | None = None
        self._heard_until_ms: int | None = None
        self._started_ms: int | None = None
        self._state = LinkState(LinkPhase.DOWN, now_ms(), "not started")

    @property
    def state(self) -> LinkState:
        return replace(
            self._state,
            last_event_ms=self._last_event_ms,
            heard_until_ms=self._heard_until_ms,
            asterisk_started_ms=self._started_ms,
        )

    @property
    def up(self) -> bool:
        """Whether what happens on this server is heard now."""
        return self._up.is_set()

    @property
    def behind_seconds(self) -> float:
        """For how long the oldest thing that this server sent has waited here, and is not handled
        yet; 0 when there is none. May be read from any thread."""
        session = self._session
        return session.behind_seconds if session else 0.0

    @property
    def waiting_bytes(self) -> int:
        """How much this server has sent that is not handled yet. May be read from any thread."""
        session = self._session
        return session.waiting_bytes if session else 0

    async def start(self) -> None:
        """Begin to connect, and keep connected until `stop`. Returns at once."""
        if self._task is None:
            self._enter(LinkPhase.CONNECTING)
            self._task = asyncio.create_task(self._run(), name=f"ami {self.node.name}")

    async def stop(self) -> None:
        """Close the link. What waits for an answer gets AmiLostError."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._enter(LinkPhase.DOWN, "stopped")

    async def wait_up(self) -> None:
        """Return as soon as the link is up; the caller sets the deadline."""
        await self._up.wait()

    async def channels(self) -> list[LiveChannel]:
        """All channels that live on this server now.

        Raises AmiError unless the list is complete: AmiLostError when the link is down or breaks,
        AmiIncompleteError, AmiRejectedError when the manager user may not ask.
        """
        return await _live_channels(self._live_session())

    async def hangup(self, uniqueid: str, cause: int = NORMAL_CLEARING) -> bool:
        """Hang up the channel with that unique id; False if there is none (any more).

        `cause` is Q.850. Raises AmiError; after AmiLostError it may have been done or not, but it
        will not be done later.
        """
        session = self._live_session()
        names = [c.name for c in await _live_channels(session) if c.uniqueid == uniqueid]
        if not names or names[0].startswith("/"):  # Asterisk reads /…/ as a pattern of many
            return False
        try:
            await session.request("Hangup", {"Channel": names[0], "Cause": str(cause)})
        except AmiRejectedError as error:
            if _is_no_channel(error):
                return False
            raise
        return True

    async def now_ms(self) -> int:
        """The time by Asterisk's clock, as it was when it was asked. Raises AmiError."""
        return await self._asterisk_ms(self._live_session())

    async def limit(self, channel: LiveChannel, seconds: float) -> bool:
        """End a channel after so many seconds from now, whatever happens to it meanwhile; False if
        it is not there (any more).

        Asterisk's AbsoluteTimeout: it stays with the channel through transfers, and a later one
        takes the place of an earlier. A manager user who may not set it is logged. Raises
        AmiLostError.
        """
        timeout = f"{max(seconds, SHORTEST_LIMIT):.3f}"
        # By its unique id: a name may hold what a stranger dialled.
        values = {"Channel": channel.uniqueid, "Timeout": timeout}
        try:
            await self._live_session().request("AbsoluteTimeout", values)
        except AmiRejectedError as error:
            if _is_no_channel(error):
                return False
            self._note_rejected("AbsoluteTimeout", error)
        return True

    async def answered_at_ms(self, leg: LiveChannel) -> int | None:
        """When a leg was answered, by its own CDR; None if Asterisk does not (any more) know.

        The calling channel's CDR would count from its own answer, which may be long before. A leg
        that was transferred has a new CDR, which begins at that moment as answered. Raises
        AmiLostError.
        """
        started = await self._cdr_instant(leg, "start")
        answered = await self._cdr_instant(leg, "answer")
        return None if started is None or answered is None or answered == started else answered

    async def _cdr_instant(self, channel: LiveChannel, what: str) -> int | None:
        values = {"Channel": channel.uniqueid, "Variable": f"CDR({what},u)"}
        try:
            reply = await self._live_session().request("Getvar", values)
        except AmiRejectedError:
            return None
        return _epoch_ms(text_of(reply, "Value"))

    async def _asterisk_ms(self, session: AmiSession) -> int:
        """Asterisk's time when it was asked at the latest: what it had sent until then is here. Its
        answer names its time; one that does not is taken to have this machine's clock."""
        loop = asyncio.get_running_loop()
        asked, asked_at_ms = loop.time(), self._now_ms()
        reply = await session.request("Ping", seconds=self._times.ping_reply)
        answered_at_ms = _epoch_ms(text_of(reply, "Timestamp"))
        if answered_at_ms is None:
            return asked_at_ms
        return answered_at_ms - math.ceil((loop.time() - asked) * 1000)

    def _live_session(self) -> AmiSession:
        if self._session is None or not self.up:
            raise AmiLostError(f"the AMI link to {self.node.name} is down")
        return self._session

    async def _run(self) -> None:
        while True:
            pause = self._times.reconnect
            try:
                await self._serve()
            except AmiRefusedError as error:
                pause = self._times.refused
                self._enter(LinkPhase.DOWN, str(error))
            except AmiError as error:
                self._enter(LinkPhase.DOWN, str(error))
            except Exception as error:
                _log.exception("AMI link failed", extra=self._extra("ami_fault"))
                self._enter(LinkPhase.DOWN, type(error).__name__)
            await asyncio.sleep(pause)

    async def _serve(self) -> None:
        """One connection, from its beginning to its end, which is always an exception."""
        self._heard_until_ms = None
        self._started_ms = None  # Asterisk says it again, after the login or when it has booted
        known = self._tracker.known()
        self._tracker.doubt()
        session = AmiSession(self.node, self._on_event, self._times)
        try:
            await session.open()
            await self._filter(session)
            state = await self._describe(session)
            await self._forget_gone(session, known)
            self._session, self._state = session, state
            self._enter(LinkPhase.UP)
            await self._watch(session)
        finally:
            self._session = None
            self._up.clear()
            session.close()

    async def _filter(self, session: AmiSession) -> None:
        """Needs `write=system`, more than a manager user should have: else manager.conf filters."""
        try:
            for text in EVENT_FILTERS:
                await session.request("Filter", {"Operation": "Add", "Filter": text})
        except AmiRejectedError as error:
            extra = self._extra("ami_filter_rejected") | {"reason": str(error)}
            _log.info("AMI events are filtered by manager.conf alone", extra=extra)

    async def _describe(self, session: AmiSession) -> LinkState:
        settings = await self._ask(session, "CoreSettings")
        status = await self._ask(session, "CoreStatus")
        started = f"{text_of(status, 'CoreStartupDate')} {text_of(status, 'CoreStartupTime')}"
        return replace(
            self._state,
            version=text_of(settings, "AsteriskVersion"),
            system_name=text_of(settings, "SystemName"),
            asterisk_started=started.strip(),
        )

    async def _ask(self, session: AmiSession, action: str) -> Headers:
        try:
            return await session.request(action)
        except AmiRejectedError as error:
            self._note_rejected(action, error)
            return {}

    async def _forget_gone(self, session: AmiSession, known: frozenset[str]) -> None:
        """Drop what the tracker knew before this connection and Asterisk knows no more."""
        try:
            live = await _live_channels(session)
        except (AmiRejectedError, AmiIncompleteError) as error:
            self._note_rejected("CoreShowChannels", error)
        else:
            self._tracker.forget(known - {channel.uniqueid for channel in live})

    async def _watch(self, session: AmiSession) -> None:
        while not await _happens(session.closed, self._times.ping):
            self._heard_until_ms = await self._asterisk_ms(session)
        raise AmiLostError(session.reason)

    def _on_event(self, event: Headers) -> None:
        now_ms = self._now_ms()
        self._last_event_ms = now_ms
        if text_of(event, "Event") == "FullyBooted":
            uptime = text_of(event, "Uptime")
            self._started_ms = now_ms - int(uptime) * 1000 if _NUMBER.fullmatch(uptime) else None
        tampered = self._tracker.tampered
        for seen in self._tracker.feed(event, now_ms):
            self._deliver(seen)
        if self._tracker.tampered > tampered:
            _log.warning("AMI event with a forged header", extra=self._extra("ami_tampered"))

    def _deliver(self, seen: Seen) -> None:
        try:
            if isinstance(seen, LegAnswered):
                self._events.leg_answered(seen)
            else:
                self._events.channel_ended(seen)
        except Exception:
            # A fault in what is done with one event must not cost the link, and with it others.
            _log.exception("AMI event not taken", extra=self._extra("ami_event_fault"))

    def _enter(self, phase: LinkPhase, reason: str = "") -> None:
        before, self._state = self._state, replace(self._state, phase=phase, reason=reason)
        if phase is LinkPhase.UP:
            self._up.set()
        if (before.phase, before.reason) == (phase, reason):
            return  # one more attempt that failed as the last one did
        level = logging.WARNING if phase is LinkPhase.DOWN else logging.INFO
        extra = self._extra(f"ami_{phase}") | {"reason": reason, "version": self._state.version}
        _log.log(level, "AMI link changed", extra=extra)
        if before.phase is not phase:
            self._state = replace(self._state, since_ms=self._now_ms())
            self._tell_change()

    def _tell_change(self) -> None:
        try:
            if self._on_change is not None:
                self._on_change(self)
        except Exception:
            _log.exception("AMI link's change not taken", extra=self._extra("ami_change_fault"))

    def _note_rejected(self, asked: str, error: AmiError) -> None:
        extra = self._extra("ami_rejected") | {"asked": asked, "reason": str(error)}
        _log.warning("Asterisk does not allow an AMI action", extra=extra)

    def _extra(self, action: str) -> dict[str, str]:
        return {"action": action, "node": self.node.name}


async def _live_channels(session: AmiSession) -> list[LiveChannel]:
    items = await session.request_list("CoreShowChannels")
    for item in items:
        if not all(isinstance(item.get(name), str) for name in ("Channel", "Uniqueid")):
            # Missing or repeated: text from a caller cut this channel out of the list.
            raise AmiIncompleteError("a channel in the list has no name or unique id of its own")
    return [_live_channel(item) for item in items]


def _live_channel(item: Headers) -> LiveChannel:
    age = _DURATION.fullmatch(text_of(item, "Duration"))
    hours, minutes, seconds = map(int, age.groups()) if age else (0, 0, 0)
    leg = _leg_variable(item)
    return LiveChannel(
        name=text_of(item, "Channel"),
        uniqueid=text_of(item, "Uniqueid"),
        linkedid=text_of(item, "Linkedid"),
        accountcode=text_of(item, "AccountCode"),
        state=text_of(item, "ChannelStateDesc"),
        seconds=hours * 3600 + minutes * 60 + seconds if age else None,
        call_id=call_variable(item),
        bridge_id=text_of(item, "BridgeId"),
        leg_of=leg[1] if leg else "",
        answered_at_ms=_epoch_ms(leg[2]) if leg else None,
    )


def _leg_variable(item: Headers) -> re.Match[str] | None:
    """What the dialplan noted on an outbound leg when it was answered: AC_LEG=CALL/ANSWER."""
    variables = item.get("ChanVariable", [])
    texts = [variables] if isinstance(variables, str) else variables
    return next(filter(None, map(_LEG.fullmatch, texts)), None)


def _is_no_channel(error: AmiRejectedError) -> bool:
    return str(error).lower().startswith("no such channel")


def _epoch_ms(text: str) -> int | None:
    """Seconds since 1970 with a fraction, in ms; None for another text."""
    match = _EPOCH.fullmatch(text)
    return int(match[1]) * 1000 + int(match[2][:3].ljust(3, "0")) if match else None


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
