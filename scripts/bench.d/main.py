"""What `scripts/bench` runs: the parts that are named, or all."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import asterisk_part
import parts
import upkeep
import where
from measure import Bench
from report import Report, machine
from stage import BenchError, Stage

DOCS = Path(__file__).resolve().parents[2] / "docs"
PARTS: dict[str, Callable[[Bench, Report], None]] = {
    "throughput": parts.throughput,
    "latency": parts.latency,
    "overcommit": parts.overcommit,
    "open-calls": upkeep.open_calls,
    "events": upkeep.events,
    "workers": upkeep.workers,
    "growth": upkeep.growth,
    "history": upkeep.history,
    "scale": upkeep.scale,
    "asterisk": asterisk_part.asterisk,
    "profile": where.profile,
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="less of everything, one round")
    parser.add_argument("--rounds", type=int, help="repeat each measurement so often (3; quick: 1)")
    parser.add_argument("--history", type=int, metavar="CALLS", help="that many (1000000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--docs", action="store_true", help="put the tables into the documentation")
    parser.add_argument("--plots", action="store_true", help="draw docs/*.png (throughput)")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return given


def carry_out(part: str, bench: Bench, report: Report) -> list[str]:
    """Measure one part; what went wrong."""
    bench.begin()
    try:
        PARTS[part](bench, report)
    except BenchError as error:
        return [*bench.faults, str(error)]
    except Exception as error:  # the other parts are worth their time
        traceback.print_exc()
        return [*bench.faults, repr(error)]
    return bench.faults


def main() -> int:
    """Exit status 1 if a call was lost or the books did not balance."""
    given = arguments()
    report = Report()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            report.say("machine", machine(stage.version()))
            rounds = given.rounds or (1 if given.quick else 3)
            bench = Bench(
                stage,
                quick=given.quick,
                rounds=rounds,
                cores=os.cpu_count() or 1,
                history=given.history or (50_000 if given.quick else 1_000_000),
            )
            for name in given.parts or PARTS:
                faults.extend(f"{name}: {fault}" for fault in carry_out(name, bench, report))
        finally:
            stage.close()
    if given.json:
        report.write(given.json)
    if given.docs and not faults:
        report.document(DOCS / "PERFORMANCE.md", " ".join(("scripts/bench", *sys.argv[1:])))
    if given.plots:
        import plots  # matplotlib takes a second, and only this needs it

        plots.draw(report.found, DOCS)
    for fault in faults:
        print(f"FAILED {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
