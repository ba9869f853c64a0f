"""What an entry of astaudit says in a line."""

from __future__ import annotations

import pytest

from astcredit.service.history_desk import changed_text
from astcredit.service.history_ports import AuditEntry, State

CASES: tuple[tuple[State | None, State | None, str], ...] = (
    (None, None, ""),
    (None, {"kind": "x", "enabled": True, "email": "", "limit": None}, "kind: x; enabled: yes"),
    ({"enabled": True}, {"enabled": False}, "enabled: yes -> no"),
    ({"email": ""}, {"email": "a@b"}, "email: none -> a@b"),
    ({"orig_capacity": 0}, {"orig_capacity": None}, "orig_capacity: 0 -> none"),
    ({"ident": ["a", "b"]}, {"ident": []}, "ident: a;b -> none"),
    ({"x": 1, "y": 2}, {"y": 3, "x": 1, "z": 4}, "x: 1 -> 1; y: 2 -> 3; z: 4"),
    ({"x": 1}, None, "x: 1 -> none"),
)  # fmt: skip


@pytest.mark.parametrize(("before", "after", "text"), CASES)
def test_a_change_is_told_in_a_line(before: State | None, after: State | None, text: str) -> None:
    assert changed_text(AuditEntry(0, "me", "set", "client", "x", before, after)) == text
