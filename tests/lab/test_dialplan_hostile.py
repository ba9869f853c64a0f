"""Hostile texts through a real Asterisk, a real server and a real database, all at once.

Through the shipped dialplan, and through one that forgets every FILTER: what a caller writes is
text, is recorded as text, and changes nothing else.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.lab import Lab, wait_until
from support.lab_config import WHOLESALE
from support.lab_scene import Row, Scene
from support.ports import LOOPBACK, free_port
from support.sipp import MEDIA_PORTS, Answer, CustomerCalls, CustomerScript, Sipp

pytestmark = [pytest.mark.asterisk, pytest.mark.mariadb]

CANARY = "touch /lab/db/hostile-canary"
RICH = "hostile-rich"
NUMBER = "442071234567"
CALLER = "442079460000"
LONG = 10_000

TEXTS = {
    "shell": f"${{SHELL({CANARY})}}",
    "expression": f"$[${{SHELL({CANARY})}}]",
    "eval": f"${{EVAL(${{SHELL({CANARY})}})}}",
    "backticks": f"`{CANARY}`",
    "separators": f"a,b|c;{CANARY};d&e^f",
    "brackets": "a)b(c]d[e}f{g",
    "backslashes": "a\\b\\\\c\\n\\\"d\\'",
    "quotes": '"\'"\'"',
    "assignments": "1,AC_STATUS=ALLOWED,AC_SECONDS=9999",
    "sql": "1';DROP TABLE astcdr;--",
    "sql in backslashes": "1\\';UPDATE astclient SET balance=9999;--",
    "sql in a comment": '1/**/OR/**/1=1#"--',
    "formats": "%s%n%x%(levelname)s{0}{__class__}%%",
    "line ends": "1\r\nX-Injected: yes",
    "agi header": f"1\nagi_accountcode: {RICH}\nagi_callerid: 1",
    "agi block": f"1\nagi_accountcode: {RICH}\n\n200 result=1 (x|192.0.2.1:5060)\n",
    "agi argument": f"1\nagi_arg_1: 112\nagi_arg_2: {RICH}",
    "ami event": "1\r\n\r\nEvent: Hangup\r\nUniqueid: 1.1\r\nCause: 16\r\n\r\n",
    "nul": "12\x0034",
    "nul first": "\x00",
    "control characters": "\x01\x07\x1b[2J\x7f\x9b",
    "10 kB of digits": "4" * LONG,
    "10 kB of anything": "a,${b}" * (LONG // 6),
    "not ASCII": "\u0661\u0662\u202e\uff11\U0001f600",
    "csv": '","","=1+1","',
}
BYTES = {
    "invalid UTF-8": b"1\xff\xfe\xc3",
    "half a character": b"12\xe2\x82",
    "overlong": b"1\xc0\xaf\xed\xa0\x80",
}
HOSTILE = {**{name: text.encode() for name, text in TEXTS.items()}, **BYTES}

# As somebody could write it who has not read dialplan/README.md.
CARELESS = """
[from-customers]
exten => _0099!,1,AGI(${AC_AGI}authorize)
 same => n,Set(CDR(userfield)=${AC_STATUS}/${AC_SECONDS}/${AC_CALLERID})
 same => n,GotoIf($["${AC_STATUS}" = "ALLOWED"]?dial)
 same => n,Hangup(${AC_CAUSE})
 same => n(dial),Set(CALLERID(num)=${AC_CALLERID})
 same => n,Dial(PJSIP/${AC_NUMBER}@carrier,20,${AC_OPTS})
