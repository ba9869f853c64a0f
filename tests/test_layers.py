"""The layer rule: an inner layer never imports an outer one, each library is known in one layer.

    domain (pure)  <-  service  <-  storage | asterisk  <-  app  <-  cli

The rule is checked on the syntax tree of every file, imports inside functions and below
`if TYPE_CHECKING` included. The second half plants violations and sees each one found.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.project import PACKAGE, python_files

MAY_IMPORT = {
    "domain": {"domain"},
    "service": {"domain", "service"},
    "storage": {"domain", "service", "storage"},
    "asterisk": {"domain", "service", "asterisk"},
    "app": {"domain", "service", "storage", "asterisk", "app"},
    "cli": {"domain", "service", "storage", "asterisk", "app", "cli"},
}
"""For each layer the layers that it may import. storage and asterisk do not know each other."""

KNOWN_IN = {
    "sqlalchemy": {"storage"},
    "aiomysql": {"storage"},
    "aiosqlite": {"storage"},
    "pymysql": {"storage"},
    "sqlite3": {"storage"},
    "panoramisk": {"asterisk"},
    "asterisk": {"asterisk"},  # pyst2's package
    "prometheus_client": {"app"},
    "uvloop": {"app"},
    "tomllib": {"app"},
    "click": {"cli"},
    "rich": {"cli"},
}
"""For each library the layers that may import it. One that is not here may be imported nowhere."""

PURE = frozenset(
    {
        "__future__",
        "abc",
        "array",
        "bisect",
        "collections",
        "csv",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "io",
        "ipaddress",
        "itertools",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "typing",
        "unicodedata",
    }
)
"""The parts of the standard library that the domain may use: no I/O, clock, chance or logging.

