"""A real Asterisk for tests and for calls by hand.

One installed tree (`scripts/lab build`) serves any number of instances. Each has a directory of
its own for configuration, logs, sockets and records, and its own ports, all on the loopback.
An instance runs in a mount and a process namespace: when its first process ends, however that
came about, the kernel ends the rest and takes the mounts away.

Standard library only, for `scripts/lab` uses it without a virtual environment.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.asterisk_cdr import AsteriskCdr, read_cdrs
from support.lab_config import PROJECT, AmiAccess, Configuration, LabOptions, Ports, new_secret
from support.ports import free_port
from support.sipp import (
    Behaviour,
    Carrier,
    CustomerCalls,
    CustomerScript,
    Outcome,
    Script,
    bound,
    die_with_parent,
    start_customer,
)
from support.voices import talking

__all__ = ["AsteriskCdr", "Lab", "LabError", "LabOptions", "Ports", "build", "wait_until"]

BUILD = PROJECT / "scripts" / "lab.d" / "build"

# Asterisk is up in half a second; two cores full of other tests need longer.
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 10.0
CONSOLE_DEADLINE_S = 10.0
IDLE_DEADLINE_S = 45.0
"""A transferred channel ends by timers of SIP; only a test that fails waits so long."""
# A poll, not a pause for luck: how often a condition is looked at until its deadline.
POLL_S = 0.01
# How the console writes an empty value.
EMPTY = '""'


class LabError(Exception):
    """The lab cannot be built or started; the text says what is missing."""


class Lab:
    """An Asterisk instance in `directory`, with carriers and customers around it.

    Use as a context manager, or `start` and `stop`. Raises LabError when it cannot run here.
    It ends with the thread that started it, however that ends, unless it is to `outlive` it."""

    def __init__(
        self,
        directory: Path,
        *,
        options: LabOptions | None = None,
        ports: Ports | None = None,
        tree: Path | None = None,
        outlive: bool = False,
    ) -> None:
        self.directory = directory
        self.options = options or LabOptions()
        self.ports = ports or Ports.free()
        self.tree = tree or build()
        self.ami = AmiAccess(self.ports.ami, new_secret(), self.options.node or "default")
        self._outlive = outlive
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- life

    def start(self) -> None:
        """Write the configuration, start Asterisk and wait until it takes calls."""
        Configuration(self.directory, self.tree, self.ports, self.options, self.ami).write()
        (self.directory / "run" / "asterisk.ctl").unlink(missing_ok=True)
        with (self.directory / "console.log").open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *_NAMESPACES,
                    *_propagation(),
                    "sh",
                    "-ec",
                    _INSIDE,
                    "sh",
                    str(self.tree),
                    str(self.directory),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=self._outlive,
                preexec_fn=None if self._outlive else die_with_parent,
            )
        try:
            wait_until(self._is_up, START_DEADLINE_S, "Asterisk to start", self._complaints)
        except LabError:
            self.stop()
            raise

    def stop(self) -> None:
        """End Asterisk, and with it all that it started; harmless when it has ended."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(LabError):
                self.console("core stop now")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_DEADLINE_S)
        self.crash()

    def crash(self) -> None:
        """Kill Asterisk as a power cut would: no hangups, no records. `start` starts it again."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait()
        self._process = None
        # unshare is gone at once, the kernel takes a moment more for those it has to kill.
        wait_until(lambda: not bound(self.ports.sip), STOP_DEADLINE_S, "Asterisk to end")

    @property
    def pid(self) -> int:
        """The process whose end is the end of the instance."""
        assert self._process is not None, "not started"
        return self._process.pid

    # ---- calls

    @contextlib.contextmanager
    def carrier(
        self, behaviour: Behaviour, *, backup: bool = False, port: int | None = None
    ) -> Iterator[Carrier]:
        """A carrier for a while: behind the endpoint PJSIP/carrier (or PJSIP/backup), or on a
        port of its own, known by its address alone."""
        known = self.ports.backup if backup else self.ports.carrier
        carrier = Carrier(self.directory / "sipp", known if port is None else port, behaviour)
        try:
            yield carrier
        finally:
            carrier.stop()

    def start_calls(self, script: Script, *, account: str = "", address: str = "") -> CustomerCalls:
        """Let the account's telephone call, or one at `address` (WHOLESALE, DESK); `wait` on what
        is returned for the outcomes."""
        return start_customer(
            self.directory / "sipp",
            script,
            port=free_port(),
            address=address or self.options.address_of(account),
            target_port=self.ports.sip,
        )

    def customer_call(
        self,
        number: str,
        seconds: float | None = None,
        *,
        account: str = "",
        cancel_after_s: float | None = None,
        deadline_s: float = 30.0,
    ) -> Outcome:
        """One call from its beginning to its end. The customer hangs up after `seconds` of
        talk, or leaves it to the other side."""
        script = CustomerScript(number, hangup_after_s=seconds, cancel_after_s=cancel_after_s)
        return self.play(script, account=account, deadline_s=deadline_s)[0]

    def play(
        self,
        script: Script,
        *,
        account: str = "",
        address: str = "",
        deadline_s: float = 30.0,
    ) -> list[Outcome]:
        """Calls as `start_calls` places them, all from beginning to end."""
        calls = self.start_calls(script, account=account, address=address)
        try:
            return calls.wait(deadline_s)
        finally:
            calls.stop()

    @contextlib.contextmanager
    def voices(self) -> Iterator[None]:
        """Everybody talks for a while: Asterisk hears sound on every channel that has any."""
        with talking(self.directory / "sipp"):
            yield

    # ---- looking

    def console(self, command: str) -> str:
        """What `asterisk -rx COMMAND` prints."""
        try:
            done = subprocess.run(
                [*console_command(self.pid, self.tree), "-rx", command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CONSOLE_DEADLINE_S,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise LabError(f"console command {command!r} failed: {error}") from error
        return done.stdout.decode(errors="replace")

    @contextlib.contextmanager
    def globals(self, **values: str) -> Iterator[None]:
        """Global variables of the dialplan (AC_AGI, AC_TRUNK …), for a while."""
        before = dict(re.findall(r"^ +(\w+)=(.*)$", self.console("dialplan show globals"), re.M))
        try:
            for name, value in values.items():
                self.console(f"dialplan set global {name} {value or EMPTY}")
            yield
        finally:
            for name in values:
                self.console(f"dialplan set global {name} {before.get(name) or EMPTY}")

    def add_dialplan(self, text: str) -> None:
        """Add contexts or extensions to extensions.conf, if they are not there, and use them."""
        if text in (self.directory / "etc" / "extensions.conf").read_text():
            return
        with (self.directory / "etc" / "extensions.conf").open("a") as extensions:
            extensions.write(f"\n{text}\n")
        self.console("dialplan reload")

    def add_agi_script(self, name: str, text: str) -> None:
        """Put a program for classic AGI into this instance's astagidir."""
        path = self.directory / "agi-bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def channels(self) -> list[str]:
        """Names of the channels that are up."""
        lines = self.console("core show channels concise").splitlines()
        return [line.split("!")[0] for line in lines if "!" in line]

    def wait_idle(self, deadline_s: float = IDLE_DEADLINE_S) -> None:
        """Wait until no channel is up: every hangup handler has run, every CDR is written."""
        try:
            wait_until(lambda: not self.channels(), deadline_s, "channels to end", self._lingering)
        except LabError:
            self.console("channel request hangup all")  # the next test shall not inherit them
            raise

    def asterisk_cdrs(
        self, at_least: int = 0, deadline_s: float = IDLE_DEADLINE_S
    ) -> list[AsteriskCdr]:
        """All that Asterisk recorded in this instance, oldest first; waits for `at_least` many,
        for a record is written a moment after its channel is gone."""
        if at_least:
            enough = f"{at_least} CDRs"
            wait_until(lambda: len(self.asterisk_cdrs()) >= at_least, deadline_s, enough)
        return read_cdrs(self.directory / "log" / "cdr-custom" / "astcredit.csv")

    @property
    def master_csv(self) -> Path:
        """Asterisk's classic record file."""
        return self.directory / "log" / "cdr-csv" / "Master.csv"

    def log(self) -> str:
        """Asterisk's log since the start, dialplan steps included."""
        path = self.directory / "log" / "full"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # ---- inside

    def _is_up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"Asterisk ended at once: {self._complaints()}")
        if not (self.directory / "run" / "asterisk.ctl").exists():
            return False
        with contextlib.suppress(LabError):
            return "fully booted" in self.console("core waitfullybooted")
        return False

    def _lingering(self) -> str:
        """The channels that are up, and the last that Asterisk logged of each."""
        log = self.log().splitlines()
        told = [self.console("core show channels verbose")]
        for name in self.channels():
            told += [line for line in log if name in line][-12:]
        return "\n".join(told)

    def _complaints(self) -> str:
        lines = self.log().splitlines() + (self.directory / "console.log").read_text().splitlines()
        bad = [line for line in lines if re.search("ERROR|WARNING|mount|chroot", line)]
        return "\n".join(bad[-20:])


