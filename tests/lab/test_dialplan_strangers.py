"""dialplan/ in a real Asterisk: what callers write is text, and stays text.

The dialled number, the caller's number and name, and every header are a stranger's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.agi_stub import AgiStub
from support.lab import Lab, wait_until
from support.sipp import Carrier, CustomerScript

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"
CANARY = "touch /lab/db/canary"


def quoted(number: str) -> str:
    """In a SIP URI: what is no letter or digit goes as %XX, and Asterisk undoes that."""
    return "".join(sign if sign.isalnum() else f"%{ord(sign):02X}" for sign in number)


HOSTILE_NUMBERS = [
    f"44${{SHELL({CANARY})}}",
    f"44$[${{SHELL({CANARY})}}]",
    f"44`{CANARY}`",
    f"44$({CANARY})",
    f"44;{CANARY}",
    '44"',
    "44'",
    "44\\",
    "44,PJSIP/1@carrier",
    "44&PJSIP/1@carrier",
    "44|1",
    "44,2(",
    "44,dial(",
    "44,help(",
    "44)",
    "44(x",
    "44):0",
    "44):0:2",
    "44@carrier",
    "44 & 1",
    "44}${EXTEN",
    "44?dial:dial",
    "112;",
    "112,help(",
    "44%0d%0aX: y",
    "4" * 41,
]

CARELESS = """
[from-customers]
exten => _0088.,1,Gosub(astcredit,${EXTEN:4},1)
 same => n,Hangup(${AC_CAUSE})
"""


@pytest.fixture
def canary(lab: Lab) -> Iterator[Path]:
    """A file that only exists when a caller's text was executed; Asterisk may write there."""
    path = lab.directory / "db" / "canary"
    path.unlink(missing_ok=True)
    yield path
    assert not path.exists(), "a caller's text was executed"


@pytest.mark.parametrize("prefix", ["", "0088"], ids=["customers.conf", "careless dialplan"])
@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_a_hostile_number_reaches_nobody(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, number: str, prefix: str
) -> None:
    """Even where the FILTER was forgotten (`careless`): refused, not dialled, not asked for."""
    if prefix:
        lab.add_dialplan(CARELESS)
    records = len(lab.asterisk_cdrs())
    script = CustomerScript(quoted(prefix + number), hangup_after_s=0)
    outcome = lab.start_calls(script).wait()[0]
    assert not outcome.answered
    lab.wait_idle()
    assert lab.asterisk_cdrs(at_least=records + 1)[-1].disposition != "ANSWERED"
    assert carrier.invites() == []
    assert stub.scripts() == []


HOSTILE_NAMES = {
    "evaluation": f"${{SHELL({CANARY})}}$[1+1]",
    "separators": f"a,b&c|d;{CANARY};e(f)g?h:i=j",
    "quotes": f"\\\" '`{CANARY}` \\\\",
    "ten kilobytes": "x" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_display_name_changes_nothing(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, name: str
) -> None:
    script = CustomerScript(NUMBER, hangup_after_s=0, display=HOSTILE_NAMES[name])
    assert lab.start_calls(script).wait()[0].answered
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]
    assert stub.requests[0].arguments[0] == NUMBER
    invite = carrier.invites()[0]
    assert "SHELL" not in invite
    assert "canary" not in invite
    assert len(invite) < 2_000


@pytest.mark.parametrize("number", HOSTILE_NUMBERS)
def test_a_hostile_caller_number_changes_nothing(
    lab: Lab, stub: AgiStub, carrier: Carrier, canary: Path, number: str
) -> None:
    script = CustomerScript(NUMBER, hangup_after_s=0, caller=quoted(number))
    assert lab.start_calls(script).wait()[0].answered
    lab.wait_idle()
    assert stub.scripts() == ["authorize", "hangup"]
    assert "canary" not in carrier.invites()[0]


EVALUATES = """
[from-customers]
exten => _992.,1,Set(X=${EVAL(${CALLERID(name)})})
 same => n,Hangup(21)
"""


def test_the_canary_would_sing(lab: Lab) -> None:
    """The tests above prove something only if an evaluated text does write that file."""
    lab.add_dialplan(EVALUATES)
    path = lab.directory / "db" / "canary"
    script = replace(CustomerScript("9921"), display=HOSTILE_NAMES["evaluation"])
    assert lab.start_calls(script).wait()[0].code == 403
    wait_until(path.exists, 5, "the canary")
    path.unlink()
