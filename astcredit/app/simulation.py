"""One call played against a running server, as Asterisk would make it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from astcredit.app.clock import now_ms
from astcredit.app.settings import Settings
from astcredit.asterisk.simulator import SimulatedChannel

# A node of its own: no AMI link belongs to it, so the hangup script settles, whatever nodes the
# server listens to.
NODE = "simulate"
# What Asterisk would report besides the talk: ringing for three seconds, normal clearing.
RING_MS = 3_000
NORMAL_CLEARING, NO_ANSWER = 16, 19


@dataclass(frozen=True, slots=True)
class Step:
    """What one script answered: its name and the channel's AC_ variables after it."""

    script: str
    variables: Mapping[str, str]

    @property
    def call_id(self) -> str:
        return self.variables.get("AC_CALL", "")

    @property
    def allowed(self) -> bool:
        return self.variables.get("AC_STATUS") == "ALLOWED"


async def simulate(
    settings: Settings, number: str, accountcode: str, talk_seconds: int
) -> AsyncIterator[Step]:
    """Authorize, talk (no time passes), hang up, ask for the balance; a step for each script.

    `talk_seconds` 0 is a call that nobody answers. The call is cut where Asterisk would cut it,
    at AC_SECONDS. Raises SimulationError when the server does not answer.
    """
    host, port = settings.fastagi.listen
    uniqueid = f"{now_ms() / 1000:.3f}.{secrets.randbelow(10**6)}"
    channel = SimulatedChannel(host, port, uniqueid, accountcode, number)
    await channel.run("authorize", (number, accountcode, NODE))
    step = _step("authorize", channel)
    yield step
    if step.allowed:
        seconds = min(talk_seconds, int(channel.variables.get("AC_SECONDS") or 0))
        channel.variables |= _ending(seconds)
        await channel.run("hangup", (NODE,))
        yield _step("hangup", channel)
    await channel.run("balance")
    yield _step("balance", channel)


def _ending(seconds: int) -> dict[str, str]:
    return {
        "DIALSTATUS": "ANSWER" if seconds else "NOANSWER",
        "CDR(billsec,f)": f"{seconds}.000000",
        "DIALEDTIME_MS": str(RING_MS + seconds * 1000),
        "HANGUPCAUSE": str(NORMAL_CLEARING if seconds else NO_ANSWER),
        "BLINDTRANSFER": "",
    }


def _step(script: str, channel: SimulatedChannel) -> Step:
    found = {name: value for name, value in channel.variables.items() if name.startswith("AC_")}
    return Step(script, found)
