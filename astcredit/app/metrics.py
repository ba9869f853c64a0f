"""Counters for Prometheus at /metrics and the health of the server at /healthz.

The HTTP server runs in threads of its own: it answers even when the event loop does not, which is
when somebody wants to know. It is meant for a monitoring network, so it is small and strict: two
paths, a time limit for each client, a few clients at once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeAlias

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from astcredit.service.errors import RefusedError

Health: TypeAlias = Callable[[], str]
"""What is wrong, in one line for a person; empty when nothing is. Called from a thread."""

_Request: TypeAlias = socket.socket | tuple[bytes, socket.socket]

CLIENT_SECONDS = 5
"""A client that is silent for so long is closed: a scrape takes milliseconds."""

MOST_CLIENTS = 16
"""Each costs a thread while it is served; Prometheus and a load balancer need two."""

_POLL_SECONDS = 0.2
"""How often the server's thread looks whether it is to stop."""

SCRIPTS = frozenset({"authorize", "next-route", "hangup", "balance"})
"""Script names come from the network: others are counted as one, or each would be a time series."""
OTHER_SCRIPT = "other"

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_OPERATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Everything that is counted. One object a process; safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.agi_requests = Counter(
            "astcredit_agi_requests",
            "AGI connections by script and how they ended",
            ["script", "outcome"],
            registry=registry,
        )
        self.agi_seconds = Histogram(
            "astcredit_agi_seconds",
            "Time from connect to close of an AGI connection",
            ["script"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._agi_requests = cache(self.agi_requests.labels)
        self._agi_seconds = cache(self.agi_seconds.labels)
        self.authorizations = Counter(
            "astcredit_authorizations", "Answers by AC_STATUS", ["status"], registry=registry
        )
        self.authorize_seconds = Histogram(
            "astcredit_authorize_seconds",
            "Time from a request for authorization to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self.settlements = Counter(
            "astcredit_settlements",
            "Calls ended, by who reported the end and whether they were charged or released",
            ["by", "end"],
            registry=registry,
        )
        self.batch_operations = Histogram(
            "astcredit_batch_operations",
            "Requests in one database transaction",
            buckets=_OPERATIONS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "astcredit_batch_seconds",
            "Time of one database transaction",
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_retries = Counter(
            "astcredit_batch_retries",
            "Database transactions tried again, by reason",
            ["reason"],
            registry=registry,
        )
        self.queue_operations = Gauge(
            "astcredit_queue_operations", "Requests that wait for a transaction", registry=registry
        )
        self.ami_up = Gauge(
            "astcredit_ami_up", "1 while the node's AMI link is good", ["node"], registry=registry
        )
        self._add_ami_lag(registry)
        self._add_mails(registry)

    def _add_ami_lag(self, registry: CollectorRegistry) -> None:
        self.ami_behind = Gauge(
            "astcredit_ami_behind_seconds",
            "How long the oldest event of the node has waited here; 0 while the listener keeps up",
            ["node"],
            registry=registry,
        )
        self.ami_waiting = Gauge(
            "astcredit_ami_waiting_bytes",
            "What the node has sent and the listener has not handled yet",
            ["node"],
            registry=registry,
        )

    def _add_mails(self, registry: CollectorRegistry) -> None:
        self.mails = Counter(
            "astcredit_mails",
            "Attempts to send a notification, by what came of it; waiting: tried again later",
            ["status"],
            registry=registry,
        )
        self.outbox = Gauge(
            "astcredit_outbox",
            "Notifications that are not sent, by status",
            ["status"],
            registry=registry,
        )

    def count_agi(self, script: str, outcome: str, seconds: float) -> None:
        """An AGI connection ended. `script` as it came from the network."""
        known = script if script in SCRIPTS else OTHER_SCRIPT
        self._agi_requests(known, outcome).inc()
        self._agi_seconds(known).observe(seconds)

    def text(self) -> bytes:
        """All values in Prometheus's text format."""
        return generate_latest(self.registry)


class MetricsServer:
    """Serves /metrics and /healthz from `start` to `stop`."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on (useful after `start` with port 0)."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self, host: str, port: int) -> None:
        """Listen and serve. Raises RefusedError when the address cannot be had."""
        try:
            self._server = _Server(host, port, self._metrics, self._health)
        except OSError as error:
            raise RefusedError(f"metrics.listen {host}:{port}: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. May be called when not started, and twice."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    request_queue_size = 4 * MOST_CLIENTS
    daemon_threads = True
    block_on_close = False  # a silent client does not hold up the end of the program

    def __init__(self, host: str, port: int, metrics: Metrics, health: Health) -> None:
        self.metrics = metrics
        self.health = health
        self._places = threading.BoundedSemaphore(MOST_CLIENTS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """As the base class's base: without its look-up of the host's name, which can take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: _Request, client_address: object) -> None:
        """Close the client unless there is a place for it; `process_request_thread` frees it."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """A client that went away is no event."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "astcredit"
    sys_version = ""
    timeout = CLIENT_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, self.server.metrics.text())
        elif path == "/healthz":
            wrong = self._what_is_wrong()
            status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
            self._answer_text(status, wrong or "ok")
        else:
            self._answer_text(HTTPStatus.NOT_FOUND, "only /metrics and /healthz are here")

    do_HEAD = do_GET  # noqa: N815 - the base class calls it so

    def _what_is_wrong(self) -> str:
        try:
            return self.server.health()
        except Exception as error:  # whatever it is: who cannot tell their health are not well
            return f"health check failed: {type(error).__name__}"

    def _answer_text(self, status: HTTPStatus, text: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is not worth a line."""
