"""A FastAGI server that answers what a test tells it to, in place of the controller.

It speaks the protocol as FACTS demand: one command at a time, never two in one write.
"""

from __future__ import annotations

import queue
import re
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

# What the hangup script reads; each is asked for alone, for values may hold any separator.
REPORTED = (
    "AC_CALL",
    "DIALSTATUS",
    "CDR(billsec,f)",
    "DIALEDTIME_MS",
    "HANGUPCAUSE",
    "BLINDTRANSFER",
)
# A test waits for a request at most so long before it fails.
REQUEST_DEADLINE_S = 10.0

ALLOWED: Mapping[str, str] = {
    "AC_STATUS": "ALLOWED",
    "AC_REASON": "ok",
    "AC_SECONDS": "3600",
    "AC_OPTS": "L(3600000)",
    "AC_DIAL": "",
    "AC_CALLERID": "442079460000",
    "AC_CALL": "call-1",
    "AC_CAUSE": "0",
}


@dataclass(frozen=True, slots=True)
class StubRequest:
    """One script that Asterisk ran: its name, arguments and what came with it."""

    script: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    reported: Mapping[str, str] = field(default_factory=dict)


Script = Callable[[StubRequest], Mapping[str, str] | None]


class AgiStub:
    """Listens on a free port of the loopback while it is entered.

    `script` decides what is set for `authorize` and `next-route`; None closes the connection
    without a word. Requests are kept in order; `next` waits for the next one of a script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[StubRequest] = []
        self._arrivals: queue.Queue[StubRequest] = queue.Queue()
        stub = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                stub._serve(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def agi(self) -> str:
        """The AC_AGI under which the dialplan reaches it."""
        return f"agi://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> AgiStub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def scripts(self) -> list[str]:
        """Names of the scripts that ran so far, in order."""
        return [request.script for request in self.requests]

    def next(self, script: str) -> StubRequest:
        """The next request of `script`; others before it are passed over. queue.Empty if none."""
        while True:
            request = self._arrivals.get(timeout=REQUEST_DEADLINE_S)
            if request.script == script:
                return request

    def _serve(self, connection: socketserver.StreamRequestHandler) -> None:
        environment = _environment(connection)
        arguments = [environment.get(f"agi_arg_{number}", "") for number in range(1, 10)]
        name = environment.get("agi_network_script", "")
        reported = {}
        if name == "hangup":
            reported = {variable: _get(connection, variable) for variable in REPORTED}
        request = StubRequest(name, tuple(arguments), environment, reported)
        self.requests.append(request)
        if name in ("authorize", "next-route"):
            answer = self.script(request)
            if answer:
                pairs = ",".join(f"{key}={value}" for key, value in answer.items())
                _ask(connection, f'EXEC MSet "{pairs}"')
        self._arrivals.put(request)


def _environment(connection: socketserver.StreamRequestHandler) -> dict[str, str]:
    environment = {}
    for raw in connection.rfile:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if not line:
            break
        name, _, value = line.partition(":")
        environment[name] = value.strip()
    return environment


def _ask(connection: socketserver.StreamRequestHandler, command: str) -> str:
    connection.wfile.write(command.encode() + b"\n")
    for raw in connection.rfile:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if line != "HANGUP":  # a notice between answers on a channel that is hung up
            return line
    return ""


def _get(connection: socketserver.StreamRequestHandler, variable: str) -> str:
    answer = _ask(connection, f'GET FULL VARIABLE "${{{variable}}}"')
    found = re.search(r"\((.*)\)$", answer)
    return found[1] if found else ""
