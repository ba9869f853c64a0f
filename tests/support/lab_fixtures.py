"""The installed Asterisk as a pytest fixture; a conftest.py imports it by name.

Where it cannot be had, the tests are skipped and say why; under CI=true they fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agi_stub import ALLOWED, AgiStub
from support.lab import Lab, LabError, LabOptions, build
from support.sipp import Answer, Carrier


@pytest.fixture(scope="session")
def lab_tree() -> Path:
    """The tree that `Lab(directory, tree=lab_tree)` runs in; built once, cached on the machine."""
    missing = _missing()
    if not missing:
        try:
            return build()
        except LabError as error:
            missing = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(f"no real Asterisk: {missing}")
    pytest.skip(f"no real Asterisk: {missing}")


@pytest.fixture(scope="session")
def lab(lab_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One Asterisk for all tests of the session, with two customers, `demo` and `second`.

    A test points it to its own controller: `with lab.globals(AC_AGI=...)`. Who needs to stop or
    crash Asterisk starts a `Lab(tmp_path, tree=lab_tree)` of its own; that takes half a second."""
    options = LabOptions(accounts=("demo", "second"))
    with Lab(tmp_path_factory.mktemp("lab"), options=options, tree=lab_tree) as running:
        yield running


@pytest.fixture
def stub(lab: Lab) -> Iterator[AgiStub]:
    """The controller that the lab asks; it allows everything until told otherwise."""
    with AgiStub(lambda _: ALLOWED) as server, lab.globals(AC_AGI=server.agi):
        yield server
        lab.wait_idle()


@pytest.fixture
def carrier(lab: Lab) -> Iterator[Carrier]:
    """A carrier that answers everything and leaves hanging up to the others."""
    with lab.carrier(Answer()) as carrier:
        yield carrier


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root (chroot, mount)"
    if not Path("/etc/debian_version").exists():
        return "needs Debian"
    return ""