"""
USERFIELD = 17
CLEAN = r"[A-Za-z0-9+*#._@-]{0,80}"
SAID = re.compile(rf"ALLOWED/3600/{CLEAN}|INVALID/0/{CALLER}|//", re.ASCII)
"""What the careless dialplan may have been told: nothing, where the request was refused."""
LOG_LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING) [ -~…]+")


@dataclass(frozen=True, slots=True)
class Call:
    """What a customer dials and as whom, as it goes into a SIP address: any byte, as %XX."""

    number: str
    caller: str


def quoted(text: bytes) -> str:
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in text)


def place(lab: Lab, calls: list[Call], address: str) -> CustomerCalls:
    """All these calls from one telephone, ten a second, each hung up once it is answered."""
    folder = lab.directory / "sipp"
    fields = folder / f"hostile-{free_port()}.csv"
    lines = [f"{call.number};{call.caller};" for call in calls]
    fields.write_text("\n".join(["SEQUENTIAL", *lines, ""]))
    scenario = CustomerScript("@0@", caller="@1@", hangup_after_s=0).scenario()
    for field in "01":
        scenario = scenario.replace(f"@{field}@", f"[field{field}]")
    arguments = [
        *("-i", address, "-mi", address, "-mp", str(free_port(MEDIA_PORTS))),
        *("-inf", str(fields), "-m", str(len(calls)), "-r", "20"),
        f"{LOOPBACK}:{lab.ports.sip}",
    ]
    return CustomerCalls(Sipp(folder, scenario, arguments, free_port()), len(calls))


@dataclass(frozen=True, slots=True)
class Played:
    """All hostile calls, from beginning to end, and what is left of them."""

    scene: Scene
    account: str
    outcomes: Counter[int]
    invites: list[str]
    cdrs: list[Row]
    said: list[str]
    log: str


def prepare(scene: Scene, account: str, address: str) -> None:
    """A customer whose calls go to 99 and 44, and another one whom somebody could try to be."""
    scene.lab.add_dialplan(CARELESS)
    deck = scene.lab.directory / "hostile.csv"
    deck.write_text("prefix,rate_per_minute\n99,0.60\n44,0.60\n")
    scene.cli("rate-table", "add", account)
    scene.cli("rates", "import", account, str(deck))
    scene.cli("client", "add", account, "--rate-table", account)
    scene.cli("topup", account, "1000")
    scene.cli("account", "add", account, account, "--ident-by", "ip", "--ident", address)
    scene.customer(RICH, "--ident-by", "name", "--ident", RICH)


def hostile_calls() -> list[Call]:
    """Each text as a caller's and as a dialled number, through both dialplans."""
    return [
        call
        for text in map(quoted, HOSTILE.values())
        for call in (
            Call(NUMBER, text),
            Call("44" + text, CALLER),
            Call("0099123456", text),
            Call("0099123" + text, CALLER),
        )
    ]


def said_to_dialplan(lab: Lab, earlier: int) -> list[str]:
    """The user fields of the careless dialplan's calls, in Asterisk's records after these."""
    path = lab.directory / "log" / "cdr-custom" / "astcredit.csv"
    with path.open(newline="", encoding="latin-1") as lines:
        rows = list(csv.reader(lines))[earlier:]
    return [row[USERFIELD] for row in rows if row[2].startswith("0099")]


@pytest.fixture(scope="module")
def played(scene: Scene) -> Iterator[Played]:
    lab, account, address = scene.lab, "hostile", WHOLESALE.format(70)
    canary = lab.directory / "db" / "hostile-canary"
    prepare(scene, account, address)
    logged, recorded = len(scene.server.log.read_text()), len(lab.asterisk_cdrs())
    calls = hostile_calls()
    # The dialplan was read again, and with that its global variables are as in the file.
    agi = f"agi://{LOOPBACK}:{scene.server.port}/"
    with lab.carrier(Answer()) as carrier, lab.globals(AC_AGI=agi, AC_NODE=lab.ami.node):
        running = place(lab, calls, address)
        try:
            outcomes = Counter(outcome.code for outcome in running.wait(60))
        finally:
            running.stop()
        answered = sum(code == 200 for code in outcomes.elements())
        lab.wait_idle()
        lab.asterisk_cdrs(at_least=recorded + len(calls))
        wait_until(lambda: not scene.rows("astcreditres", account), 20, "the settlements")
        yield Played(
            scene,
            account,
            outcomes,
            carrier.invites(),
            scene.rows("astcdr", account),
            said_to_dialplan(lab, recorded),
            scene.server.log.read_text()[logged:],
        )
    assert answered
    assert not canary.exists(), "a caller's text was executed"