# The mounts exist in a namespace of the instance's own. A process namespace with sh as its first
# process: --kill-child kills sh when unshare dies, and the kernel then kills all the others.
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_ROOT_MOUNT = re.compile(r"^(\S+ ){4}/ ", re.MULTILINE)
_INSIDE = """
mount --bind "$2" "$1/lab"
mount -t proc proc "$1/proc"
chroot "$1" asterisk -f -U asterisk -C /lab/etc/asterisk.conf
exit $?
"""


def _propagation() -> list[str]:
    """Within a chroot / is no mount, and unshare could not make its propagation private."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return [] if _ROOT_MOUNT.search(mounts) else ["--propagation", "unchanged"]


def console_command(pid: int, tree: Path) -> list[str]:
    """The asterisk of an instance whose first process is `pid`; add -r, or -rx and a command."""
    inside = ["chroot", str(tree), "asterisk", "-C", "/lab/etc/asterisk.conf"]
    return ["nsenter", "-t", str(pid), "-m", "-r", *inside]


def build() -> Path:
    """The installed tree; builds it if it is not there (`scripts/lab build`)."""
    done = subprocess.run([BUILD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise LabError("the lab cannot be built here; scripts/lab build says why")
    return Path(done.stdout.decode().splitlines()[-1])


def wait_until(
    condition: Callable[[], bool],
    deadline_s: float,
    what: str,
    explain: Callable[[], str] = str,
) -> None:
    """Return when `condition` holds; LabError after `deadline_s` seconds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"waited {deadline_s} s in vain for {what}: {explain()}")
        time.sleep(POLL_S)
