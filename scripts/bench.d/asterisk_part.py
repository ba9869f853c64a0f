"""The whole chain with a real Asterisk: how much later a carrier hears of a call for the
controller's sake, and how many SIP calls a second pass on this machine.

The lab's Asterisk (scripts/lab) with the dialplan as it is shipped asks either a stub that allows
everything at once, or `astcredit serve` on the durable MariaDB.
"""

from __future__ import annotations

import os
import re
import select
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Bench
from report import Report
from stage import BenchError, Database, Server, _cpu_seconds, _family

from support.agi_stub import ALLOWED
from support.lab import Lab, LabError, LabOptions, build, wait_until
from support.ports import LOOPBACK, free_port
from support.sipp import (
    FOR_EVER_MS,
    MEDIA_PORTS,
    SCENARIOS,
    START_DEADLINE_S,
    CustomerScript,
    Sipp,
    bound,
)

ACCOUNT = "client0"
NUMBER = "442071230001"
RATES, QUICK_RATES = (100, 250, 350), (250,)
"""Calls a second."""
MUST_PASS = 100
"""At this and less a call that fails fails the run; above it is looked for the end: two cores on
which Asterisk alone takes 7 to 11 ms a call cannot carry 250 calls a second."""
LOAD_SECONDS, QUICK_LOAD_SECONDS = 20, 3
TALK_SECONDS = 0.2
ROUNDS, CALLS_A_ROUND = 10, 20
QUICK_ROUNDS, QUICK_CALLS_A_ROUND = 4, 10
"""One call at a time: stub and controller take turns, so that the machine's moods meet both."""
PAUSE_SECONDS = 0.05
"""Between two of them: the hangup of the one is not what the other waits for."""
STILL_SECONDS = 5.0
"""A call in which nothing happens for so long has failed."""
DRAIN_SECONDS = 60.0
"""After the last call has begun: sipp has given up what it could not finish."""
AGAIN_SECONDS = 0.5
"""SIP's T1: who has heard nothing for so long sends the INVITE again."""
_FEW = 10
_LOOK_SECONDS = 0.05
_UNTRACED = ("-message_file", "/dev/null")
"""Every message on disk would be the most that sipp does."""
_STUB, _OURS = "an AGI that answers at once", "astcredit"
_WHOLE = re.compile(r"^ended near ", re.MULTILINE)


def asterisk(bench: Bench, report: Report) -> None:
    """The caller's INVITE on its way to the carrier, and SIP calls at a steady rate."""
    try:
        tree = _tree()
    except LabError as error:
        report.say("asterisk", f"A real Asterisk: not measured, {error}")
        return
    options = LabOptions(accounts=(ACCOUNT,))
    with (
        tempfile.TemporaryDirectory() as folder,
        Lab(Path(folder), options=options, tree=tree) as lab,
        bench.stage.database(1) as database,
        bench.stage.serving(database, ami_nodes=lab.ami.url) as server,
    ):
        _log_as_packaged(lab)
        _delay(bench, report, lab, server)
        database.settled()
        ours = {"AC_AGI": f"agi://{LOOPBACK}:{server.port}/", "AC_NODE": lab.ami.node}
        with lab.globals(**ours):
            _steady(bench, report, lab, database, server)


def _tree() -> Path:
    """The installed Asterisk. Raises LabError where it cannot be had."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root (chroot, mount)")
    return build()


def _log_as_packaged(lab: Lab) -> None:
    """The lab logs each step of the dialplan, for tests; Debian's own logger.conf does not."""
    path = lab.directory / "etc" / "logger.conf"
    path.write_text("[logfiles]\nfull => notice,warning,error\n")
    lab.console("logger reload")


# ---- one call at a time


