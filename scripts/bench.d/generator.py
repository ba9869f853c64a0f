"""The load generator: a process that is Asterisk for a controller, its AGI and its manager side.

It takes one command a line on stdin (JSON) and answers each with a line on stdout. One thread, raw
sockets and epoll, so that what is measured is the controller: its own CPU is in every answer.

    {"do": "calls", "port": 4573, "at_once": 16, "calls": 1000, …}    see load.Plan
    {"do": "end", "talk_ms": 60000}               hang up all that are up, after so long a talk
    {"do": "blast", "noise": N, "attempts": N}    events at once, then the end of all calls
    {"do": "state"}
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TextIO

from asterisk_texts import ENDED_CALL, EVENTS_OF_ATTEMPT, FAILED_ATTEMPT, NOISE
from load import Load, Plan
from manager_side import LiveCall, ManagerSide

_FINE_SECONDS = 0.002
"""epoll counts in whole milliseconds: waits below this are done by select, which counts in µs."""
_MOST_WAITING = 4_000_000
"""Bytes of events that may wait for the controller before more are made."""
_PIECES_A_TURN = 64


class Generator:
    """All of it. `run` returns when stdin ends."""

    def __init__(self, commands: int, answers: TextIO) -> None:
        self._poller = select.epoll()
        self._live: dict[bytes, LiveCall] = {}
        self._manager = ManagerSide(self._poller, self._live, self._end)
        self._commands = commands
        self._answers = answers
        self._poller.register(commands, select.EPOLLIN)
        self._epoch = int(time.time())
        self._serial = 1
        self._load: Load | None = None
        self._stream: Iterator[bytes] | None = None
        self._closed = False
        self._cpu = self._wall = 0.0
        self._say({"ami_port": self._manager.port, "pid": os.getpid()})

    def run(self) -> None:
        """Work until the commands end."""
        while not self._closed:
            for fd, flags in self._poll():
                if self._load is not None and self._load.handle(fd, flags):
                    continue
                if fd == self._commands:
                    self._command()
                else:
                    self._manager.handle(fd, flags)
            self._turn()
            self._manager.flush()

    def _poll(self) -> Sequence[tuple[int, int]]:
        wait = self._seconds_to_wait()
        if wait is not None and 0 < wait < _FINE_SECONDS:
            select.select([self._poller.fileno()], [], [], wait)
            wait = 0
        return self._poller.poll(-1 if wait is None else wait)

    def _seconds_to_wait(self) -> float | None:
        if self._stream is not None:
            return 0 if self._manager.waiting < _MOST_WAITING else None
        due = self._load.next_due() if self._load is not None else None
        return None if due is None else max(0.0, due - time.monotonic())

    def _turn(self) -> None:
        if self._stream is not None and self._manager.waiting < _MOST_WAITING:
            pieces = list(islice(self._stream, _PIECES_A_TURN))
            for piece in pieces:
                self._manager.send(piece)
            if not pieces:
                self._finish({})
        elif self._stream is None and self._load is not None:
            self._load.turn()
            if self._load.done:
                self._finish(_told(self._load))

    # ---- commands

    def _command(self) -> None:
        line = os.read(self._commands, 65_536)
        if not line:
            self._closed = True
            return
        command: dict[str, Any] = json.loads(line)
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._manager.longest_stall, self._manager.lost = 0.0, 0
        match command.pop("do"):
            case "calls":
                send = self._manager.send
                plan = Plan(**command)
                self._load = Load(plan, self._poller, self._live, send, self._serial, self._epoch)
            case "end":
                self._stream = self._endings(**command)
            case "blast":
                self._stream = self._blast(**command)
            case "state":
                self._finish({})

    def _finish(self, found: Mapping[str, Any]) -> None:
        """Answer the command that is done."""
        now = time.monotonic()
        if self._load is not None:
            self._serial = self._load.serial
        self._load = self._stream = None
        self._manager.flush()
        self._say(
            {
                "began": self._wall,
                "ended": now,
                **found,
                "cpu": time.process_time() - self._cpu,
                "up": len(self._live),
                "sessions": self._manager.sessions,
                "lost": self._manager.lost,
                "stall": self._manager.longest_stall,
            }
        )

    def _say(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)

    def _end(self, call: LiveCall) -> None:
        """The controller wants a call to end."""
        if self._live.pop(call.uniqueid, None) is not None:
            self._manager.send(ENDED_CALL % call.values(time.time_ns() // 1000))

    def _endings(self, talk_ms: int = 60_000) -> Iterator[bytes]:
        """The end of each call that is up, so long after its answer."""
        for call in list(self._live.values()):
            if self._live.pop(call.uniqueid, None) is not None:
                yield ENDED_CALL % call.values(call.answered_us + talk_ms * 1_000)

    def _blast(self, noise: int, attempts: int) -> Iterator[bytes]:
        """So many events that mean nothing and so many of failed attempts, mixed, then the ends of
        all calls that are up."""
        call = LiveCall(0, b"client0", b"442071230000", self._epoch)
        values = call.values(time.time_ns() // 1000)
        useless = b"".join(NOISE[n % len(NOISE)] for n in range(100)) % values
        attempt = (FAILED_ATTEMPT % values) * 20
        pieces = max(noise // 100, attempts // (20 * EVENTS_OF_ATTEMPT))
        for n in range(pieces):
            if n < noise // 100:
                yield useless
            if n < attempts // (20 * EVENTS_OF_ATTEMPT):
                yield attempt
        yield from self._endings()


def _told(load: Load) -> dict[str, Any]:
    outcome = load.outcome
    latencies = sorted(outcome.latencies)
    return {
        "began": outcome.began,
        "ended": outcome.ended,
        "calls": len(latencies),
        "statuses": dict(outcome.statuses),
        "faults": dict(outcome.faults),
        "late": outcome.late,
        **{name: _share(latencies, share) for name, share in _SHARES.items()},
    }


_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "worst": 1.0}


def _share(ordered: Sequence[float], share: float) -> float:
    """The value that this share of all do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


if __name__ == "__main__":
    gc.disable()  # nothing here refers to itself: each look for cycles would find none
    Generator(sys.stdin.fileno(), sys.stdout).run()
