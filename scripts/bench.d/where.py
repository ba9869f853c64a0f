"""Where the server's time goes, by py-spy if it is there (`pip install py-spy`; it needs root)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from measure import Bench
from report import Report

AT_ONCE = 256
_FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*)\)$")
_PLACES = (
    ("astcredit/asterisk/ami", "AMI: messages"),
    ("astcredit/asterisk/legs", "AMI: legs"),
    ("astcredit/asterisk/dial_events", "AMI: legs"),
    ("panoramisk", "AMI: messages"),
    ("astcredit/asterisk", "FastAGI"),
    ("astcredit/domain", "domain: decisions"),
    ("astcredit/service", "service: batches"),
    ("astcredit/storage", "storage: statements and rows"),
    ("sqlalchemy", "SQLAlchemy"),
    ("aiomysql", "MySQL driver"),
    ("pymysql", "MySQL driver"),
    ("astcredit/app", "metrics and logs"),
    ("prometheus_client", "metrics and logs"),
    ("logging", "metrics and logs"),
    ("uvloop", "event loop"),
    ("asyncio", "event loop"),
)
"""Part of a file's path, and what is done there. The innermost frame that is known counts."""
_SHOWN = 25


def profile(bench: Bench, report: Report) -> None:
    """What the server does while calls come as fast as it takes them."""
    spy = shutil.which("py-spy") or shutil.which(str(Path(sys.executable).with_name("py-spy")))
    if spy is None:
        report.say("profile", "Profile: py-spy is not installed; not measured.")
        return
    seconds = 2 * bench.seconds
    with bench.stage.database() as database, bench.stage.serving(database) as server:
        bench.warm_up(database, server)
        with tempfile.NamedTemporaryFile("r") as found:
            command = [spy, "record", "--format", "raw", "--function", "--output", found.name]
            options = ["--rate", "500", "--duration", str(round(seconds)), "--pid"]
            recording = subprocess.Popen(
                [*command, *options, str(server.pids[0])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            sample = bench.closed(database, server, AT_ONCE, seconds=seconds + 1)
            recording.wait()
            stacks = list(_stacks(found))
        bench.check(database)
    each = sample.server / max(sum(stacks_count for _, stacks_count in stacks), 1)
    _tell(report, _by_place(stacks), each, f"Where the server's {sample.server:.0f} µs a call go")
    own = Counter[str]()
    for frames, times in stacks:
        own[frames[-1]] += times
    _tell(report, dict(own.most_common(_SHOWN)), each, "The functions that take most themselves")


def _tell(report: Report, counted: Mapping[str, int], each: float, title: str) -> None:
    ordered = sorted(counted.items(), key=lambda item: -item[1])
    rows = [(name.replace("|", "/"), f"{times * each:.1f}") for name, times in ordered]
    report.table(title, ("what", "µs a call"), rows)
    report.found[title] = dict(rows)


def _stacks(lines: Iterable[str]) -> Iterable[tuple[list[str], int]]:
    """Each stack, outermost frame first, and how often it was seen."""
    for line in lines:
        stack, _, times = line.rstrip().rpartition(" ")
        if stack and "selectors.py" not in stack:  # the thread of the metrics, which waits
            yield stack.split(";"), int(times)


def _by_place(stacks: Iterable[tuple[list[str], int]]) -> Counter[str]:
    found = Counter[str]()
    for frames, times in stacks:
        places = (_place(frame) for frame in reversed(frames))
        found[next(filter(None, places), "other")] += times
    return found


def _place(frame: str) -> str:
    match = _FRAME.match(frame)
    file = match["file"] if match else frame
    return next((place for part, place in _PLACES if part in file), "")
