"""Several processes that are one server: `serve --workers N`.

The supervisor holds no event loop and no database; it forks the workers, starts again who dies, and
ends them all. Each worker is a whole server process with a part of its duties (`app/duties.py`).
They share the FastAGI port, the kernel its connections among those that listen on it.

A worker stops when the one pipe of which all workers have the reading end, and the supervisor alone
the writing end, is closed: on purpose, or because the supervisor is no more.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from astcredit.app.duties import Duty, duties
from astcredit.app.intercom import Intercom
from astcredit.app.links import parse_nodes
from astcredit.app.server import Post, run
from astcredit.app.setting_kinds import HostPort
from astcredit.app.settings import Settings
from astcredit.service.errors import RefusedError

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""Before a worker that died is started again: what kills it at once must not keep a core busy."""

END_SECONDS = 60.0
"""Workers that stop have limits for each step, less than this in all; who is still there hangs.
systemd kills after 90 seconds by default."""

HIGHEST_PORT = 65_535


def run_workers(settings: Settings, workers: int, ready: Callable[[int], None]) -> None:
    """Run a server of so many processes until SIGTERM or SIGINT; what is under way is finished.

    `ready` is called with the FastAGI port once all are ready. Raises RefusedError when the server
    cannot start, as `astcredit.app.server.serve` does.
    """
    nodes = [node.name for node in parse_nodes(settings.ami.nodes)]
    posts = duties(workers, nodes)
    with _reserved(*settings.fastagi.listen) as port, Intercom(posts) as intercom:
        staff = [Worker(duty, settings_of(settings, duty.number, port)) for duty in posts]
        Supervisor(staff, intercom, lambda: ready(port)).run()


def settings_of(settings: Settings, number: int, port: int) -> Settings:
    """The settings of one worker: the FastAGI port that all share, and metrics on a port of its
    own, the one that is set plus its number. Raises RefusedError if there is no such port."""
    fastagi = replace(settings.fastagi, listen=HostPort(settings.fastagi.listen.host, port))
    listen = settings.metrics.listen
    if listen is not None and listen.port:  # 0 is any free one, for each of them
        if listen.port + number > HIGHEST_PORT:
            raise RefusedError(f"metrics.listen {listen}: no port is left for worker {number}")
        listen = HostPort(listen.host, listen.port + number)
    return replace(settings, fastagi=fastagi, metrics=replace(settings.metrics, listen=listen))


@dataclass(slots=True)
class Worker:
    """A process, and what the supervisor knows of it. `told`: where it says that it is ready, or
    why it cannot be, until it has; `starts_at`: when it is to be started (again)."""

    duty: Duty
    settings: Settings
    process: ForkProcess | None = None
    told: Connection | None = None
    ready: bool = False
    starts_at: float = 0.0


