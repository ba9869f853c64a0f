"""The command of the simulation; see scripts/simulate-faults."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator

from simulation.faults import KINDS
from simulation.run import Options, Result, simulate

COMMAND = "scripts/simulate-faults"
TAIL = 80
"""Steps of a failing run that are shown."""

_CALL_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{20}\b")
_CHANNEL = re.compile(r"\bpbx\d+-\d+\.\d+\b")


def main() -> int:
    """Run seeds until the time is over or one fails; 1 if one did."""
    arguments = _arguments()
    options = _options(arguments)
    began = time.monotonic()
    totals: Counter[str] = Counter()
    runs = calls = 0
    for result in _results(arguments, options, began):
        runs, calls = runs + 1, calls + result.calls
        totals.update(result.counts)
        if arguments.verbose:
            _say(_line(result))
        if result.problems:
            _complain(result, options, arguments.tail)
            return 1
    minutes = (time.monotonic() - began) / 60
    _say(f"{runs} runs, {calls} calls, {calls / minutes:,.0f} a minute; nothing was wrong")
    _say(", ".join(f"{name} {count}" for name, count in totals.most_common()))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=simulate.__doc__)
    parser.add_argument("--seed", type=int, help="run this seed and no other")
    parser.add_argument("--from", type=int, dest="first", help="first seed (default: random)")
    parser.add_argument("--runs", type=int, help="so many seeds, one after the other")
    parser.add_argument("--minutes", type=float, help="so long (default: 1, without --runs)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once; 0: one a core")
    parser.add_argument("--calls", type=int, default=Options().calls, help="calls of a run")
    parser.add_argument("--controllers", type=int, default=Options().controllers)
    parser.add_argument("--servers", type=int, default=Options().servers)
    names = ", ".join(KINDS)
    parser.add_argument("--faults", help=f"these faults (default: drawn by the seed): {names}")
    parser.add_argument("--tail", type=int, default=TAIL, help="steps shown of a failing run")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each run")
    return parser.parse_args()


def _options(arguments: argparse.Namespace) -> Options:
    faults = arguments.faults
    if faults is not None:
        faults = frozenset(filter(None, faults.split(",")))
        unknown = faults.difference(KINDS)
        if unknown:
            sys.exit(f"{COMMAND}: unknown faults: {', '.join(sorted(unknown))}")
    return Options(
        calls=arguments.calls,
        controllers=arguments.controllers,
        servers=arguments.servers,
        faults=faults,
    )


def _results(arguments: argparse.Namespace, options: Options, began: float) -> Iterator[Result]:
    if arguments.seed is not None:
        yield simulate(arguments.seed, options)
        return
    first = random.randrange(10**9) if arguments.first is None else arguments.first
    minutes = arguments.minutes
    if minutes is None and arguments.runs is None:
        minutes = 1.0
    jobs = arguments.jobs or os.cpu_count() or 1
    seeds = _seeds(first, arguments.runs, minutes, began)
    if jobs == 1:
        yield from (simulate(seed, options) for seed in seeds)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_Job(options), seeds)


class _Job:
    """A run in a process of its own."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def __call__(self, seed: int) -> Result:
        return simulate(seed, self._options)


def _seeds(first: int, runs: int | None, minutes: float | None, began: float) -> Iterator[int]:
    seed = first
    while runs is None or seed < first + runs:
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            return
        yield seed
        seed += 1


def replay(result: Result, options: Options) -> str:
    """The command that plays a run again."""
    usual = Options()
    words = [COMMAND, f"--seed {result.seed}"]
    for name in ("calls", "controllers", "servers"):
        if getattr(options, name) != getattr(usual, name):
            words.append(f"--{name} {getattr(options, name)}")
    if options.faults is not None:
        words.append(f"--faults '{','.join(sorted(options.faults))}'")
    return " ".join(words)


def _complain(result: Result, options: Options, tail: int) -> None:
    _say("\n".join(steps_of(result)[-tail:]))
    _say(_line(result))
    for problem in result.problems[:10]:
        _say(f"WRONG {problem}")
    _say(f"again: {replay(result, options)}")


def steps_of(result: Result) -> list[str]:
    """The steps of the calls that the first problem names, and the faults; else all steps."""
    ids = set(_CALL_ID.findall(result.problems[0]))
    channels = {name for line in result.log if ids & words(line) for name in words(line, _CHANNEL)}
    known = ids | channels
    return [
        line
        for line in result.log
        if not ids or known & (words(line) | words(line, _CHANNEL)) or " fault " in line
    ]


def words(line: str, pattern: re.Pattern[str] = _CALL_ID) -> set[str]:
    """The call ids, or channels, in a line."""
    return set(pattern.findall(line))


def _line(result: Result) -> str:
    faults = " ".join(sorted(result.faults)) or "no faults"
    counts = " ".join(f"{name}={count}" for name, count in sorted(result.counts.items()))
    return f"seed {result.seed}: {result.calls} calls in {result.seconds:.0f} s; {counts}; {faults}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
