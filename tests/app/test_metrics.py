"""What is counted, and the small HTTP server that shows it."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from astcredit.app import metrics as metrics_module
from astcredit.app.metrics import Metrics, MetricsServer
from astcredit.service.errors import RefusedError


class Doctor:
    """A health callback whose answer the test chooses."""

    def __init__(self) -> None:
        self.says = ""

    def __call__(self) -> str:
        if self.says == "raise":
            raise RuntimeError("hush-hush")
        return self.says


@pytest.fixture
def doctor() -> Doctor:
    return Doctor()


@pytest.fixture
def server(doctor: Doctor) -> Iterator[MetricsServer]:
    running = MetricsServer(Metrics(), doctor)
    running.start("127.0.0.1", 0)
    yield running
    running.stop()


def ask(server: MetricsServer, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_names_that_dashboards_use() -> None:
    metrics = Metrics()
    metrics.count_agi("authorize", "done", 0.002)
    metrics.authorizations.labels("ALLOWED").inc()
    metrics.authorize_seconds.observe(0.002)
    metrics.settlements.labels(by="ami", end="charged").inc()
    metrics.batch_operations.observe(3)
    metrics.queue_operations.set(4)
    metrics.ami_up.labels("pbx1").set(1)
    text = metrics.text().decode()
    for line in (
        'astcredit_agi_requests_total{outcome="done",script="authorize"} 1.0',
        'astcredit_authorizations_total{status="ALLOWED"} 1.0',
        'astcredit_authorize_seconds_bucket{le="0.002"} 1.0',
        'astcredit_settlements_total{by="ami",end="charged"} 1.0',
        'astcredit_batch_operations_bucket{le="4.0"} 1.0',
        "astcredit_queue_operations 4.0",
        'astcredit_ami_up{node="pbx1"} 1.0',
    ):
        assert f"{line}\n" in text
    assert "process_resident_memory_bytes" in text


def test_script_names_from_the_network_do_not_make_time_series() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.count_agi(f"x{number}", "unknown", 0.0)
    total = value(metrics, "astcredit_agi_requests_total", script="other", outcome="unknown")
    assert total == 100
    assert b"x99" not in metrics.text()


def test_two_objects_do_not_share_counts() -> None:
    one, two = Metrics(), Metrics()
    one.authorizations.labels("ALLOWED").inc()
    assert value(two, "astcredit_authorizations_total", status="ALLOWED") is None


def test_metrics_are_served_as_prometheus_reads_them(server: MetricsServer) -> None:
    status, content_type, body = ask(server, "/metrics?x=1")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "astcredit_queue_operations 0.0\n" in body


def test_health_is_what_the_callback_says(server: MetricsServer, doctor: Doctor) -> None:
    assert ask(server, "/healthz")[::2] == (200, "ok\n")
    doctor.says = "database: no answer for 5 s"
    assert ask(server, "/healthz")[::2] == (503, "database: no answer for 5 s\n")
    doctor.says = "raise"
    assert ask(server, "/healthz")[::2] == (503, "health check failed: RuntimeError\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../metrics", "/healthzz", "//"])
def test_other_paths_are_not_found(server: MetricsServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_head_has_no_body_and_post_is_not_understood(server: MetricsServer) -> None:
    assert ask(server, "/healthz", "HEAD")[::2] == (200, "")
    assert ask(server, "/healthz", "POST")[0] == 501


def test_clients_that_say_nothing_do_not_stop_the_next(server: MetricsServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    try:
        assert ask(server, "/healthz")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_clients_beyond_the_places_are_closed_and_places_come_free(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [
        socket.create_connection(("127.0.0.1", server.port))
        for _ in range(metrics_module.MOST_CLIENTS)
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one_more:
        assert one_more.recv(1) == b""
    for connection in silent:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        connection.close()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(30)
    assert ask(server, "/healthz")[0] == 200


def test_a_silent_client_is_closed(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metrics_module._Handler.timeout == metrics_module.CLIENT_SECONDS
    monkeypatch.setattr(metrics_module._Handler, "timeout", 0.05)
    server = MetricsServer(Metrics(), doctor)
    server.start("127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as silent:
            assert silent.recv(1) == b""
    finally:
        server.stop()


def test_stop_with_a_silent_client_ends_and_frees_the_port(doctor: Doctor) -> None:
    server = MetricsServer(Metrics(), doctor)
    server.start("127.0.0.1", 0)
    port = server.port
    with socket.create_connection(("127.0.0.1", port)):
        server.stop()
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    server.start("127.0.0.1", port)
    server.stop()


def test_an_address_in_use_is_said_in_one_line(server: MetricsServer, doctor: Doctor) -> None:
    other = MetricsServer(Metrics(), doctor)
    with pytest.raises(RefusedError, match=f"metrics.listen 127.0.0.1:{server.port}: Address"):
        other.start("127.0.0.1", server.port)
    other.stop()


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_ipv6_address(doctor: Doctor) -> None:
    server = MetricsServer(Metrics(), doctor)
    try:
        server.start("::1", 0)
    except RefusedError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    with socket.create_connection(("::1", server.port), timeout=30):
        pass
    server.stop()
