"""The commands of scripts/lab but `build`: one instance that lives on between them.

What runs is kept in lab.json of the instance's directory: process ids with their start times, so
that `stop` ends what it started and nothing that got the same number later.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from support.lab import Lab, LabError, LabOptions, Ports, build, console_command, wait_until
from support.ports import free_port
from support.sipp import (
    CALLER,
    Answer,
    Behaviour,
    Carrier,
    CustomerScript,
    Reject,
    Ring,
    SippError,
    start_customer,
)

RUN = Path(os.environ.get("ASTCREDIT_LAB_RUN", "/var/tmp/astcredit-lab-run"))
STATE = RUN / "lab.json"
# Longer than any call can last (60 minutes): the customer's sipp ends by itself before.
CALL_DEADLINE_S = 3_700.0
STOP_DEADLINE_S = 15.0
# Addresses of support.lab_config.WHOLESALE.
ANONYMOUS = re.compile(r"127\.0\.1\.([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-4])")
CARRIERS = {"carrier": Ports().carrier, "backup": Ports().backup}
NOBODY = (0, 0)


@dataclass(frozen=True)
class State:
    """What `start` and `carrier` left running."""

    tree: str
    accounts: list[str]
    asterisk: tuple[int, int]
    carriers: dict[str, tuple[int, int]]
    ami_url: str


def main() -> int:
    arguments = parser().parse_args()
    try:
        status: int = arguments.run(arguments)
    except (LabError, SippError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="scripts/lab")
    commands = top.add_subparsers(required=True)

    starting = commands.add_parser("start")
    starting.add_argument("--agi", default=LabOptions().agi)
    starting.add_argument("--accounts", default="demo")
    starting.add_argument("--node", default="")
    starting.set_defaults(run=start)

    carrying = commands.add_parser("carrier")
    carrying.add_argument("behaviour")
    carrying.add_argument("--hangup-after", type=float)
    carrying.add_argument("--backup", action="store_true")
    carrying.set_defaults(run=change_carrier)

    calling = commands.add_parser("call")
    calling.add_argument("number")
    calling.add_argument("--seconds", type=float, default=5.0)
    calling.add_argument("--cancel-after", type=float)
    calling.add_argument("--account", default="")
    calling.add_argument("--from", dest="address", default="")
    calling.add_argument("--caller", default=CALLER)
    calling.set_defaults(run=call)

    asking = commands.add_parser("console")
    asking.add_argument("command", nargs=argparse.REMAINDER)
    asking.set_defaults(run=console)

    commands.add_parser("status").set_defaults(run=show_status)
    commands.add_parser("stop").set_defaults(run=stop)
    return top


def start(arguments: argparse.Namespace) -> int:
    if STATE.exists() and alive(load().asterisk):
        raise LabError("it runs already; scripts/lab stop ends it")
    options = LabOptions(tuple(arguments.accounts.split(",")), arguments.agi, arguments.node)
    RUN.mkdir(parents=True, exist_ok=True)
    RUN.chmod(0o700)
    lab = Lab(RUN, options=options, ports=Ports(), tree=build(), outlive=True)
    lab.start()
    carriers: dict[str, tuple[int, int]] = {}
    try:
        for name in CARRIERS:
            carriers[name] = start_carrier(name, Answer())
    except SippError:
        end_all(carriers)
        lab.stop()
        raise
    state = State(
        tree=str(lab.tree),
        accounts=list(options.accounts),
        asterisk=identity(lab.pid),
        carriers=carriers,
        ami_url=lab.ami.url,
    )
    save(state)
    print(f"Asterisk takes calls on 127.0.0.1:{lab.ports.sip}, the carriers answer them.")
    print(f"It asks the controller at {options.agi}; for the controller:")
    print(f"  export ASTCREDIT_AMI_NODES={state.ami_url}")
    print("  (with ASTCREDIT_DATABASE_URL naming a database that has the accounts) astcredit serve")
    print(f"Log {RUN}/log/full, records {RUN}/log/cdr-csv/Master.csv. Now: scripts/lab call NUMBER")
    return 0


def change_carrier(arguments: argparse.Namespace) -> int:
    state = running()
    name = "backup" if arguments.backup else "carrier"
    behaviour = behaviour_of(arguments.behaviour, arguments.hangup_after)
    end(state.carriers[name], signal.SIGKILL)
    carrier = start_carrier(name, behaviour) if behaviour else NOBODY
    save(replace(state, carriers={**state.carriers, name: carrier}))
    print(f"The {name}'s behaviour is now: {behaviour or 'gone'}")
    return 0


def start_carrier(name: str, behaviour: Behaviour) -> tuple[int, int]:
    return identity(Carrier(RUN / "sipp", CARRIERS[name], behaviour, outlive=True).pid)


def behaviour_of(word: str, hangup_after_s: float | None) -> Behaviour | None:
    """What the word means; None for a carrier that is not there."""
    if word == "gone":
        return None
    if word == "answer":
        return Answer(hangup_after_s)
    if word == "ring":
        return Ring()
    if word == "busy":
        return Reject(486)
    if word.isdigit() and 400 <= int(word) <= 699:
        return Reject(int(word))
    raise LabError(
        f"{word!r} is no behaviour: answer, busy, ring, gone or a SIP code of 400 to 699"
    )


def call(arguments: argparse.Namespace) -> int:
    state = running()
    options = LabOptions(tuple(state.accounts))
    if arguments.account and arguments.account not in state.accounts:
        raise LabError(f"no customer {arguments.account!r}: there are {', '.join(state.accounts)}")
    if arguments.address and not ANONYMOUS.fullmatch(arguments.address):
        raise LabError(
            f"no customer may call from {arguments.address!r}: expected 127.0.1.1 to .254"
        )
    script = CustomerScript(
        arguments.number,
        hangup_after_s=arguments.seconds,
        cancel_after_s=arguments.cancel_after,
        caller=arguments.caller,
    )
    calls = start_customer(
        RUN / "sipp",
        script,
        port=free_port(),  # several calls may be up
        address=arguments.address or options.address_of(arguments.account),
        target_port=Ports().sip,
    )
    try:
        outcome = calls.wait(CALL_DEADLINE_S)[0]
    finally:
        calls.stop()
    if outcome.answered:
        print("answered, ended by", {"near": "the customer", "far": "Asterisk"}[outcome.ended_by])
        return 0
    print(f"not answered: SIP {outcome.code}")
    return 1


def show_status(_: argparse.Namespace) -> int:
    if not STATE.exists() or not alive(load().asterisk):
        print("not running; scripts/lab start starts it")
        return 1
    state = load()
    print(f"Asterisk runs in {state.tree}, its files are in {RUN}")
    print(f"customers: {', '.join(state.accounts)}")
    for name, carrier in state.carriers.items():
        print(f"the {name} is there" if alive(carrier) else f"the {name} is gone")
    print(f"AMI: {state.ami_url}", flush=True)
    return subprocess.call([*asterisk(state), "-rx", "core show channels"])


def console(arguments: argparse.Namespace) -> int:
    command = ["-rx", " ".join(arguments.command)] if arguments.command else ["-r"]
    return subprocess.call([*asterisk(running()), *command])


def stop(_: argparse.Namespace) -> int:
    if not STATE.exists():
        print("not running")
        return 0
    state = load()
    if alive(state.asterisk):
        subprocess.call([*asterisk(state), "-rx", "core stop now"], stdout=subprocess.DEVNULL)
        with contextlib.suppress(LabError):
            wait_until(lambda: not alive(state.asterisk), STOP_DEADLINE_S, "Asterisk to end")
    end(state.asterisk, signal.SIGKILL)
    end_all(state.carriers)
    STATE.unlink()
    print("stopped")
    return 0


def asterisk(state: State) -> list[str]:
    return console_command(state.asterisk[0], Path(state.tree))


def running() -> State:
    """What runs; LabError when nothing does."""
    if not STATE.exists() or not alive(load().asterisk):
        raise LabError("not running; scripts/lab start starts it")
    return load()


def load() -> State:
    kept = json.loads(STATE.read_text())
    carriers = {name: (pid, start) for name, (pid, start) in kept["carriers"].items()}
    asterisk = (kept["asterisk"][0], kept["asterisk"][1])
    return State(**{**kept, "asterisk": asterisk, "carriers": carriers})


def save(state: State) -> None:
    STATE.touch(mode=0o600)  # it holds the AMI secret
    STATE.write_text(json.dumps(asdict(state)))


def identity(pid: int) -> tuple[int, int]:
    """A process that cannot be taken for another: its id and start time (0 when it is gone)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return pid, 0
    return pid, 0 if fields[0] == "Z" else int(fields[19])


def alive(process: tuple[int, int]) -> bool:
    return process[1] != 0 and identity(process[0]) == process


def end_all(carriers: Mapping[str, tuple[int, int]]) -> None:
    for carrier in carriers.values():
        end(carrier, signal.SIGKILL)


def end(process: tuple[int, int], signal_number: signal.Signals) -> None:
    """Signal the process and wait until it is gone, if it is still the one that was started."""
    if alive(process):
        os.kill(process[0], signal_number)
        wait_until(lambda: not alive(process), STOP_DEADLINE_S, f"process {process[0]} to end")


if __name__ == "__main__":
    sys.exit(main())
