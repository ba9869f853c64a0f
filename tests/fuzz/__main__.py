"""The command of the fuzzer; see scripts/fuzz."""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz.targets import TARGETS, write_corpus, write_words

COMMAND: Final = "scripts/fuzz"
DEFAULT_MINUTES: Final = 1.0
INPUT_SECONDS: Final = 60
"""An input takes milliseconds; this is a hang, on the busiest machine."""
MOST_MEGABYTES: Final = 1_024
"""Of the whole process, which takes some hundred with the corpus."""
MOST_SEED: Final = 2**31 - 1

_DONE: Final = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_WAYS: Final = re.compile(r"cov: (\d+) .* corp: (\d+)/")
_CRASH: Final = re.compile(r"Test unit written to (\S+)")
_EXCEPTION: Final = re.compile(r"=== Uncaught Python exception: ===\n(.*?)(?:\n==|\Z)", re.DOTALL)
_ERROR: Final = re.compile(r"==\d+== ?ERROR: (.*)")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a target has been tried enough: inputs, or seconds; 0 is without this limit."""

    inputs: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one target: inputs tried, ways found through the parsers, and the input that
    failed with what was wrong, if one did."""

    inputs: int = 0
    ways: int = 0
    kept: int = 0
    crash: Path | None = None
    fault: str = ""
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the targets one after the other; 1 if an input failed."""
    options = _options(arguments)
    if options.replay is not None:
        return _replay(options.targets, options.replay)
    limits = _limits(options)
    print(f"seed {options.seed}, failing inputs go to {options.crashes}", flush=True)
    failed = False
    for name in options.targets:
        result = fuzz(name, options.seed, limits, options.crashes)
        failed |= bool(result.fault)
        print(_line(name, result), flush=True)
    return 1 if failed else 0


def fuzz(name: str, seed: int, limits: Limits, crashes: Path) -> Result:
    """Fuzz one target in a process of its own, to a limit or to the first input that fails.

    The same seed and number of inputs is the same run. A failing input is left in `crashes`.
    """
    crashes.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="astcredit-fuzz-") as folder:
        done = subprocess.run(
            _engine(name, seed, limits, crashes, Path(folder)),
            env=_environment(),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
    return _result(done, time.monotonic() - began)


def _engine(name: str, seed: int, limits: Limits, crashes: Path, folder: Path) -> list[str]:
    """The command that runs one target; corpus and dictionary are made in `folder`."""
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir()
    shaped = ["-max_len=64"]
    if name in TARGETS:
        write_corpus(TARGETS[name], corpus)
        write_words(TARGETS[name], words)
        shaped = [f"-max_len={TARGETS[name].most}", f"-dict={words}"]
    return [
        *(sys.executable, "-m", "fuzz.engine", name, *shaped),
        f"-seed={seed}",
        f"-artifact_prefix={crashes}/{name}-",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        *([f"-runs={limits.inputs}"] if limits.inputs else []),
        *([f"-max_total_time={limits.seconds}"] if limits.seconds else []),
        str(corpus),
    ]


def _environment() -> dict[str, str]:
    """Texts have the same hashes in every run: sets are gone through in the same order."""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}


def _result(done: subprocess.CompletedProcess[str], seconds: float) -> Result:
    lines = (done.stderr + done.stdout).splitlines()
    said = "\n".join(line for line in lines if not line.startswith("INFO: "))
    ways = _WAYS.findall(said)
    runs, crash = _DONE.search(said), _CRASH.search(said)
    return Result(
        inputs=int(runs[1]) if runs else 0,
        ways=int(ways[-1][0]) if ways else 0,
        kept=int(ways[-1][1]) if ways else 0,
        crash=Path(crash[1]) if crash else None,
        fault=_fault(said) if done.returncode or not runs else "",
        seconds=seconds,
    )


def _fault(said: str) -> str:
    """The exception with its traceback, or what libFuzzer says (out of time, out of memory)."""
    found = _EXCEPTION.search(said) or _ERROR.search(said)
    return found[1].strip() if found else said[-2_000:]


def _line(name: str, result: Result) -> str:
    if not result.fault:
        return (
            f"{name}: {result.inputs:,} inputs in {result.seconds:.0f} s, {result.ways} ways found,"
            f" {result.kept} inputs kept; nothing was wrong"
        )
    again = f"\nagain: {COMMAND} --replay {result.crash} {name}" if result.crash else ""
    return f"{name}: {result.fault}{again}"


def _replay(targets: Sequence[str], path: Path) -> int:
    """Run one input, without libFuzzer, so that the traceback is all of it."""
    if len(targets) != 1:
        raise SystemExit("--replay needs the name of one target")
    TARGETS[targets[0]].run(path.read_bytes())
    print(f"{targets[0]}: nothing is wrong with {path}")
    return 0


def _limits(options: argparse.Namespace) -> Limits:
    if options.inputs and options.minutes is None:
        return Limits(options.inputs, 0)
    minutes = DEFAULT_MINUTES if options.minutes is None else options.minutes
    return Limits(options.inputs, max(1, round(minutes * 60 / len(options.targets))))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=main.__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=0, help="so many inputs for each target")
    parser.add_argument("--minutes", type=float, help="so long, all targets together (default: 1)")
    parser.add_argument("--seed", type=int, help="the same seed and inputs are the same run")
    parser.add_argument(
        "--crashes", type=Path, default=Path(tempfile.gettempdir(), "astcredit-fuzz")
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input and no other")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    options.targets = options.targets or list(TARGETS)
    options.seed = options.seed or random.SystemRandom().randrange(1, MOST_SEED)
    if not 1 <= options.seed <= MOST_SEED or options.inputs < 0:
        parser.error(f"a seed is 1 to {MOST_SEED}, a number of inputs is not negative")
    return options


if __name__ == "__main__":
    sys.exit(main())