def _delay(bench: Bench, report: Report, lab: Lab, server: Server) -> None:
    """The INVITE's way with the stub and with the controller, in turn."""
    rounds, calls = (QUICK_ROUNDS, QUICK_CALLS_A_ROUND) if bench.quick else (ROUNDS, CALLS_A_ROUND)
    found: dict[str, list[float]] = {_STUB: [], _OURS: []}
    asked = _authorizations(server)
    with _stub() as stub, _Probe(lab.ports.sip, lab.ports.carrier) as probe:
        agis = {_STUB: stub, _OURS: server.port}
        for turn in range(rounds + 1):
            for name, port in agis.items():
                agi = f"agi://{LOOPBACK}:{port}/"
                with lab.globals(AC_AGI=agi, AC_NODE=lab.ami.node):
                    delays = [probe.call() for _ in range(calls if turn else 2)]
                    lab.wait_idle()
                found[name] += delays if turn else []  # the first turn warms up
    _say_delay(report, found, _mean_ms(server, asked))


def _say_delay(report: Report, found: Mapping[str, Sequence[float]], own_ms: float) -> None:
    points = {name: _quantiles(delays) for name, delays in found.items()}
    more = [ours - stub for ours, stub in zip(points[_OURS], points[_STUB], strict=True)]
    report.table(
        "A real Asterisk, one call at a time: from the caller's INVITE to the carrier's, ms",
        ("asked", "calls", "median", "95 %", "99 %"),
        [
            *((name, str(len(found[name])), *_shown(points[name])) for name in found),
            ("more for astcredit", "", *_shown(more)),
        ],
    )
    report.say(
        "asterisk_delay",
        f"The server itself spends {own_ms:.2f} ms of it on average (astcredit_authorize_seconds).",
        **{_STUB: points[_STUB], _OURS: points[_OURS], "more": more, "own": own_ms},
    )


def _quantiles(values: Sequence[float]) -> list[float]:
    """Median, 95 % and 99 %, of seconds in milliseconds."""
    hundredths = statistics.quantiles(values, n=100, method="inclusive")
    return [hundredths[percent - 1] * 1000 for percent in (50, 95, 99)]


