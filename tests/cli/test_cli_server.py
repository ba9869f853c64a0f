"""`simulate` and `doctor`, against a server that runs and against none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.databases import free_port
from support.server import astcredit, serving

NUMBER = "00442071234567"


@pytest.fixture
def demo_url(sqlite_url: str) -> str:
    astcredit(sqlite_url, "init", "--demo")
    return sqlite_url


def test_a_simulated_call_is_charged_as_a_real_one(demo_url: str, tmp_path: Path) -> None:
    with serving(demo_url, tmp_path) as server:
        listen = f"127.0.0.1:{server.port}"
        arguments = ("simulate", NUMBER, "--account", "demo", "--talk", "65", "--books")
        shown = astcredit(demo_url, "--format", "json", *arguments, fastagi_listen=listen)
        authorized, ended, left = json.loads(shown.stdout)["steps"]
        assert authorized["rows"]["astcreditres"]["reservedamount"] == "1.080000"
        assert authorized["rows"]["astcdr"]["status"] == "open"
        assert ended["rows"]["astledger"]["amount"] == "-0.019800"
        assert "astcreditres" not in ended["rows"]
        assert left["variables"]["AC_BALANCE"] == "9.980200"
        refused = ("simulate", NUMBER, "--account", "nobody")
        assert "NOACCOUNT" in astcredit(demo_url, *refused, status=1, fastagi_listen=listen).stdout
        doctor = ("--format", "json", "doctor")
        found = json.loads(astcredit(demo_url, *doctor, fastagi_listen=listen).stdout)
        assert {row["check"]: row["verdict"] for row in found} == {
            "settings": "ok",
            "database": "ok",
            "schema": "ok",
            "catalog": "ok",
            "ami": "warning",  # there is none
            "mail": "warning",  # nor is there a mail server
            "server": "ok",
        }


def test_without_a_server_one_line_says_what_to_do(demo_url: str) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    arguments = ("simulate", NUMBER, "--account", "demo")
    done = astcredit(demo_url, *arguments, status=1, fastagi_listen=nowhere)
    assert done.stderr.count("\n") == 1
    assert "astcredit serve" in done.stderr
    assert "astcredit serve" in astcredit(demo_url, "doctor", fastagi_listen=nowhere).stdout


@pytest.mark.parametrize("damage", ["no tables", "no node"])
def test_doctor_finds_what_is_wrong(demo_url: str, tmp_path: Path, damage: str) -> None:
    node = f"ami://u:SECRET@127.0.0.1:{free_port()}/pbx1" if damage == "no node" else ""
    url = demo_url if damage == "no node" else f"sqlite:///{tmp_path}/other.db"
    done = astcredit(url, "doctor", status=1, ami_nodes=node)
    assert " error " in done.stdout
    assert "SECRET" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_doctor_shows_each_setting_in_force_and_no_secret(demo_url: str) -> None:
    node = "ami://astcredit:geheim@127.0.0.1:5038/pbx1"
    done = astcredit(demo_url, "--format", "json", "doctor", "--settings", ami_nodes=node)
    found = {row["setting"]: row for row in json.loads(done.stdout)}
    assert found["ami.nodes"]["from"] == "the environment (ASTCREDIT_AMI_NODES)"
    assert "geheim" not in done.stdout
    assert found["call.max_seconds"]["from"] == "default"
    assert found["call.max_seconds"]["value"] == "3600"
