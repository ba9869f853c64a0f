"""What `scripts/torture` runs."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from support.databases import MariaDb, sweep_left_over
from support.fault_rounds import FAULTS, Result, Round
from support.fault_site import FaultSite
from support.lab import build

SEED_BITS = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbits(SEED_BITS))
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS))
    parser.add_argument("--together", type=int, default=2)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def rounds(seed: int, count: int, faults: Sequence[str], together: int) -> list[tuple[str, ...]]:
    """Which faults come in which round: each alone first, then some at once."""
    random = Random(seed)
    alone = [(fault,) for fault in faults]
    mixed = [
        tuple(random.choices(faults, k=random.randint(1, together)))
        for _ in range(max(0, count - len(alone)))
    ]
    return (alone + mixed)[:count]


def play(site: FaultSite, seed: int, plan: Sequence[tuple[str, ...]]) -> dict[str, Result]:
    """All rounds; a line for each, and the sums by fault."""
    sums: dict[str, Result] = {}
    for number, faults in enumerate(plan, 1):
        began = time.monotonic()
        # A generator for each round: what one does with it changes nothing for the next.
        result = Round(site, Random(f"{seed}:{number}")).play(*faults)
        took = time.monotonic() - began
        print(f"{number:>4} {took:5.1f} s  {result}", flush=True)
        sums.setdefault(result.fault, Result(result.fault)).add(result)
    return sums


def summary(sums: dict[str, Result]) -> None:
    total = Result("all")
    print("\nin all, by fault:")
    for name in sorted(sums):
        total.add(sums[name])
        print(f"  {sums[name]}")
    print(f"  {total}\n\nevery round: the books balance, no call was lost or charged twice")


def main() -> int:
    given = arguments()
    plan = rounds(given.seed, given.rounds, given.fault or sorted(FAULTS), given.together)
    folder = Path(tempfile.mkdtemp(prefix="astcredit-torture-"))
    print(f"seed {given.seed}, {len(plan)} rounds, logs in {folder}", flush=True)
    sweep_left_over()
    mariadb = MariaDb()
    try:
        mariadb.start()
        with FaultSite(folder, build(), mariadb) as site:
            sums = play(site, given.seed, plan)
    finally:
        mariadb.stop()
        if sys.exc_info()[0] is None and not given.keep:
            shutil.rmtree(folder)
    summary(sums)
    return 0


if __name__ == "__main__":
    sys.exit(main())
