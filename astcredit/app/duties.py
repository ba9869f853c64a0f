"""Who does what, where several processes are one server. Pure.

Each Asterisk server is listened to by one process, for its events are to be heard once and in
their order; connections from dialplans may go to any. To answer a call's questions and to hear its
events cost about the same, so that with two processes one does this and one that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duty:
    """What one process of a server does.

    `number`: which it is, from 0. `nodes`: the Asterisk servers to whose events it listens.
    `answers`: it serves FastAGI. `keeps_house`: it closes what is past its time and sends mails,
    which must not be done twice at once.
    """

    number: int
    nodes: tuple[str, ...]
    answers: bool
    keeps_house: bool


def duties(workers: int, nodes: Sequence[str]) -> list[Duty]:
    """The duties of so many processes (one at least), of whom each node needs one listener.

    One process does everything. Of several up to half listen, each to its share of the nodes, and
    the others answer; without nodes all of them answer. The first keeps house.
    """
    if workers == 1:
        return [Duty(0, tuple(nodes), answers=True, keeps_house=True)]
    listeners = min(len(nodes), workers // 2)
    return [
        Duty(
            number,
            tuple(nodes[number::listeners]) if number < listeners else (),
            answers=number >= listeners,
            keeps_house=number == 0,
        )
        for number in range(workers)
    ]
