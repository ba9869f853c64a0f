"""What callers and carriers are going to do, drawn before the call begins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from simulation.chance import Chance
from simulation.world import CALLERS, EMERGENCY, PREFIXES, World


class Finish(Enum):
    """Who ends a conversation, and how."""

    CALLEE = auto()
    CALLER = auto()
    BLIND = auto()
    """The caller transfers the callee to another number and is gone."""
    ATTENDED = auto()
    """The caller calls another number and then connects the two callees."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What comes of dialling one carrier: a DIALSTATUS after so many seconds of ringing.

    `unseen`: Dial finds nothing to dial and no event tells of it.
    """

    status: str
    ring: float
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call: `then` is the transfer's target, `again` what the caller tries after a failure.

    `patience`: after so many seconds of ringing the caller hangs up.
    """

    account: str
    number: str
    attempts: tuple[Attempt, ...]
    patience: float
    talk: float
    finish: Finish
    then: CallPlan | None = None
    again: CallPlan | None = None
    impatient: bool = False
    """The caller hangs up while the dialplan still asks whether the call may be made."""

    @property
    def emergency(self) -> bool:
        return self.number == EMERGENCY


OUTCOMES = (
    ("ANSWER", 6.0),
    ("BUSY", 0.7),
    ("NOANSWER", 0.4),
    ("CONGESTION", 1.5),
    ("CHANUNAVAIL", 0.8),
)


def draw_plan(world: World, chance: Chance, transfers: float, depth: int = 0) -> CallPlan:
    """A call by chance; `transfers`: how often an answered call is transferred."""
    client = chance.pick(CALLERS)
    account = chance.pick(world.accounts_of(client))
    attempts = tuple(_attempt(chance) for _ in range(4))
    finish = Finish.CALLEE if chance.happens(0.5) else Finish.CALLER
    then = again = None
    if depth < 2 and chance.happens(transfers):
        finish = Finish.BLIND if chance.happens(0.5) else Finish.ATTENDED
        then = draw_plan(world, chance, transfers, depth + 1)
    if depth == 0 and chance.happens(0.3):
        again = draw_plan(world, chance, transfers, depth + 1)
    return CallPlan(
        account,
        _number(chance),
        attempts,
        chance.about(60),
        chance.about(chance.pick((2, 20, 60))),
        finish,
        then,
        again,
        chance.happens(0.03),
    )


def _attempt(chance: Chance) -> Attempt:
    status = chance.weighted(OUTCOMES)
    if status == "CHANUNAVAIL" and chance.happens(0.4):
        return Attempt(status, chance.between(0, 0.01), unseen=True)
    return Attempt(status, chance.about(chance.pick((0.05, 2, 12))))


def _number(chance: Chance) -> str:
    if chance.happens(0.02):
        return EMERGENCY
    if chance.happens(0.01):
        return "99512345678"  # nobody has a rate for it
    return chance.pick(PREFIXES) + str(chance.whole(1_000_000, 9_999_999))