class Supervisor:
    """Starts the workers, looks after them and ends them."""

    def __init__(
        self, workers: Sequence[Worker], intercom: Intercom, ready: Callable[[], None]
    ) -> None:
        self._workers = workers
        self._intercom = intercom
        self._ready = ready
        self._serves = False
        self._life, self._life_holder = Pipe(duplex=False)

    def run(self) -> None:
        """Until SIGTERM or SIGINT. Raises RefusedError when a worker cannot start at first."""
        with _stop_signals() as stop:
            try:
                while stop not in wait(self._awaited(stop), self._pause_seconds()):
                    for worker in self._workers:
                        self._look_after(worker)
            finally:
                self._end()

    def _awaited(self, stop: socket.socket) -> list[socket.socket | Connection | int]:
        awaited: list[socket.socket | Connection | int] = [stop]
        for worker in self._workers:
            if worker.process is not None:
                awaited.append(worker.process.sentinel)
            if worker.told is not None:
                awaited.append(worker.told)
        return awaited

    def _pause_seconds(self) -> float | None:
        """Until the next worker is to be started; None if all are."""
        due = [worker.starts_at for worker in self._workers if worker.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look_after(self, worker: Worker) -> None:
        if worker.process is None:
            if worker.starts_at <= time.monotonic():
                self._start(worker)
            return
        if worker.told is not None and worker.told.poll():
            self._hear(worker, worker.told)
        if worker.process.exitcode is not None:
            self._bury(worker, worker.process.exitcode)

    def _start(self, worker: Worker) -> None:
        told, tell = Pipe(duplex=False)
        post = Post(worker.duty, self._intercom, self._life.fileno())
        arguments = (worker.settings, post, self._life_holder, tell)
        process = get_context("fork").Process(target=_work, args=arguments)
        with tell:
            try:
                process.start()
            except OSError as error:  # no memory, no place for a process: the others go on
                told.close()
                worker.starts_at = time.monotonic() + RESTART_SECONDS
                self._refused(worker, f"worker {worker.duty.number}: {error.strerror or error}")
            else:
                worker.process, worker.told = process, told

    def _hear(self, worker: Worker, told: Connection) -> None:
        """What a worker says after its start, once."""
        try:
            refusal: str = told.recv()
        except EOFError:
            refusal = f"worker {worker.duty.number} ended at its start: its log says why"
        told.close()
        worker.told = None
        worker.ready = not refusal
        if not worker.ready:
            self._refused(worker, refusal)
        elif not self._serves and all(worker.ready for worker in self._workers):
            self._serves = True
            self._ready()

    def _refused(self, worker: Worker, refusal: str) -> None:
        if not self._serves:
            raise RefusedError(refusal)
        extra = {"action": "worker_not_started", "worker": worker.duty.number, "error": refusal}
        log.error("worker not started", extra=extra)

    def _bury(self, worker: Worker, status: int) -> None:
        """A worker is dead; what it heard before, and had no time to book, recovery will find."""
        self._intercom.silence(worker.duty.nodes)
        worker.process, worker.ready = None, False
        worker.starts_at = time.monotonic() + RESTART_SECONDS
        extra = {"action": "worker_died", "worker": worker.duty.number, "status": status}
        log.error("worker died, another takes its place", extra=extra)

    def _end(self) -> None:
        """Let all workers stop, and wait for them."""
        self._life_holder.close()
        processes = [worker.process for worker in self._workers if worker.process is not None]
        deadline = time.monotonic() + END_SECONDS
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                log.error("worker hangs", extra={"action": "worker_killed", "pid": process.pid})
                process.kill()
                process.join()


def _work(settings: Settings, post: Post, life_holder: Connection, tell: Connection) -> None:
    """What a worker does, from its first to its last instant."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # the supervisor's; the server has its own
    life_holder.close()

    def ready(_: int) -> None:
        tell.send("")
        tell.close()

    try:
        run(settings, ready, post)
    except RefusedError as error:
        tell.send(str(error))
        sys.exit(1)
    except Exception:
        log.exception("worker failed", extra={"action": "worker_failed"})
        sys.exit(1)


@contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that can be read once SIGTERM or SIGINT has come."""
    stop, wakeup = socket.socketpair()
    with stop, wakeup:
        wakeup.setblocking(False)
        before = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        signal.set_wakeup_fd(wakeup.fileno())
        try:
            yield stop
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _reserved(host: str, port: int) -> Iterator[int]:
    """The FastAGI port, for all workers to come; bound here, so that nobody else gets it while
    none of them listens. Raises RefusedError."""
    with ExitStack() as sockets:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, *_, address in dict.fromkeys(found):
                # Sharing is for our own workers, not for another server of the same user.
                with _bound(family, (address[0], port), shared=False) as alone:
                    port = alone.getsockname()[1]
                sockets.enter_context(_bound(family, (address[0], port), shared=True))
        except OSError as error:
            text = error.strerror or error
            raise RefusedError(f"fastagi.listen {host}:{port}: {text}") from error
        yield port


def _bound(family: int, address: tuple[str | int, int], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
