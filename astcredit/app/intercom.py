"""What the processes of one server tell each other.

A process that answers dialplans has no link to Asterisk. What it wants of one (end a leg, look at
what lives), and the reports that wait for the listener's word, it tells the process that listens.
Whether a link is up, the listener writes where all of them can read it.

Everything is made before the processes are, and stays with the one that starts them: what was told
to a listener that died is read by its successor. Nothing here waits, and nothing that is lost is
missed for good: recovery and the sweep find what nobody told of.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mmap
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from astcredit.app.duties import Duty
from astcredit.domain.calls import HangupReport
from astcredit.service.controller import Legs

log = logging.getLogger(__name__)

# What waits for a listener that is busy or dead: some thousand messages, the calls of a second.
# The kernel gives less where net.core.wmem_max says so.
WAITING_BYTES = 4 * 1024 * 1024
# The longest message: a report, whose texts come from one AGI reply each.
MESSAGE_BYTES = 256 * 1024
# Read at once, before the event loop does something else.
MESSAGES_AT_ONCE = 256

UP, DOWN = 1, 0


class Intercom:
    """The lines to the listeners, and a board on which the state of each link stands.

    One object for all processes: each has its copy of it once it is forked. A context manager, for
    the process that makes it.
    """

    def __init__(self, duties: Sequence[Duty]) -> None:
        nodes = [node for duty in duties for node in duty.nodes]
        self._places = {node: place for place, node in enumerate(nodes)}
        self._board = mmap.mmap(-1, max(1, len(nodes)))  # shared, and all DOWN
        self._lines = {duty.number: _Line(duty.number) for duty in duties if duty.nodes}
        self._listeners = {node: duty.number for duty in duties for node in duty.nodes}

    def __enter__(self) -> Intercom:
        return self

    def __exit__(self, *error: object) -> None:
        for line in self._lines.values():
            line.close()
        self._board.close()

    def up(self, node: str) -> bool:
        """Whether somebody hears now what happens on that node."""
        place = self._places.get(node)
        return place is not None and self._board[place] == UP

    @property
    def down(self) -> list[str]:
        """The nodes that nobody hears."""
        return [node for node in self._places if not self.up(node)]

    def mark(self, node: str, up: bool) -> None:
        """Let all processes know whether a link is up. For its listener."""
        self._board[self._places[node]] = UP if up else DOWN

    def silence(self, nodes: Iterable[str]) -> None:
        """Their listener is dead. For whoever saw it die."""
        for node in nodes:
            self.mark(node, False)

    def end(self, node: str, uniqueid: str) -> None:
        """Let the listener end a channel."""
        self._tell(node, "end", node, uniqueid)

    def look(self, node: str) -> None:
        """Let the listener compare the open calls of a node with what lives there."""
        self._tell(node, "look", node)

    def report(self, report: HangupReport) -> None:
        """Let the listener keep a report, should it turn out to have been deaf."""
        self._tell(report.node, "report", asdict(report))

    def _tell(self, node: str, *message: object) -> None:
        listener = self._listeners.get(node)
        if listener is not None:  # else it is nobody's node: there is no link to it
            self._lines[listener].send(json.dumps(message).encode())

    @contextmanager
    def listening(
        self, number: int, legs: Legs, keep: Callable[[HangupReport], None]
    ) -> Iterator[None]:
        """Do what process `number` is told by the others while the block runs, if it listens."""
        line = self._lines.get(number)
        if line is None:
            yield
            return
        loop, ear = asyncio.get_running_loop(), _Ear(legs, keep)
        loop.add_reader(line.out, lambda: line.receive(ear))
        try:
            yield
        finally:
            loop.remove_reader(line.out)


class _Line:
    """Messages to one listener. A full line loses what does not fit, and says so."""

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._into, self.out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._into.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WAITING_BYTES)
        for end in (self._into, self.out):
            end.setblocking(False)
        self._lost = 0

    def send(self, message: bytes) -> None:
        try:
            self._into.send(message)
        except OSError as error:
            if not self._lost:  # told once: it may be thousands a second
                extra = {"action": "listener_not_told", "error": str(error)}
                log.warning("listener not told", extra=extra | {"worker": self._listener})
            self._lost += 1
        else:
            if self._lost:
                lost = {"action": "listener_told", "worker": self._listener, "messages": self._lost}
                log.warning("listener told again, messages were lost", extra=lost)
            self._lost = 0

    def close(self) -> None:
        self._into.close()
        self.out.close()

    def receive(self, ear: _Ear) -> None:
        """Bring what waits to the ear; the rest is announced again."""
        for _ in range(MESSAGES_AT_ONCE):
            try:
                message = self.out.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            ear.take(message)


class _Ear:
    """Does what a listener is told."""

    def __init__(self, legs: Legs, keep: Callable[[HangupReport], None]) -> None:
        self._legs = legs
        self._keep = keep
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, message: bytes) -> None:
        """One message. Raises nothing: the next one may be in order."""
        try:
            match json.loads(message):
                case ["end", str(node), str(uniqueid)]:
                    self._in_background(self._legs.end(node, uniqueid))
                case ["look", str(node)]:
                    self._legs.look(node)
                case ["report", dict(fields)]:
                    self._keep(HangupReport(**fields))
                case _:
                    raise ValueError("no message of ours")
        except Exception:
            log.exception("message not understood", extra={"action": "message_not_understood"})

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