`csv` and `io` are for texts in memory; `open` is forbidden below.
"""
PURE_WITH_CARE = frozenset({"datetime", "decimal", "zoneinfo"})
"""For arithmetic; reading the clock is forbidden below."""

IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}
CLOCK_METHODS = {"now", "utcnow", "today"}


def violations(package: Path) -> list[str]:
    """What breaks the rule below `package`, each as "file:line: what"."""
    found = []
    for path in python_files(package):
        inside = path.relative_to(package)
        tree = ast.parse(path.read_text(), str(path))
        layer = inside.parts[0] if len(inside.parts) > 1 else ""
        problems = list(_import_problems(layer, inside, tree, package.name))
        if layer == "domain":
            problems += _impurities(tree)
        found += [f"{inside.as_posix()}:{line}: {what}" for line, what in sorted(problems)]
    return found


def _import_problems(
    layer: str, inside: Path, tree: ast.Module, package: str
) -> Iterator[tuple[int, str]]:
    if layer and layer not in MAY_IMPORT:
        yield 1, f"{layer} is no layer"
        return
    for line, module in _imports(inside, tree, package):
        top, _, rest = module.partition(".")
        if top == package:
            target = rest.partition(".")[0]
            if target in MAY_IMPORT and target not in MAY_IMPORT.get(layer, _root(inside)):
                yield line, f"{layer or inside.name} imports {target}"
        elif top in KNOWN_IN:
            if layer not in KNOWN_IN[top]:
                yield line, f"{layer or inside.name} imports {top}"
        elif top not in sys.stdlib_module_names:
            yield line, f"{top} is not a known library"
        elif layer == "domain" and top not in PURE | PURE_WITH_CARE:
            yield line, f"domain imports {top}"


def _root(inside: Path) -> set[str]:
    """Files beside the layers: only `python -m astcredit` reaches into one."""
    return {"cli"} if inside.name == "__main__.py" else set()


def _imports(inside: Path, tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported; `from a import b` gives "a.b"."""
    here = [package, *inside.parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def _impurities(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _name(node.func)
            if isinstance(node.func, ast.Name) and name in IMPURE_CALLS:
                yield node.lineno, f"domain calls {name}()"
            if isinstance(node.func, ast.Attribute) and name in CLOCK_METHODS:
                yield node.lineno, f"domain reads the clock: .{name}()"
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global):
            yield node.lineno, f"domain has {type(node).__name__}"


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_the_package_keeps_the_layer_rule() -> None:
    assert violations(PACKAGE) == []


def test_every_layer_is_there_and_was_looked_at() -> None:
    folders = {path.parent.name for path in python_files(PACKAGE)} - {PACKAGE.name}
    assert set(MAY_IMPORT) <= folders


def plant(tmp_path: Path, file: str, text: str) -> Path:
    package = tmp_path / "astcredit"
    path = package / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return package


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("domain/a.py", "import astcredit.service.ports", "domain imports service"),
        ("domain/a.py", "from astcredit.service import ports", "domain imports service"),
        ("domain/a.py", "from astcredit import service", "domain imports service"),
        ("domain/a.py", "from ..service import ports", "domain imports service"),
        ("domain/a.py", "from .. import storage", "domain imports storage"),
        ("domain/deep/a.py", "from ...cli import main", "domain imports cli"),
        ("service/a.py", "from astcredit.storage.db import X", "service imports storage"),
        ("service/a.py", "from astcredit import domain, asterisk", "service imports asterisk"),
        ("service/a.py", "import astcredit.app.settings as s", "service imports app"),
        ("storage/a.py", "from astcredit.asterisk.ami import X", "storage imports asterisk"),
        ("asterisk/a.py", "from astcredit.storage import X", "asterisk imports storage"),
        ("asterisk/a.py", "def f():\n from astcredit.app import x", "asterisk imports app"),
        ("app/a.py", "if 0:\n import astcredit.cli.main", "app imports cli"),
        ("app/a.py", "import importlib\nimportlib.import_module('astcredit.cli')", "imports cli"),
        ("__init__.py", "from astcredit.domain import money", "__init__.py imports domain"),
        ("__main__.py", "from astcredit.app import x", "__main__.py imports app"),
        ("extra/a.py", "import os", "extra is no layer"),
        ("service/a.py", "import sqlalchemy", "service imports sqlalchemy"),
        ("app/a.py", "from sqlalchemy.ext.asyncio import X", "app imports sqlalchemy"),
        ("cli/a.py", "import sqlite3", "cli imports sqlite3"),
        ("asterisk/a.py", "import aiomysql", "asterisk imports aiomysql"),
        ("app/a.py", "import panoramisk", "app imports panoramisk"),
        ("storage/a.py", "from asterisk.agi import AGI", "storage imports asterisk"),
        ("app/a.py", "import click", "app imports click"),
        ("service/a.py", "from rich.table import Table", "service imports rich"),
        ("asterisk/a.py", "import prometheus_client", "asterisk imports prometheus_client"),
        ("asterisk/a.py", "import requests", "requests is not a known library"),
        *[
            ("domain/a.py", f"import {module}", f"domain imports {module}")
            for module in ("asyncio", "socket", "os", "time", "random", "logging", "pathlib")
        ],
        ("domain/a.py", "from datetime import datetime\ndatetime.now()", "reads the clock: .now()"),
        ("domain/a.py", "import datetime\ndatetime.date.today()", "reads the clock: .today()"),
        ("domain/a.py", "open('x')", "domain calls open()"),
        ("domain/a.py", "print(1)", "domain calls print()"),
        ("domain/a.py", "async def f(): ...", "domain has AsyncFunctionDef"),
        ("domain/a.py", "x = 0\ndef f():\n global x", "domain has Global"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, what: str) -> None:
    found = violations(plant(tmp_path, file, text))
    assert len(found) == 1, found
    assert found[0].startswith(f"{file}:")
    assert what in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("domain/a.py", "from __future__ import annotations\nimport re\nfrom . import b"),
        ("domain/a.py", "from datetime import UTC, datetime\ndatetime.fromtimestamp(0, UTC)"),
        ("service/a.py", "import asyncio\nfrom astcredit.domain.money import Micros"),
        ("storage/a.py", "import sqlalchemy, aiomysql\nfrom astcredit.service import ports"),
        ("asterisk/a.py", "import panoramisk\nfrom asterisk.agi import AGI\nfrom . import legs"),
        ("app/a.py", "from astcredit import storage, asterisk, service, domain, __version__"),
        ("cli/a.py", "import click\nfrom rich.table import Table\nfrom astcredit.app import x"),
        ("__main__.py", "from astcredit.cli.main import main"),
    ],
)
def test_what_is_allowed_is_not_complained_about(tmp_path: Path, file: str, text: str) -> None:
    assert violations(plant(tmp_path, file, text)) == []
