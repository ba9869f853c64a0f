"""Channel variables: each arrives as it is or not at all, and none becomes another."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astcredit.asterisk import variables
from astcredit.asterisk.agi import AgiHungUp, AgiProtocolError, AgiReply, ReplyParser
from astcredit.asterisk.variables import (
    MOST_EXACT,
    MOST_NUMBER,
    MOST_TEXT,
    MSET_BYTES,
    MSET_PAIRS,
    ChannelVariables,
    UnsafeValue,
    clean_number,
    clean_text,
    exact,
    mset_commands,
)
from support.agi_fakes import AC_VARIABLES, FakeChannel

HOSTILE = [
    "",
    '"',
    "'",
    "\\",
    "\\\\",
    "a,AC_STATUS=ALLOWED",
    "(",
    ")",
    "[",
    "]",
    "([)]",
    "${SHELL(id)}",
    "$[1+1]",
    "{}",
    "a|b",
    "a;b",
    "a&b",
    "a\nAC_X=1",
    "a\r\n200 result=1",
    "\x00\x1b[2J",
    "\udcff",
    "\u202egnp",
    "Zo\u00eb",
    "x" * 10_000,
    "`id`",
    "=",
]


class Commands:
    """Commands to a fake channel, its text read as it would be from a socket."""

    def __init__(self, channel: FakeChannel, *instead: str) -> None:
        self._channel = channel
        self._instead = list(instead)
        self.parser = ReplyParser()

    @property
    def hung_up(self) -> bool:
        return self.parser.hung_up

    async def command(self, line: str) -> AgiReply:
        assert "\n" not in line
        answer = self._instead.pop(0) if self._instead else self._channel.answer(line)
        self.parser.feed(answer.encode())
        reply = self.parser.next_reply()
        assert reply is not None
        return reply


def read(channel: FakeChannel, *names: str) -> dict[str, str]:
    return asyncio.run(ChannelVariables(Commands(channel)).get_variables(names))


def write(channel: FakeChannel, **values: str) -> None:
    asyncio.run(ChannelVariables(Commands(channel)).set_variables(values))


def test_many_variables_are_read_in_one_round_trip() -> None:
    channel = FakeChannel({"A": "1", "CDR(billsec,f)": "2.001800"})
    found = read(channel, "A", "B", "CDR(billsec,f)")
    assert found == {"A": "1", "B": "", "CDR(billsec,f)": "2.001800"}
    assert channel.commands == ['GET FULL VARIABLE "${A}|${B}|${CDR(billsec,f)}"']


@pytest.mark.parametrize("value", [value for value in HOSTILE if value.isprintable() and value])
def test_a_hostile_value_shifts_no_other_field(value: str) -> None:
    channel = FakeChannel({"A": value, "B": "b", "C": "7"})
    assert read(channel, "A", "B", "C") == {"A": value, "B": "b", "C": "7"}


@given(
    st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8")), min_size=1, max_size=4)
)
def test_what_is_read_is_what_is_set(values: list[str]) -> None:
    channel = FakeChannel({f"V{number}": value for number, value in enumerate(values)})
    names = [f"V{number}" for number in range(len(values))]
    assert list(read(channel, *names).values()) == values


@pytest.mark.parametrize(
    "channel",
    [
        FakeChannel({"A": "1", "F(x,y)": "2"}, plain=True),
        FakeChannel({"A": "1", "F(x,y)": "2"}, full=False),
    ],
    ids=["knows no functions", "knows no GET FULL VARIABLE"],
)
def test_a_peer_that_knows_less_is_asked_one_by_one(channel: FakeChannel) -> None:
    assert read(channel, "A", "F(x,y)", "NONE") == {"A": "1", "F(x,y)": "2", "NONE": ""}


@pytest.mark.parametrize("answer", ["200 result=-1\n", "511 Command Not Permitted\n"])
def test_a_dead_channel_is_told(answer: str) -> None:
    variables = ChannelVariables(Commands(FakeChannel(), answer, answer))
    with pytest.raises(AgiHungUp):
        asyncio.run(variables.get_variables(["A"]))
    with pytest.raises(AgiHungUp):
        asyncio.run(variables.set_variables({"A": "1"}))


def test_variables_are_set_in_one_round_trip() -> None:
    channel = FakeChannel()
    write(channel, AC_STATUS="ALLOWED", AC_OPTS="L(754000:60000:30000)", AC_DIAL="", AC_CAUSE="0")
    assert channel.commands == [
        'EXEC MSet "AC_STATUS=ALLOWED,AC_OPTS=L(754000:60000:30000),AC_DIAL=,AC_CAUSE=0"'
    ]
    assert channel.variables["AC_OPTS"] == "L(754000:60000:30000)"
    assert channel.variables["AC_DIAL"] == ""


def test_an_asterisk_without_mset_gets_them_one_by_one() -> None:
    channel = FakeChannel(mset=False)
    write(channel, A="1 2", B="")
    assert channel.variables["A"] == "1 2"
    assert channel.variables["B"] == ""
    assert channel.commands[0].startswith("EXEC MSet ")
    assert channel.commands[1:] == ['SET VARIABLE A "1 2"', 'SET VARIABLE B ""']


def test_a_peer_that_sets_nothing_is_no_peer() -> None:
    refused = ["510 Invalid or unknown command\n"] * 2
    variables = ChannelVariables(Commands(FakeChannel(), *refused))
    with pytest.raises(AgiProtocolError):
        asyncio.run(variables.set_variables({"A": "1"}))


def test_long_values_are_spread_over_commands_that_asterisk_can_read() -> None:
    values = {f"V{number}": "x" * 300 for number in range(30)} | {f"W{n}": "" for n in range(50)}
    commands = list(mset_commands(values))
    assert all(len(command.encode()) <= MSET_BYTES for command in commands)
    assert all(command.count("=") <= MSET_PAIRS for command in commands)
    channel = FakeChannel()
    write(channel, **values)
    assert {name: channel.variables[name] for name in values} == values


@pytest.mark.parametrize(
    "value",
    ["a,b", 'a"b', "a\\b", "${X}", "a\nb", "a\rb", "\x00", "(", ")", "[", "([)]", "`id`", "it's"],
)
def test_a_value_that_would_not_arrive_is_never_sent(value: str) -> None:
    channel = FakeChannel()
    with pytest.raises(UnsafeValue):
        write(channel, A="1", B=value)
    assert channel.commands == []


def test_a_name_is_a_name() -> None:
    with pytest.raises(UnsafeValue):
        write(FakeChannel(), **{"A=1,B": "2"})


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("no credit", "no credit"),
        ("available 0.20 EUR, 0.50 needed", "available 0.20 EUR 0.50 needed"),
        ("account 'acme' (1) is \"off\"", "account acme 1 is off"),
        ("a\nb\tc\x00d", "a b c d"),
        ("${X} $[1] {a}", "X 1 a"),
        ("M\u00fcller: 10 of 10", "M\u00fcller: 10 of 10"),
        ("  a  ", "a"),
        ("\udcff", ""),
        ("x" * 10_000, "x" * MOST_TEXT),
    ],
)
def test_a_text_is_one_harmless_line(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("number", "cleaned"),
    [
        ("+49 30/123-4", "+4930123-4"),
        ("bob@example.org", "bob@example.org"),
        ('"Bob" <123>', "Bob123"),
        ("1,AC_STATUS=ALLOWED", "1AC_STATUSALLOWED"),
        ("${SHELL(id)}", "SHELLid"),
        ("\u0661\u0662", ""),
        ("9" * 10_000, "9" * MOST_NUMBER),
    ],
)
def test_a_caller_id_keeps_what_a_number_has(number: str, cleaned: str) -> None:
    assert clean_number(number) == cleaned


@pytest.mark.parametrize(
    "value",
    [
        "",
        "PJSIP/442071234567@carrier",
        "PJSIP/carrier/sip:44@[2001:db8::1]:5060;transport=tcp",
        "SIP/44@a&IAX2/b/44",
        "L(754000:60000:30000)",
        "gL(2000)U(answered^1)",
    ],
)
def test_a_dial_string_arrives_unchanged(value: str) -> None:
    assert exact("AC_DIAL", value) == value
    channel = FakeChannel()
    write(channel, AC_DIAL=value, AC_CAUSE="0")
    assert channel.variables["AC_DIAL"] == value
    assert channel.variables["AC_CAUSE"] == "0"


@pytest.mark.parametrize(
    "value", ["PJSIP/1,30,L(1)", "PJSIP/1 2", "PJSIP/${X}", "L(1", "a\n", "\u0661", "x" * 401]
)
def test_a_dial_string_that_would_change_is_refused(value: str) -> None:
    assert len("x" * 401) > MOST_EXACT
    with pytest.raises(UnsafeValue, match="AC_DIAL"):
        exact("AC_DIAL", value)


SIGNS = "aZ09 ,()[]=\"'$`{}\\|;&^!~%#*+@/.:_-\n\x7f\u00eb\u0661"
"""What is harmless, and what is not."""

PAIRS = st.dictionaries(
    st.sampled_from(["A", "B_1", "_c", "", "1", "A B", "\u00eb", "D,E"]),
    st.sampled_from(["", "x" * 500, "L(1:2)", "(a)(b)", "(,", "a,B=1"])
    | st.text(SIGNS, max_size=6),
    max_size=5,
)


def commands_or_error(values: dict[str, str]) -> list[str] | str:
    try:
        return list(mset_commands(values))
    except UnsafeValue as error:
        return str(error)


def without_short_cuts(patch: pytest.MonkeyPatch) -> None:
    """Nothing is clean at first sight."""
    for name in [name for name in vars(variables) if name.startswith("_CLEAN_")]:
        patch.setattr(variables, name, re.compile(r"(?!)"))


@example({"A": "x" * 1_000, "B_1": "x" * 1_000})
@example({f"V{number}": "" for number in range(MSET_PAIRS + 1)})
@given(PAIRS)
def test_what_is_sent_at_first_sight_is_what_a_close_look_lets_through(
    values: dict[str, str],
) -> None:
    quick = commands_or_error(values)
    with pytest.MonkeyPatch.context() as patch:
        without_short_cuts(patch)
        assert commands_or_error(values) == quick


@given(st.sampled_from(HOSTILE) | st.text(SIGNS, max_size=8) | st.text("a ", min_size=150))
def test_what_is_clean_at_first_sight_is_what_a_close_look_leaves_as_it_is(text: str) -> None:
    def cleaned() -> list[str]:
        try:
            found = exact("AC_DIAL", text)
        except UnsafeValue as error:
            found = str(error)
        return [clean_text(text), clean_number(text), found]

    quick = cleaned()
    with pytest.MonkeyPatch.context() as patch:
        without_short_cuts(patch)
        assert cleaned() == quick


@given(st.lists(st.sampled_from(HOSTILE) | st.text(), min_size=len(AC_VARIABLES)))
def test_cleaned_values_arrive_each_in_its_variable(values: list[str]) -> None:
    """Whatever stands in a reason or a caller id, MSet's own splitting gives it back unchanged."""
    cleaned = {
        name: clean_number(value) if name == "AC_CALLERID" else clean_text(value)
        for name, value in zip(AC_VARIABLES, values, strict=False)
    }
    channel = FakeChannel()
    write(channel, **cleaned)
    assert {name: channel.variables[name] for name in cleaned} == cleaned
