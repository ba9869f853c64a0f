"""The house rules that a machine can see. Each has a planted violation that it must find."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.project import PACKAGE, ROOT, python_files

LONGEST_FUNCTION = 60
LONGEST_MODULE = 450
LONGEST_TEST_MODULE = 600
"""Tables of cases are long and still one subject."""

Problem = tuple[int, str]
"""Line and what is wrong there."""

LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
LOGGER = re.compile(r"_?log(ger|ging)?", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME")) + r")\b")


def long_functions(tree: ast.Module) -> Iterator[Problem]:
    """A function that does not fit on a screen does more than one thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield node.lineno, f"{node.name} has {lines} lines"


def printing(tree: ast.Module) -> Iterator[Problem]:
    """Output for people is the command line's; everything else logs."""
    for node in _calls(tree):
        if isinstance(node.func, ast.Name) and node.func.id == "print":
            yield node.lineno, "print() outside cli"


def glued_log_messages(tree: ast.Module) -> Iterator[Problem]:
    """A message is constant and names its action: what came from a call goes into `extra`."""
    for node in _calls(tree):
        if not _is_logging(node):
            continue
        assert isinstance(node.func, ast.Attribute)
        arguments = node.args[1:] if node.func.attr == "log" else node.args
        message = arguments[0] if arguments else None
        if not _is_constant_text(message):
            yield node.lineno, "a log message that is not constant"
        elif len(arguments) > 1:
            yield node.lineno, "a log message with arguments"
        elif not _names_action(node):
            yield node.lineno, "a log event without an action in extra"


def floats(tree: ast.Module) -> Iterator[Problem]:
    """Money is whole micro-units: no float can be made or named in the domain."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "float":
            yield node.lineno, "float"
        elif isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno, f"the float {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield node.lineno, "a division that makes a float"


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _is_logging(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in LOG_METHODS:
        return False
    owner = node.func.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return LOGGER.fullmatch(name) is not None


def _is_constant_text(node: ast.expr | None) -> bool:
    """A text, or a choice between two."""
    if isinstance(node, ast.IfExp):
        return _is_constant_text(node.body) and _is_constant_text(node.orelse)
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _names_action(node: ast.Call) -> bool:
    """True when extra has an "action"; also when it is no literal, which cannot be seen here."""
    extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
    if not isinstance(extra, ast.Dict):
        return extra is not None
    return any(
        key is None or (isinstance(key, ast.Constant) and key.value == "action")
        for key in extra.keys
    )


Rule = Callable[[ast.Module], Iterator[Problem]]

EVERYWHERE: tuple[Rule, ...] = (long_functions,)
IN_THE_PACKAGE: tuple[Rule, ...] = (*EVERYWHERE, glued_log_messages)


def rules_for(inside: Path) -> tuple[Rule, ...]:
    """The rules for a file, by its path below the project's root."""
    if inside.parts[0] != "astcredit":
        return EVERYWHERE
    layer = inside.parts[1]
    return (
        *IN_THE_PACKAGE,
        *(() if layer == "cli" else (printing,)),
        *((floats,) if layer == "domain" else ()),
    )


def problems(root: Path) -> list[str]:
    """Everything that breaks a rule below `root`, each as "file:line: what"."""
    found = []
    for path in [*python_files(root / "astcredit"), *python_files(root / "tests")]:
        inside, text = path.relative_to(root), path.read_text()
        tree = ast.parse(text, str(path))
        here = [problem for rule in rules_for(inside) for problem in rule(tree)]
        longest = LONGEST_MODULE if inside.parts[0] == "astcredit" else LONGEST_TEST_MODULE
        if (lines := len(text.splitlines())) > longest:
            here.append((1, f"the module has {lines} lines"))
        found += [f"{inside}:{line}: {what}" for line, what in sorted(here)]
    return found + unfinished(root)


def unfinished(root: Path) -> list[str]:
    """Marks of unfinished work: what is left to do belongs into the list of issues."""
    folders = ("astcredit", "sql", "dialplan", "scripts", "tests")
    files = sorted(
        path
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return [
        f"{path.relative_to(root)}:{number}: {match[0]}"
        for path in files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        for match in UNFINISHED.finditer(line)
    ]


def test_the_project_keeps_its_rules() -> None:
    assert problems(ROOT) == []


def test_the_rules_were_run_on_the_package() -> None:
    assert len(list(python_files(PACKAGE))) > 10


LONG_FUNCTION = "def f():\n" + "    pass\n" * LONGEST_FUNCTION


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("astcredit/app/a.py", LONG_FUNCTION, ":1: f has 61 lines"),
        ("tests/test_a.py", "async " + LONG_FUNCTION, ":1: f has 61 lines"),
        ("astcredit/cli/a.py", "\n" * 451, ":1: the module has 451 lines"),
        ("tests/a.py", "\n" * 601, ":1: the module has 601 lines"),
        ("astcredit/app/a.py", "\nprint(1)", ":2: print() outside cli"),
        ("astcredit/service/a.py", "log.info(f'{x}')", "not constant"),
        ("astcredit/service/a.py", "logger.info('a %s' % x)", "not constant"),
        ("astcredit/service/a.py", "self._log.warning('a' + x)", "not constant"),
        ("astcredit/service/a.py", "logging.error('{}'.format(x))", "not constant"),
        ("astcredit/cli/a.py", "LOG.exception(error)", "not constant"),
        ("astcredit/cli/a.py", "log.log(30, message)", "not constant"),
        ("astcredit/cli/a.py", "log.info('a' if x else x, extra=y)", "not constant"),
        ("astcredit/app/a.py", "log.info('a %s', x, extra={'action': 'a'})", "with arguments"),
        ("astcredit/app/a.py", "log.info('a')", "without an action"),
        ("astcredit/app/a.py", "log.info('a', extra={'node': 1})", "without an action"),
        ("astcredit/domain/a.py", "float('1')", ":1: float"),
        ("astcredit/domain/a.py", "def f(x: float): ...", ":1: float"),
        ("astcredit/domain/a.py", "x = 0.5", "the float 0.5"),
        ("astcredit/domain/a.py", "x = 1 / 3", "a division"),
        ("astcredit/domain/a.py", "x = 1\nx /= 3", ":2: a division"),
        ("astcredit/domain/a.py", "# TO" + "DO: later", ":1: TO" + "DO"),
        ("sql/mariadb/a.sql", "-- FIX" + "ME", ":1: FIX" + "ME"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, what: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = problems(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(f"{file}:")
    assert what in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("astcredit/app/a.py", "def f():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)),
        ("astcredit/app/a.py", "\n" * LONGEST_MODULE),
        ("astcredit/cli/a.py", "print(1)\nx = 0.5"),
        ("astcredit/app/a.py", "log.info('a', extra={'action': 'a', 'n': x})"),
        ("astcredit/app/a.py", "log.info('a' if x else 'b', extra={'action': x})"),
        ("astcredit/app/a.py", "log.info('a', extra={**base, 'n': x})\nlog.info('a', extra=base)"),
        ("astcredit/app/a.py", "log.log(30, 'a', extra={'action': 'a'})\nmath.log(x)"),
        ("astcredit/app/a.py", "agi.error(text)\nself.exception(x)"),
        ("astcredit/domain/a.py", "x = 7 // 3\nfloating = 1"),
    ],
)
def test_what_is_allowed_is_not_complained_about(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert problems(tmp_path) == []
