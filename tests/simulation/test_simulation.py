"""A short run of the simulation: fixed seeds, seeds that once found something, a random one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from simulation.__main__ import replay, steps_of
from simulation.run import Options, Result, simulate
from support.project import ROOT

STEPS = 60
"""Steps of a failing run that are shown."""

SEEDS = tuple(range(1001, 1011))
SHORT = Options(calls=120)

FOUND = (
    (8, Options(), "a report of a leg that an attended transfer had kept alive"),
    (18, Options(), "a leg given to the caller's earlier call by recovery"),
    (21, Options(), "the instant of an answer taken by the wrong clock"),
    (56, Options(), "an answer's instant guessed from a leg's age, and not marked"),
    (61, Options(), "a call released while the transferred leg talks on"),
    (73, Options(), "an answer that one controller heard, and another released the call"),
    (178, Options(), "a leg with the linkedid of an older story taken for gone"),
    (260733555, Options(), "a leg that made a call unheard, judged by how it was dialled itself"),
)
"""Seeds that found something wrong, and what it was."""


def passes(result: Result, options: Options) -> None:
    """Fail with what was wrong, the steps that led there, and the command that plays it again."""
    if not result.problems:
        return
    steps = "\n".join(steps_of(result)[-STEPS:])
    problems = "\n".join(result.problems[:5])
    pytest.fail(f"{steps}\n{problems}\nagain: {replay(result, options)}", pytrace=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_books_say_what_truly_happened(seed: int) -> None:
    """Whatever breaks: nothing is lost, nothing charged twice, nobody past their credit."""
    passes(simulate(seed), Options())


@pytest.mark.parametrize(("seed", "options", "what"), FOUND, ids=[str(case[0]) for case in FOUND])
def test_what_was_found_once_is_not_found_again(seed: int, options: Options, what: str) -> None:
    """Each of these seeds has found something wrong."""
    passes(simulate(seed, options), options)


def test_a_seed_that_nobody_has_seen() -> None:
    """One more, drawn anew in each run of the tests; it is in the message of a failure."""
    seed = random.SystemRandom().randrange(10**9)
    passes(simulate(seed), Options())


def test_nothing_is_estimated_where_nothing_is_broken() -> None:
    """Without faults each end is heard, and each call is charged exactly."""
    options = Options(faults=frozenset(), linked=True, transfers=0.3)
    result = simulate(7, options)
    passes(result, options)
    assert result.counts["by recovery"] == result.counts["by expiry"] == 0
    assert result.counts["completed"] == result.counts["legs"] > 50


def test_a_run_holds_everything_that_is_to_be_proven() -> None:
    """A simulation in which nothing happens finds nothing: every kind of outcome is there."""
    seen: Counter[str] = Counter()
    for seed in range(1, 9):
        seen.update(simulate(seed, SHORT).counts)
    expected = {"completed", "failed", "NOCREDIT", "CAPACITY", "QUOTA", "INVALID", "estimated"}
    expected |= {f"by {who}" for who in ("ami", "hangup", "recovery", "expiry", "undelivered")}
    assert expected <= {name for name, count in seen.items() if count}


def test_a_seed_plays_the_same_run_again() -> None:
    """Also in a process with another order of sets and dictionaries of text."""
    digests = {simulate(5, SHORT).digest}
    code = "from simulation.run import *; print(simulate(5, Options(calls=120)).digest)"
    for hash_seed in ("1", "2"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        digests.add(int(done.stdout))
    assert len(digests) == 1