def with_line_end() -> int:
    return sum(b"\n" in text for text in HOSTILE.values())


def cut_by_nul() -> int:
    """Asterisk ends a number there: what is left is a good one."""
    return sum(b"\0" in text for text in HOSTILE.values())


def test_no_text_is_executed(played: Played) -> None:
    assert played.outcomes[200], "calls were made"
    assert not (played.scene.lab.directory / "db" / "hostile-canary").exists()


def test_the_shipped_dialplan_takes_any_caller_and_no_hostile_number(played: Played) -> None:
    """Whoever calls, the call is made and the number in the CDR is clean; a number that is none
    is neither dialled nor asked for."""
    called = [cdr for cdr in played.cdrs if cdr["callednum"] == NUMBER]
    assert {cdr["status"] for cdr in called} == {"completed"}
    assert len(called) == len(HOSTILE)
    assert all(re.fullmatch(CLEAN, cdr["callerid"]) for cdr in called)
    dialled = [cdr for cdr in played.cdrs if cdr["callednum"].startswith("44")]
    assert len(dialled) == len(called) + cut_by_nul()


def test_a_careless_dialplan_is_told_nothing_forged(played: Played) -> None:
    """Each variable has the server's value, or none: a request with a line end in it is refused."""
    told = Counter(said.partition("/")[0] for said in played.said)
    assert all(map(SAID.fullmatch, played.said)), played.said
    whole = len(HOSTILE) - with_line_end()
    assert told == {
        "ALLOWED": whole + cut_by_nul(),
        "INVALID": whole - cut_by_nul(),
        "": 2 * with_line_end(),
    }


def test_a_careless_dialplans_calls_are_recorded_as_text(played: Played) -> None:
    """What was dialled and who called stand there as they came, in columns of their own."""
    refused = [cdr for cdr in played.cdrs if cdr["denied"]]
    assert {cdr["denied"] for cdr in refused} == {"INVALID"}
    numbers = {cdr["dialednum"].removeprefix("0099123") for cdr in refused}
    callers = {cdr["ani"] for cdr in played.cdrs if cdr["callednum"] == "99123456"}
    for name in ("sql in backslashes", "sql in a comment", "shell", "formats", "csv", "not ASCII"):
        assert TEXTS[name] in numbers
        assert TEXTS[name].partition(";")[0] in callers  # where Asterisk ends a caller's number


def test_nobody_else_pays(played: Played) -> None:
    assert played.scene.rows("astcdr", RICH) == []
    paid = {cdr["price"] for cdr in played.cdrs if cdr["status"] == "completed"}
    assert all(0 < price < 1 for price in paid)


def test_nothing_is_injected_towards_the_carrier(played: Played) -> None:
    assert len(played.invites) == played.outcomes[200]
    for invite in played.invites:
        assert len(invite) < 2_000
        assert not re.search(r"^X-Injected|[$`{}\\]|DROP|SHELL\(", invite, re.MULTILINE), invite


def test_the_books_and_the_log_are_whole(played: Played) -> None:
    """The tables are there and agree, no line of the log is a caller's, nothing failed, and the
    next call goes on as ever."""
    played.scene.cli("audit")
    assert {cdr["status"] for cdr in played.cdrs} == {"completed", "denied"}
    assert [line for line in played.log.splitlines() if not LOG_LINE.fullmatch(line)] == []
    assert "ami_down" not in played.log
    for output in ("table", "csv", "json"):
        shown = played.scene.cli("--format", output, "cdr", "list", "--client", played.account)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
    good = CustomerScript(NUMBER, hangup_after_s=0)
    assert played.scene.lab.play(good, address=WHOLESALE.format(70))[0].answered
    played.scene.settled(played.account, len(played.cdrs) + 1)
