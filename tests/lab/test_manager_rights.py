"""dialplan/manager.conf in a real Asterisk: enough for the controller, and nothing more."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from support.agi_stub import AgiStub
from support.lab import Lab
from support.sipp import Answer, CustomerScript

pytestmark = pytest.mark.asterisk

NUMBER = "442071234567"
DEADLINE_S = 10.0
Message = dict[str, str]


class Ami:
    """A manager session by hand. Values of a header that repeats are joined by spaces."""

    def __init__(self, port: int, username: str, secret: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\r\n")
        self.events: list[Message] = []
        self._lines.readline()
        self.login = self.action("Login", Username=username, Secret=secret)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def action(self, name: str, **headers: str) -> Message:
        """The response; events that come before it are kept."""
        lines = [f"Action: {name}", *(f"{key}: {value}" for key, value in headers.items())]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while "Response" not in (message := self._read()):
            self.events.append(message)
        return message

    def event(self, name: str) -> Message:
        """The next event of that name; all that come before it are kept."""
        while (message := self._read()).get("Event") != name:
            self.events.append(message)
        return message

    def _read(self) -> Message:
        message: Message = {}
        while (line := self._lines.readline()) not in ("\r\n", ""):
            key, _, value = line.rstrip("\r\n").partition(": ")
            message[key] = f"{message[key]} {value}" if key in message else value
        return message


@pytest.fixture
def ami(lab: Lab) -> Iterator[Ami]:
    session = Ami(lab.ami.port, lab.ami.username, lab.ami.secret)
    yield session
    session.close()


def test_a_call_shows_just_the_events_that_are_billed_by(lab: Lab, ami: Ami, stub: AgiStub) -> None:
    """Three kinds out of about thirty, each with Asterisk's time and the call's id."""
    with lab.carrier(Answer()):
        lab.customer_call(NUMBER, 0.1)
        begin, end = ami.event("DialBegin"), ami.event("DialEnd")
        hangups = [ami.event("Hangup"), ami.event("Hangup")]
    assert ami.events == []
    assert end["DialStatus"] == "ANSWER"
    for event in (begin, end):
        assert "AC_CALL=call-1" in event["ChanVariable"].split()
    assert {event["Uniqueid"] for event in hangups} == {end["Uniqueid"], end["DestUniqueid"]}
    for event in (begin, end, *hangups):
        assert float(event["Timestamp"]) > 1_700_000_000


def test_the_controllers_actions_are_allowed(lab: Lab, ami: Ami, stub: AgiStub) -> None:
    assert ami.login["Response"] == "Success"
    assert ami.action("Ping")["Ping"] == "Pong"
    assert ami.action("CoreSettings")["AsteriskVersion"]
    assert ami.action("CoreStatus")["CoreStartupDate"]
    with lab.carrier(Answer()):
        calls = lab.start_calls(CustomerScript(NUMBER))
        caller = ami.event("DialEnd")
        assert ami.action("CoreShowChannels")["EventList"] == "start"
        listed = [ami.event("CoreShowChannel")["Uniqueid"] for _ in range(2)]
        assert sorted(listed) == sorted([caller["Uniqueid"], caller["DestUniqueid"]])
        assert ami.event("CoreShowChannelsComplete")["ListItems"] == "2"
        limited = ami.action("AbsoluteTimeout", Channel=caller["Channel"], Timeout="60")
        assert limited["Response"] == "Success"
        assert ami.action("Hangup", Channel=caller["Channel"])["Response"] == "Success"
        assert calls.wait()[0].ended_by == "far"


FORBIDDEN = {
    "Command": {"Command": "core show version"},
    "Originate": {"Channel": "PJSIP/1@carrier", "Application": "Hangup"},
    "Filter": {"Operation": "Add", "Filter": "Event: Newchannel"},
    "Reload": {},
    "ModuleLoad": {"LoadType": "reload"},
    "GetConfig": {"Filename": "manager.conf"},
    "UpdateConfig": {"SrcFilename": "manager.conf", "DstFilename": "manager.conf"},
    "DBPut": {"Family": "x", "Key": "y", "Val": "z"},
    "UserEvent": {"UserEvent": "x"},
}


@pytest.mark.parametrize("action", FORBIDDEN)
def test_what_the_controller_has_no_use_for_is_forbidden(ami: Ami, action: str) -> None:
    answer = ami.action(action, **FORBIDDEN[action])
    assert answer["Response"] == "Error"
    assert answer["Message"] == "Permission denied"


def test_another_secret_does_not_log_in(lab: Lab) -> None:
    session = Ami(lab.ami.port, lab.ami.username, "guess")
    assert session.login["Message"] == "Authentication failed"
    session.close()
