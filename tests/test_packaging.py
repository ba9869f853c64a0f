"""What is installed is what is in the tree: wheel, sdist and editable install contain the SQL.

`astcredit/sql` is a symbolic link to `../sql`; the package is built here as pip builds it, through
its build backend, without a network.
"""

from __future__ import annotations

import configparser
import importlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.project import PACKAGE, ROOT

BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
"""The interpreter behind the virtual environment: it knows nothing of installed packages."""

BUILD = "import sys, setuptools.build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")

LOOK = """
import site, sys
site.addsitedir(sys.argv[1])
import importlib.resources
import astcredit
sql = importlib.resources.files("astcredit") / "sql"
print(astcredit.__file__)
for kind in sql.iterdir():
    for file in kind.iterdir() if kind.is_dir() else ():
        print(f"{kind.name}/{file.name}", len(file.read_bytes()))
"""
"""Run by an interpreter that has only what was installed into a folder."""


def sql_files() -> dict[str, int]:
    """Name below sql/ and size of each file."""
    top = ROOT / "sql"
    return {p.relative_to(top).as_posix(): p.stat().st_size for p in top.rglob("*.sql")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the project."""
    copy = tmp_path_factory.mktemp("tree") / "astcredit"
    copy.mkdir()
    for name in ("astcredit", "sql", "dialplan", "docs"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=IGNORED)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "MANIFEST.in", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy


def build(tree: Path, what: str, target: Path) -> Path:
    """Run the build backend's hook `what` in `tree`; return the file that it made."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(target)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target / done.stdout.splitlines()[-1]


def installed(target: Path) -> tuple[Path, dict[str, int]]:
    """Where `astcredit` is found when only `target` is installed, and its SQL files."""
    command = [BASE_PYTHON, "-I", "-S", "-c", LOOK, str(target)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, *files = done.stdout.splitlines()
    pairs = (line.rsplit(" ", 1) for line in files)
    return Path(where), {name: int(size) for name, size in pairs if name.endswith(".sql")}


def test_there_are_sql_files_for_both_databases() -> None:
    assert {name.split("/")[0] for name in sql_files()} == {"sqlite", "mariadb"}
    assert (PACKAGE / "sql").is_symlink()
    assert (PACKAGE / "sql").readlink() == Path("../sql")


def test_a_wheel_contains_the_sql_the_commands_and_the_license(tree: Path, tmp_path: Path) -> None:
    wheel = build(tree, "build_wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
        entries = next(name for name in names if name.endswith("entry_points.txt"))
        commands = configparser.ConfigParser()
        commands.read_string(archive.read(entries).decode())
    assert installed(tmp_path / "installed") == (
        tmp_path / "installed" / "astcredit" / "__init__.py",
        sql_files(),
    )
    assert dict(commands["console_scripts"]) == {
        "astcredit": "astcredit.cli.main:main",
        "astcredit-agi": "astcredit.cli.main:agi_main",
    }
    assert any(name.endswith("/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "sql/", "dialplan/"))]


def test_every_module_of_the_tree_is_in_the_wheel(tree: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tree, "build_wheel", tmp_path)) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    modules = {p.relative_to(tree).as_posix() for p in (tree / "astcredit").rglob("*.py")}
    assert packed == modules


def test_a_wheel_made_from_the_sdist_is_complete(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(build(tree, "build_sdist", tmp_path)) as archive:
        # Python 3.11 has filters from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "dialplan").is_dir()
    with zipfile.ZipFile(build(unpacked, "build_wheel", tmp_path)) as archive:
        archive.extractall(tmp_path / "installed")
    assert installed(tmp_path / "installed")[1] == sql_files()


def test_an_editable_install_finds_the_sql_of_the_tree(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    with zipfile.ZipFile(build(tree, "build_editable", tmp_path)) as archive:
        archive.extractall(target)
    assert installed(target) == (tree / "astcredit" / "__init__.py", sql_files())
    (tree / "sql" / "sqlite" / "new.sql").write_text("-- new")
    try:
        assert installed(target)[1]["sqlite/new.sql"] == len("-- new")
    finally:
        (tree / "sql" / "sqlite" / "new.sql").unlink()


@pytest.mark.parametrize("name", ["main", "agi_main"])
def test_the_commands_are_there(name: str) -> None:
    assert callable(getattr(importlib.import_module("astcredit.cli.main"), name))


def test_the_version_is_a_plain_one() -> None:
    version: str = importlib.import_module("astcredit").__version__
    assert all(part.isdigit() for part in version.split("."))
