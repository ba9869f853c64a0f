"""The guides in docs/ are true: what they tell to type works, in the order in which it stands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from support.project import ROOT
from support.server import astcredit

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADMINS = next(b for b in README.split("```") if "\nastcredit init\n" in b)


def commands(text: str) -> list[list[str]]:
    """The commands in a text's code: continued lines joined, remarks taken off."""
    code = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("astcredit ")]


@pytest.mark.parametrize("guide", ["ROUTING.md", "QUOTAS.md"])
def test_the_commands_of_a_guide_work_as_they_stand(
    guide: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with the project's docs, after what the README tells admins to type."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    for command in commands(f"```\n{ADMINS.strip()}\n```"):
        astcredit(database_url, *command)
    told = commands((ROOT / "docs" / guide).read_text(encoding="utf-8"))
    assert len(told) > 5
    for command in told:
        *command, file = command if ">" in command else [*command, ""]
        done = astcredit(database_url, *(word for word in command if word != ">"))
        if file:
            (tmp_path / file).write_text(done.stdout, encoding="utf-8")
