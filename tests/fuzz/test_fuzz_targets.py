"""The targets: what a real Asterisk sends passes, and each thing that must hold is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from astcredit.asterisk.agi import HEADER_BYTES, AgiReply, AgiRequest, HeaderParser, ReplyParser
from astcredit.asterisk.cdr_csv import read_records
from astcredit.asterisk.fastagi import FastAgiServer, Limits
from astcredit.asterisk.legs import HeaderValue, LegTracker, Seen
from astcredit.domain.calls import ChannelEnded
from astcredit.domain.witness import AsteriskRecord
from fuzz import agi_targets
from fuzz.fake_network import FakeNetwork, bytes_held
from fuzz.pieces import MOST_INFLATED, BrokenError, cuts, inflated
from fuzz.targets import REPLIES, TARGETS
from support.agi_fakes import FakeControl, header_block

FOUND = sorted((Path(__file__).parent / "found").iterdir())

SEEDS = [
    pytest.param(name, seed, id=f"{name}-{number}")
    for name, target in TARGETS.items()
    for number, seed in enumerate(target.seeds)
]


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_every_seed_passes(name: str, seed: bytes) -> None:
    TARGETS[name].run(seed)


@pytest.mark.parametrize("path", FOUND, ids=[path.name for path in FOUND])
def test_what_was_found_once_is_not_found_again(path: Path) -> None:
    """Inputs on which the code once failed; the name begins with the target's."""
    TARGETS[path.stem].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\n", b"\r\n\r\n", b"\xff" * 40, b"a\x1b\xff" * 3, b"\x01\n\n200 result=1\n"],
)
def test_odd_inputs_pass(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


def test_inputs_are_cut_but_not_changed() -> None:
    data = bytes(range(256)) * 3
    assert [b"".join(pieces) for pieces in cuts(data)] == [data] * 3
    assert len({len(list(pieces)) for pieces in cuts(data)}) == 3


def test_short_inputs_reach_the_limits() -> None:
    assert inflated(b"ab\x1b\x02c") == b"a" + b"b" * 514 + b"c"
    assert len(inflated(b"ab\x1b\xff" * 9)) == MOST_INFLATED > HEADER_BYTES


def test_what_an_object_holds_is_found_behind_a_task() -> None:
    """A connection's buffer stands in the frame of a coroutine that waits."""

    async def wait() -> None:
        kept = b"x" * 100_000
        await asyncio.Event().wait()
        del kept

    async def measure() -> int:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        held = bytes_held({task})
        task.cancel()
        return held

    assert 100_000 <= asyncio.run(measure()) < 150_000


# ---- faults that are planted, and an input that shows them


class _Forgets(HeaderParser):
    """Each piece is read for itself."""

    def feed(self, data: bytes) -> AgiRequest | None:
        return HeaderParser().feed(data)


class _Hoards(HeaderParser):
    """Nothing is ever too much."""

    def feed(self, data: bytes) -> AgiRequest | None:
        return None


class _Trips(HeaderParser):
    """It raises what nobody expects."""

    def feed(self, data: bytes) -> AgiRequest | None:
        raise UnicodeDecodeError("utf-8", data, 0, 1, "invalid")


class _Hasty(ReplyParser):
    """A reply that has not come whole is not waited for."""

    def next_reply(self) -> AgiReply | None:
        reply, self._buffer = super().next_reply(), bytearray()
        return reply


class _Gathers(ReplyParser):
    """A line may be as long as it likes."""

    def next_reply(self) -> AgiReply | None:
        return None


class _Patient(FastAgiServer):
    """A peer may be silent for ever."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **{**named, "limits": PATIENT_FOR_EVER})


def _breaking() -> FakeControl:
    """What fails is this program."""
    return FakeControl(error=KeyError("a"))


class _Remembers(LegTracker):
    """Nothing is ever too much."""

    def __init__(self, node: str, _most: int) -> None:
        super().__init__(node, 1_000_000)


class _Blurts(LegTracker):
    """What it says depends on more than the events."""

    said = count()

    def feed(self, event: Mapping[str, HeaderValue], received_ms: int) -> list[Seen]:
        return [ChannelEnded("x", str(next(self.said)), 0, 16, "", None)]


def _swallowing(lines: Iterable[str], *given: Any) -> Iterator[AsteriskRecord]:
    return read_records(list(lines)[:-1], *given)


def _unchecked(values: Mapping[str, str]) -> Iterator[str]:
    return iter([f'EXEC MSet "{",".join(f"{k}={v}" for k, v in values.items())}"'])


def _represented(texts: list[str]) -> list[str]:
    return [repr(text) for text in texts]


def _quoted_only(texts: list[str]) -> list[str]:
    return [f"'{text}'" for text in texts]


PATIENT_FOR_EVER = Limits(request_seconds=1e6, reply_seconds=1e6, total_seconds=1e6)
BLOCK = header_block("authorize", ["442071234567"])
HANGUPS = b"".join(
    f"Event: DialBegin\r\nUniqueid: 1.{n}\r\nDestUniqueid: 2.{n}\r\n\r\n".encode()
    for n in range(400)
)
PLANTED = [
    ("agi-request", "agi_targets.HeaderParser", _Forgets, BLOCK, "cut in another way"),
    ("agi-request", "agi_targets.HeaderParser", _Hoards, b"a\x1b\xff" * 3, "more than the limit"),
    ("agi-request", "agi_targets.HeaderParser", _Trips, BLOCK, "invalid"),
    ("agi-replies", "agi_targets.ReplyParser", _Hasty, REPLIES[0], "cut in another way"),
    ("agi-replies", "agi_targets.ReplyParser", _Gathers, b"1\x1b\xff", "above the limit"),
    ("agi", "agi_targets.FastAgiServer", _Patient, b"\x00" + BLOCK, "never closed"),
    ("agi", "agi_targets.FakeControl", _breaking, b"\x03" + BLOCK + REPLIES[0], "KeyError"),
    ("agi", "agi_targets.MOST_HELD", -1, b"\x00\xe7", "one connection holds"),
    ("ami", "ami_targets.LegTracker", _Remembers, HANGUPS, "remembers all"),
    ("ami", "ami_targets.LegTracker", _Blurts, HANGUPS[:200], "cut in another way"),
    ("ami", "ami_targets.MOST_HELD", -1, b"\x01\x02", "a session holds"),
    ("cdr", "text_targets.read_records", _swallowing, b"\x00" + b"a,b", "swallowed"),
    ("sql", "text_targets.literals", _quoted_only, b"a'b", "became"),
    ("sql", "text_targets.literals", _quoted_only, b"a\\", "became"),
    ("sql", "text_targets.literals", _represented, b"a'b", "no text at all"),
    ("variables", "text_targets.clean_text", str, b"a\x1b\x01", "too long"),
    ("variables", "text_targets.clean_text", str, b"a\n", "a control character"),
    ("variables", "text_targets.clean_number", str, b"1,2", "means something"),
    ("variables", "text_targets.mset_commands", _unchecked, b"a,AC_STATUS=ALLOWED", "became"),
]


@pytest.mark.parametrize(
    ("name", "where", "fault", "data", "said"),
    PLANTED,
    ids=[
        f"{name}-{getattr(fault, '__name__', fault)}-{said}" for name, _, fault, _, said in PLANTED
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, where: str, fault: object, data: bytes, said: str
) -> None:
    TARGETS[name].run(data)
    for module in ("agi_targets", "ami_targets"):
        monkeypatch.setattr(f"fuzz.{module}.FLOOD_EVERY", 1)
    monkeypatch.setattr(f"fuzz.{where}", fault)
    with pytest.raises((BrokenError, UnicodeDecodeError), match=said):
        TARGETS[name].run(data)


@pytest.fixture
def network() -> Iterator[FakeNetwork]:
    """A network of the test's own."""
    network = FakeNetwork()
    yield network
    network.close()


def test_an_exchange_without_an_end_is_seen(network: FakeNetwork) -> None:
    async def for_ever(network: FakeNetwork) -> None:
        def again() -> None:
            network.call_soon(again)

        again()
        await network.idle()

    with pytest.raises(BrokenError, match="does not come to an end"):
        network.play(for_ever)


def test_a_task_that_is_left_over_is_seen(network: FakeNetwork) -> None:
    async def leave(network: FakeNetwork) -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(1_000)))
        await network.idle()

    left: list[asyncio.Future[None]] = []
    with pytest.raises(BrokenError, match="left over"):
        network.play(leave)
    assert left[0].cancelled()
    network.play(lambda here: here.idle())


def test_what_nobody_caught_is_seen(network: FakeNetwork) -> None:
    async def fail(network: FakeNetwork) -> None:
        network.call_soon(lambda: 1 // 0)
        await network.idle()

    with pytest.raises(BrokenError, match="ZeroDivisionError"):
        network.play(fail)


# ---- what the targets make of messages that are right


def test_the_servers_conversation_comes_to_its_end() -> None:
    """The seeds reach the end of the script, not only an early refusal."""
    assert agi_targets.ends_of(b"\x03" + BLOCK + b"".join(SHORT_REPLIES)) == {"done": 1}
    assert agi_targets.ends_of(b"\x01" + BLOCK) == {"slow_reply": 1}
    assert agi_targets.ends_of(b"\x02" + BLOCK + b"x\n") == {"not_agi": 1}
    assert agi_targets.ends_of(b"\x02") == {"closed_early": 1}


SHORT_REPLIES = (b"200 result=1 (17.1|192.0.2.7:5060)\n", b"200 result=0\n")
