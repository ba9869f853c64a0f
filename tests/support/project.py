"""The tree under test, and what a test does when a part of the machine is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "astcredit"


def missing_part(what: str) -> NoReturn:
    """Skip the test because `what` cannot be had here; with CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (with CI=true nothing is skipped)", pytrace=False)
    pytest.skip(what)


def require_programs(*names: str, package: str) -> None:
    """Skip (or, with CI=true, fail) unless all programs are there; names the Debian package."""
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        missing_part(f"{', '.join(absent)} not installed (Debian: apt-get install {package})")


def python_files(folder: Path) -> Iterator[Path]:
    """All Python files below `folder`, in a stable order."""
    return iter(sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts))