def _shown(values: Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


class _Probe:
    """The caller and the carrier in one process, and so by one clock. sipp writes down its
    messages' times as well, but the two look at their sockets a millisecond apart."""

    def __init__(self, asterisk_port: int, carrier_port: int) -> None:
        self._asterisk = (LOOPBACK, asterisk_port)
        self._caller, self._carrier = _udp(free_port()), _udp(carrier_port)
        self._calls = 0

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._caller.close()
        self._carrier.close()

    def call(self) -> float:
        """An answered call from beginning to end; the seconds that its INVITE took. Raises
        BenchError if it is refused or stands still."""
        self._calls += 1
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        self._say("INVITE", 1, body=_sdp(self._caller))
        arrived = None
        waiting = {self._caller, self._carrier}
        while waiting:
            ready = select.select([self._carrier, self._caller], [], [], STILL_SECONDS)[0]
            now = time.perf_counter()
            if not ready:
                raise BenchError("a SIP call stands still")
            message, sender = ready[0].recvfrom(65_536)
            text = message.decode("latin-1")
            if ready[0] is self._carrier:
                arrived = arrived or (now if text.startswith("INVITE ") else None)
                over = self._at_carrier(text, sender)
            else:
                over = self._at_caller(text)
            waiting -= {ready[0]} if over else set()
        if arrived is None:
            raise BenchError("the carrier saw a call's end and not its beginning")
        return arrived - began

    def _at_carrier(self, text: str, asterisk: tuple[str, int]) -> bool:
        """Answer at once; whether the call is over."""
        method = text.partition(" ")[0]
        if method in ("INVITE", "BYE"):
            body = _sdp(self._carrier) if method == "INVITE" else ""
            self._carrier.sendto(_answer(text, self._carrier, body), asterisk)
        return method == "BYE"

    def _at_caller(self, text: str) -> bool:
        """Hang up as soon as the call is answered; whether it is over."""
        if f"Call-ID: {self._name}\r\n" not in text:
            return False  # of an earlier call
        status = int(text.split(" ", 2)[1]) if text.startswith("SIP/2.0 ") else 0
        if not 100 <= status < 300:
            raise BenchError(f"a SIP call failed: {text.splitlines()[0]}")
        if status < 200:
            return False
        if "CSeq: 2 BYE" in text:
            return True
        to = _lines(text, "To")[0]
        self._say("ACK", 1, to)
        self._say("BYE", 2, to)
        return False

    @property
    def _name(self) -> str:
        return f"probe-{self._calls}-{_port(self._caller)}"

    def _say(self, method: str, number: int, to: str = "", body: str = "") -> None:
        here, there = (f"{LOOPBACK}:{port}" for port in (_port(self._caller), self._asterisk[1]))
        lines = [
            f"{method} sip:{NUMBER}@{there} SIP/2.0",
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bK-{self._name}-{method}",
            f"From: <sip:442079460000@{here}>;tag={self._name}",
            to or f"To: <sip:{NUMBER}@{there}>",
            f"Call-ID: {self._name}",
            f"CSeq: {number} {method}",
            f"Contact: <sip:caller@{here}>",
            "Max-Forwards: 70",
        ]
        self._caller.sendto(_message(lines, body), self._asterisk)


def _answer(request: str, at: socket.socket, body: str) -> bytes:
    """200 OK to a request."""
    to = _lines(request, "To")[0]
    lines = [
        "SIP/2.0 200 OK",
        *_lines(request, "Via"),
        *_lines(request, "From"),
        to if ";tag=" in to else f"{to};tag=carrier",
        *_lines(request, "Call-ID"),
        *_lines(request, "CSeq"),
        f"Contact: <sip:carrier@{LOOPBACK}:{_port(at)}>",
    ]
    return _message(lines, body)


def _lines(text: str, name: str) -> list[str]:
    """A message's header lines of that name."""
    return [line for line in text.split("\r\n") if line.startswith(f"{name}: ")]


def _message(lines: Sequence[str], body: str) -> bytes:
    kind = ["Content-Type: application/sdp"] if body else []
    return "\r\n".join([*lines, *kind, f"Content-Length: {len(body)}", "", body]).encode()


def _sdp(at: socket.socket) -> str:
    """An offer of sound; nobody sends any."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\n"
        f"m=audio {_port(at) + 1} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )


def _udp(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOOPBACK, port))
    return made


def _port(of: socket.socket) -> int:
    return int(of.getsockname()[1])


@contextmanager
def _stub() -> Iterator[int]:
    """The quickest AGI server there can be: the port of one that allows everything, at once."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=_allow, args=(listener,), daemon=True).start()
        yield _port(listener)
        listener.shutdown(socket.SHUT_RDWR)


def _allow(listener: socket.socket) -> None:
    pairs = ",".join(f"{name}={value}" for name, value in ALLOWED.items())
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down: nobody asks any more
            return
        with connection:
            asked = b""
            while not asked.endswith(b"\n\n") and (piece := connection.recv(65_536)):
                asked += piece
            if b"agi_network_script: authorize" in asked:
                connection.sendall(f'EXEC MSet "{pairs}"\n'.encode())
                connection.recv(65_536)


# ---- many calls


@dataclass(frozen=True, slots=True)
class _Load:
    """What calls at a steady rate took."""

    rate: int
    calls: int
    failed: int
    on_record: int
    authorize_ms: float
    """On average, by the server's own count."""
    answered_ms: list[float]
    """From the caller's INVITE until it is answered: median, 95 %, 99 %."""
    late: int
    """Answered when the caller has, or could have, sent the INVITE again: Asterisk passes over new
    calls while it is behind with others."""
    cpu: dict[str, float]
    """What the processes took of a whole call, in µs; what failed is in it."""
    shares: dict[str, float]
    """What they, and all others, took of a core while calls began."""

    @property
    def passed(self) -> bool:
        return not self.failed and self.on_record == self.calls


def _steady(bench: Bench, report: Report, lab: Lab, database: Database, server: Server) -> None:
    """Calls a second by sipp, all of one client; each rate by itself."""
    seconds = QUICK_LOAD_SECONDS if bench.quick else LOAD_SECONDS
    loads: list[_Load] = []
    try:
        for rate in QUICK_RATES if bench.quick else RATES:
            loads.append(_load(bench, lab, database, server, rate, seconds))
            database.audit()
    finally:
        if loads:
            _say_loads(bench, report, loads)
    bench.faults.extend(
        f"at {load.rate} SIP calls a second {load.failed} of {load.calls} failed,"
        f" {load.on_record} are on record"
        for load in loads
        if load.rate <= MUST_PASS and not load.passed
    )


def _load(
    bench: Bench, lab: Lab, database: Database, server: Server, rate: int, seconds: int
) -> _Load:
    folder = lab.directory / "sipp" / str(rate)
    folder.mkdir()
    recorded, asked = database.count("astcdr"), _authorizations(server)
    carrier = _carrier(folder, lab.ports.carrier)
    customer = _customer(folder, lab.ports.sip, rate, rate * seconds)
    try:
        processes = {
            "astcredit": server.pids,
            "MariaDB": [database.pid],
            "Asterisk": _family(lab.pid),
            "sipp, both": [carrier.pid, customer.pid],
        }
        looks = _watch(bench, customer, processes, seconds + DRAIN_SECONDS)
        whole = len(_WHOLE.findall(customer.read("log")))
        if customer.running:
            lab.console("channel request hangup all")
        lab.wait_idle()
    finally:
        customer.stop()
        carrier.stop()
    database.settled()
    waited = _answered(folder)
    used = looks[-1].since(looks[0])
    begun = [look for look in looks if look.at < looks[0].at + seconds][-1]
    busy = begun.since(looks[0])
    return _Load(
        rate=rate,
        calls=rate * seconds,
        failed=rate * seconds - whole,
        on_record=database.count("astcdr") - recorded,
        authorize_ms=_mean_ms(server, asked),
        answered_ms=_quantiles(waited),
        late=sum(seconds > AGAIN_SECONDS for seconds in waited),
        cpu={name: used[name] / max(whole, 1) * 1e6 for name in processes},
        shares={name: spent / (begun.at - looks[0].at) for name, spent in busy.items()},
    )


def _authorizations(server: Server) -> tuple[float, float]:
    """How many there were until now, and the seconds that they took."""
    return (
        server.metric("astcredit_authorize_seconds_count"),
        server.metric("astcredit_authorize_seconds_sum"),
    )


def _mean_ms(server: Server, before: tuple[float, float]) -> float:
    """How long an authorization since then took on average."""
    count, total = (now - then for now, then in zip(_authorizations(server), before, strict=True))
    return total / max(count, 1) * 1000


@dataclass(frozen=True, slots=True)
class _Look:
    """CPU seconds that had been used at an instant."""

    at: float
    used: dict[str, float]
    machine: float

    def since(self, other: _Look) -> dict[str, float]:
        """What was used from then to now, that of all other processes included."""
        used = {name: self.used[name] - other.used[name] for name in self.used}
        others = self.machine - other.machine - sum(used.values())
        return {**used, "others": max(0.0, others)}


def _watch(
    bench: Bench, customer: Sipp, processes: Mapping[str, Sequence[int]], seconds: float
) -> list[_Look]:
    """Look at the processes until the customer has ended, or so many seconds are over."""
    looks: list[_Look] = []
    while not looks or looks[-1].at < looks[0].at + seconds:
        used = {name: sum(map(_cpu_seconds, pids)) for name, pids in processes.items()}
        looks.append(_Look(time.monotonic(), used, bench.stage.cpu(None).machine))
        if not customer.running:  # asked after the look: its answer buries who has ended
            break
        time.sleep(_LOOK_SECONDS)
    return looks


def _customer(folder: Path, asterisk_port: int, rate: int, calls: int) -> Sipp:
    """Begins its calls at that rate whatever becomes of them, and hangs each up after a moment."""
    script = CustomerScript(NUMBER, hangup_after_s=TALK_SECONDS)
    answered = '<recv response="200"'
    scenario = script.scenario().replace(answered, f'{answered} rtd="true"', 1)
    arguments = [
        *("-i", LOOPBACK, "-mi", LOOPBACK, "-mp", str(free_port(MEDIA_PORTS))),
        *("-m", str(calls), "-l", str(calls), "-r", str(rate)),
        *("-trace_rtt", "-rtt_freq", "1", *_UNTRACED),
        f"{LOOPBACK}:{asterisk_port}",
    ]
    return Sipp(folder, scenario, arguments, free_port())


def _answered(folder: Path) -> list[float]:
    """The seconds that each caller of that folder waited for the answer."""
    lines = [
        line for path in folder.glob("*_rtt.csv") for line in path.read_text().splitlines()[1:]
    ]
    if len(lines) < _FEW:
        raise BenchError(f"{len(lines)} SIP calls were answered")
    return [float(line.split(";")[1]) / 1000 for line in lines]


def _carrier(folder: Path, port: int) -> Sipp:
    """Answers at once, and leaves hanging up to the caller."""
    scenario = (SCENARIOS / "carrier_answer.xml").read_text(encoding="latin-1")
    for name, value in (("RING_MS", "1"), ("HANGUP_MS", str(FOR_EVER_MS))):
        scenario = scenario.replace(f"@{name}@", value)
    media = ["-i", LOOPBACK, "-mi", LOOPBACK, "-mp", str(free_port(MEDIA_PORTS))]
    carrier = Sipp(folder, scenario, [*media, *_UNTRACED], port)
    try:
        wait_until(lambda: bound(port), START_DEADLINE_S, "sipp to listen")
    except LabError:
        carrier.stop()
        raise
    return carrier


def _say_loads(bench: Bench, report: Report, loads: Sequence[_Load]) -> None:
    report.table(
        f"A real Asterisk: SIP calls of {TALK_SECONDS} s, all of one client",
        ("calls/s", "calls", "failed", "on record", "authorize ms (mean)",
         "answered after ms: median", "95 %", "99 %", f"after {AGAIN_SECONDS} s"),
        [
            (str(load.rate), str(load.calls), str(load.failed), str(load.on_record),
             f"{load.authorize_ms:.2f}", *(f"{value:.0f}" for value in load.answered_ms),
             str(load.late))
            for load in loads
        ],
    )  # fmt: skip
    names = list(loads[0].cpu)
    report.table(
        "The same: CPU of a call in µs (and share of one core while calls began)",
        ("calls/s", *names, "together", "CPU allows calls/s", "others %"),
        [_cells(load, names, bench.cores) for load in loads],
    )
    report.found["asterisk_calls"] = [asdict(load) for load in loads]
    failed = [load.rate for load in loads if not load.passed]
    late = [load.rate for load in loads if load.late]
    report.say(
        "asterisk_end",
        f"Calls a second at which some failed: {_listed(failed)}; at which some were answered"
        f" after {AGAIN_SECONDS} s or more: {_listed(late)}.",
        failed=failed,
        late=late,
    )


def _listed(rates: Sequence[int]) -> str:
    return ", ".join(map(str, rates)) or "none"


def _cells(load: _Load, names: Sequence[str], cores: int) -> list[str]:
    together = sum(load.cpu.values())
    return [
        str(load.rate),
        *(f"{load.cpu[name]:.0f} ({load.shares[name]:.0%})" for name in names),
        f"{together:.0f}",
        f"{cores / together * 1e6:.0f}",
        f"{100 * load.shares['others'] / cores:.0f}",
    ]
