"""A short run of the fuzzer over each target, always the same; and that it finds what there is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from fuzz.__main__ import Limits, fuzz, main
from fuzz.targets import TARGETS
from support.project import ROOT

SEED = 20_261_122
INPUTS = {"ami": 200, "ami-link": 100}
"""What a second or two are enough for; a long run is a command: scripts/fuzz."""
MOST_INPUTS = 500

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None and os.environ.get("CI") != "true",
    reason="atheris is not installed (there is one for Linux on x86-64): scripts/fuzz installs it",
)


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    inputs = INPUTS.get(name, MOST_INPUTS)
    result = fuzz(name, SEED, Limits(inputs, 0), tmp_path)
    assert result.fault == ""
    assert result.inputs >= inputs  # libFuzzer looks at its first ones again
    assert result.kept > 1, "it follows the ways through the code"


@needs_atheris
def test_a_fault_that_is_reached_step_by_step_is_found(tmp_path: Path) -> None:
    """Four bytes, each of which is looked at by itself: blind luck needs 2³² inputs."""
    result = fuzz("selftest", SEED, Limits(1_000_000, 0), tmp_path)
    assert result.fault.startswith("BrokenError: found\nTraceback")
    assert result.crash is not None
    assert result.crash.read_bytes().startswith(b"AGI:")


@needs_atheris
def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    one, other = (fuzz("selftest", 3, Limits(5_000, 0), tmp_path) for _ in range(2))
    assert one.crash == other.crash
    assert one.ways > 0
    assert (one.ways, one.kept) == (other.ways, other.kept)


def test_an_input_is_played_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "agi-crash-1"
    path.write_bytes(TARGETS["agi"].seeds[0])
    assert main(["--replay", str(path), "agi"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "there is no target 'nonsense'"),
        (["--seed", "0", "--inputs", "-1"], "not negative"),
        (["--replay", "x"], "needs the name of one target"),
    ],
)
def test_what_it_cannot_do_it_says(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert said in capsys.readouterr().err + str(caught.value)


def test_the_command_explains_itself() -> None:
    """Without installing anything."""
    done = subprocess.run(
        [str(ROOT / "scripts" / "fuzz"), "--help"], capture_output=True, text=True, check=True
    )
    assert "--replay FILE" in done.stdout
