"""The lab itself: what others' tests stand on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.agi_stub import ALLOWED, AgiStub
from support.lab import Lab, LabOptions, Ports, wait_until
from support.sipp import Answer

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"


def listening(port: int, protocol: str) -> set[str]:
    """Addresses (as the kernel writes them) on which the port is bound."""
    table = Path(f"/proc/net/{protocol}").read_text()
    return set(re.findall(rf"^ *\d+: ([0-9A-F]+):{port:04X} ", table, re.MULTILINE))


LOOPBACK_HEX = "0100007F"


def test_the_instances_ports_are_on_the_loopback_alone(lab: Lab) -> None:
    assert listening(lab.ports.sip, "udp") == {LOOPBACK_HEX}
    assert listening(lab.ports.ami, "tcp") == {LOOPBACK_HEX}
    assert listening(lab.ports.sip, "udp6") == set()
    assert listening(lab.ports.ami, "tcp6") == set()


def test_two_instances_live_side_by_side(lab: Lab, lab_tree: Path, tmp_path: Path) -> None:
    options = LabOptions(accounts=("neighbour",), node="second")
    with (
        Lab(tmp_path, options=options, tree=lab_tree) as other,
        AgiStub(lambda _: ALLOWED) as stub,
        other.globals(AC_AGI=stub.agi),
        other.carrier(Answer()),
    ):
        assert other.customer_call(NUMBER, 0).answered
        other.wait_idle()
        assert stub.requests[0].environment["agi_accountcode"] == "neighbour"
        assert stub.requests[0].arguments[2] == "second"
        assert other.ami.url.endswith("/second")
        assert other.ami.secret not in repr(other.ami)
        assert lab.channels() == []


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_an_instance_leaves_neither_processes_nor_mounts(
    lab_tree: Path, tmp_path: Path, end: str
) -> None:
    instance = Lab(tmp_path, tree=lab_tree)
    instance.start()
    assert processes_under(tmp_path)
    getattr(instance, end)()
    wait_until(lambda: not processes_under(tmp_path), 10, "the processes to end")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert listening(instance.ports.sip, "udp") == set()


def test_an_instance_starts_again_after_a_crash_and_keeps_its_records(
    lab_tree: Path, tmp_path: Path
) -> None:
    instance = Lab(tmp_path, tree=lab_tree)
    with instance, instance.carrier(Answer()):
        assert instance.customer_call("112", 0).answered
        before = instance.asterisk_cdrs(at_least=1)
        instance.crash()
        instance.start()
        assert instance.asterisk_cdrs() == before
        assert instance.customer_call("112", 0).answered
        assert len(instance.asterisk_cdrs(at_least=2)) == 2


def test_the_classic_record_file_has_what_reconciliation_needs(lab: Lab) -> None:
    with lab.carrier(Answer()):
        lab.customer_call("112", 0)
        lab.wait_idle()
    record = lab.asterisk_cdrs(at_least=1)[-1]

    def is_written() -> bool:
        # Callers of other tests may have written into it what is no UTF-8.
        return f'"{record.uniqueid}"' in lab.master_csv.read_text(errors="replace")

    wait_until(is_written, 10, "Master.csv to be written")


def test_ports_that_are_chosen_are_free_and_different() -> None:
    ports = Ports.free()
    assert len({ports.sip, ports.ami, ports.carrier, ports.backup}) == 4


def processes_under(directory: Path) -> list[str]:
    """Processes that have the directory on their command line or as the root's /lab."""
    found = []
    for status in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if str(directory) in status.read_text():
                found.append(status.parent.name)
        except OSError:
            continue
    return found
