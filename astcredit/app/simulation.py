"""One call played against a running server, as Asterisk and its dialplan would make it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from astcredit.app.clock import now_ms
from astcredit.app.settings import Settings
from astcredit.asterisk.simulator import PJSIP, SimulatedChannel

# A node of its own: no AMI link belongs to it, so the hangup script settles, whatever nodes the
# server listens to.
NODE = "simulate"
# Asterisk's own name for the endpoint of a caller that it does not know.
UNKNOWN_ENDPOINT = "anonymous"
# What Asterisk would report besides the talk: ringing for three seconds, normal clearing.
RING_MS = 3_000
NORMAL_CLEARING, NO_ANSWER = 16, 19
# A terminator that cannot be reached, as Dial reports it: Q.850 subscriber absent.
UNREACHABLE, SUBSCRIBER_ABSENT = "CHANUNAVAIL", 20


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """Who calls whom, and how it goes. What is empty is not known of the call.

    `account` is the accountcode that the call brings and that the dialplan names. `endpoint` and
    `address` (ADDRESS[:PORT]) make it a call over PJSIP. `source` is the address that the dialplan
    hands over. The first `failing` routes cannot be reached. `talk_seconds` 0 is a call that
    nobody answers.
    """

    number: str
    account: str = ""
    endpoint: str = ""
    address: str = ""
    source: str = ""
    callerid: str = ""
    node: str = NODE
    talk_seconds: int = 60
    failing: int = 0

    def channel(self, host: str, port: int) -> SimulatedChannel:
        """The calling channel, on which the scripts run."""
        uniqueid = f"{now_ms() / 1000:.3f}.{secrets.randbelow(10**6)}"
        channel = SimulatedChannel(host, port, uniqueid, self.account, self.number)
        if self.endpoint or self.address:
            name = self.endpoint or UNKNOWN_ENDPOINT
            channel.channel = f"{PJSIP}{name}-{secrets.token_hex(4)}"
            channel.remote_address = self.address
        if self.callerid:
            channel.callerid = self.callerid
        return channel


@dataclass(frozen=True, slots=True)
class Step:
    """What one script answered: its name and the channel's AC_ variables after it.

    `unreachable` is the dial string that failed before, where that was why it was asked.
    """

    script: str
    variables: Mapping[str, str]
    unreachable: str = ""

    @property
    def call_id(self) -> str:
        return self.variables.get("AC_CALL", "")

    @property
    def allowed(self) -> bool:
        return self.variables.get("AC_STATUS") == "ALLOWED"

    @property
    def dial(self) -> str:
        return self.variables.get("AC_DIAL", "")

    @property
    def refuses(self) -> bool:
        """Whether the call cannot be made (any more)."""
        return self.script in ("authorize", "next-route") and not self.allowed


async def simulate(settings: Settings, call: SimulatedCall) -> AsyncIterator[Step]:
    """Authorize, try the routes, talk (no time passes), hang up, ask for the balance; a step for
    each script.

    The call is cut where Asterisk would cut it, at AC_SECONDS. Raises SimulationError when the
    server does not answer.
    """
    channel = call.channel(*settings.fastagi.listen)
    step = await _run(channel, "authorize", call.number, call.account, call.node, call.source)
    yield step
    failed = 0
    while failed < call.failing and step.allowed and step.dial:
        failed += 1
        step = await _next_route(channel, call, step.dial)
        yield step
    if step.allowed or failed:  # there is a reservation
        reached = step.allowed and failed == call.failing
        channel.variables |= _ending(call.talk_seconds, channel) if reached else _unreachable()
        yield await _run(channel, "hangup", call.node)
    yield await _run(channel, "balance")


async def _next_route(channel: SimulatedChannel, call: SimulatedCall, unreachable: str) -> Step:
    """What the dialplan does when a route cannot be reached."""
    channel.variables |= {**_unreachable(), "AC_STATUS": "", "AC_DIAL": ""}
    return await _run(channel, "next-route", call.node, unreachable=unreachable)


async def _run(
    channel: SimulatedChannel, script: str, *arguments: str, unreachable: str = ""
) -> Step:
    await channel.run(script, arguments)
    found = {name: value for name, value in channel.variables.items() if name.startswith("AC_")}
    return Step(script, found, unreachable)


def _ending(talk_seconds: int, channel: SimulatedChannel) -> dict[str, str]:
    seconds = min(talk_seconds, int(channel.variables.get("AC_SECONDS") or 0))
    return {
        "DIALSTATUS": "ANSWER" if seconds else "NOANSWER",
        "CDR(billsec,f)": f"{seconds}.000000",
        "DIALEDTIME_MS": str(RING_MS + seconds * 1000),
        "HANGUPCAUSE": str(NORMAL_CLEARING if seconds else NO_ANSWER),
        "BLINDTRANSFER": "",
    }


def _unreachable() -> dict[str, str]:
    return {
        "DIALSTATUS": UNREACHABLE,
        "CDR(billsec,f)": "0.000000",
        "DIALEDTIME_MS": "0",
        "HANGUPCAUSE": str(SUBSCRIBER_ABSENT),
        "BLINDTRANSFER": "",
    }
