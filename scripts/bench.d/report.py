"""Tables as people and docs/PERFORMANCE.md read them, and everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Sample

HEADINGS = (
    "calls at once",
    "calls/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "server µs",
    "database µs",
    "server + database µs",
    "CPU allows calls/s",
    "generator µs",
    "generator % of a core",
    "a transaction",
    "failed",
    "others %",
)


BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class Report:
    """Prints tables as they come, and keeps what they were made from."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._lines: list[str] = []

    def table(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table in Markdown, its columns in line."""
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        lines = [headings, ["-" * width for width in widths], *rows]
        self._print("", f"### {title}", "")
        for line in lines:
            cells = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            self._print("| " + " | ".join(cells) + " |")

    def samples(self, key: str, title: str, samples: Sequence[Sample]) -> None:
        """Print and keep a table of loads."""
        self.table(title, HEADINGS, [_cells(sample) for sample in samples])
        self.found[key] = [asdict(sample) for sample in samples]

    def say(self, key: str, text: str, **values: Any) -> None:
        """Print and keep a figure by itself."""
        self._print("", text)
        self.found[key] = values

    def ratio(self, key: str, what: str, value: float) -> None:
        """Print and keep a ratio."""
        self.say(key, f"{what}: **{value:.2f}**", ratio=value)

    def _print(self, *lines: str) -> None:
        self._lines.extend(lines)
        print(*lines, sep="\n", flush=True)

    def document(self, path: Path, command: str) -> None:
        """Put what was printed into a page, between its marks, in place of what stood there."""
        before, begin, rest = path.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{path} has no {BEGIN} … {END}")
        figures = "\n".join((f"`{command}`", *self._lines))
        path.write_text(f"{before}{begin}\n{figures}\n\n{end}{after}")

    def write(self, path: Path) -> None:
        """Everything, as JSON."""
        path.write_text(json.dumps(self.found, indent=1) + "\n")


def _cells(sample: Sample) -> list[str]:
    return [
        str(round(sample.at_once)) if sample.at_once else "open",
        f"{sample.rate:.0f}",
        *(f"{value:.2f}" for value in (sample.p50, sample.p95, sample.p99)),
        *(f"{value:.0f}" for value in (sample.server, sample.database)),
        f"{sample.server + sample.database:.0f}",
        f"{sample.cpu_allows:.0f}",
        f"{sample.generator:.0f}",
        f"{100 * sample.generator_share:.0f}",
        f"{sample.batch:.1f}",
        f"{sample.failed:.0f}",
        f"{100 * sample.others:.0f}",
    ]


def machine(database_version: str) -> str:
    """The machine in a few words."""
    info = Path("/proc/cpuinfo").read_text()
    lines = (line.partition(":") for line in info.splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    model, speed = values.get("model name", "?"), values.get("cpu MHz", "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    return (
        f"{os.cpu_count()} cores ({model}, {speed} MHz),"
        f" {memory} GB, Linux {platform.release()}, Python {platform.python_version()},"
        f" MariaDB {database_version.partition('-')[0]}; one write made durable (fsync) takes"
        f" {_fsync_ms():.2f} ms; load {os.getloadavg()[0]:.1f} at the start"
    )


def _fsync_ms(times: int = 50) -> float:
    with tempfile.NamedTemporaryFile() as file:
        began = time.perf_counter()
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return (time.perf_counter() - began) / times * 1000
