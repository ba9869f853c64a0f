"""A round: real calls, something breaks among them, and a minute later the books must be right.

The witness is Asterisk: its own records say who talked and how long. All that is random comes from
the generator that the caller gives, so that a round can be played again (as far as real machines
do the same twice).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from support.asterisk_cdr import AsteriskCdr
from support.fault_site import CHOOSY, HEALED_SECONDS, NODE, POOR, RICH, FaultSite
from support.lab import LabError, wait_until
from support.lab_scene import Row
from support.sipp import OUT_OF_ORDER, Answer, CustomerCalls, CustomerScript, SippError

NUMBER = "442071234567"
POOR_MONEY = "0.03"
"""Three seconds."""
SAME_MS = 1_000
"""By so much our record of a call whose end was heard may differ from Asterisk's: its record is of
both channels, ours of the outbound one."""
ENDED_MS = 2_000
"""A leg without a reservation is ended over AMI as soon as its answer is heard of."""
LATE_SECONDS = 3.0
"""A telephone whose Asterisk has crashed waits for ever; it is switched off so long after it should
have hung up."""
RECORD_SECONDS = 5.0
DEAF_SECONDS = 25.0
"""Longer than a silent AMI link is believed in."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Some calls of one customer, placed so many a second; each hangs up after `talk_s`."""

    account: str
    calls: int
    per_second: int
    talk_s: float | None


LOAD = (
    Calls(RICH, 5, 3, 1.0),
    Calls(RICH, 5, 3, 2.5),
    Calls(RICH, 4, 2, 4.5),
    Calls(CHOOSY, 5, 2, 2.0),
    Calls(POOR, 3, 1, None),
)
LOAD_SECONDS = 7.0
"""From the first of these calls to the end of the last."""
AFTERWARDS = (Calls(RICH, 4, 8, 0.7), Calls(CHOOSY, 2, 8, 0.7))
"""After the fault the next calls must be served."""


@dataclass(slots=True)
class Result:
    """What became of the calls of a round, or of many.

    `deviations` are, of calls whose end was estimated, our duration less Asterisk's, in ms.
    """

    fault: str
    statuses: Counter[str] = field(default_factory=Counter)
    exact: int = 0
    estimated: int = 0
    unheard: int = 0
    ended: int = 0
    unrecorded: int = 0
    deviations: list[int] = field(default_factory=list)
    healed_seconds: float = 0.0

    def add(self, other: Result) -> None:
        """Count another's calls as well."""
        self.statuses += other.statuses
        self.exact += other.exact
        self.estimated += other.estimated
        self.unheard += other.unheard
        self.ended += other.ended
        self.unrecorded += other.unrecorded
        self.deviations += other.deviations
        self.healed_seconds = max(self.healed_seconds, other.healed_seconds)

    def __str__(self) -> str:
        shortest = min(self.deviations, default=0)
        longest = max(self.deviations, default=0)
        statuses = " ".join(f"{name} {calls}" for name, calls in sorted(self.statuses.items()))
        return (
            f"{self.fault:<16} {statuses}; ends exact {self.exact}, estimated {self.estimated}"
            f" ({shortest} to {longest} ms), answer unheard {self.unheard},"
            f" ended for want of a reservation {self.ended},"
            f" without Asterisk's record {self.unrecorded}; in order after"
            f" {self.healed_seconds:.1f} s"
        )


Fault = Callable[[FaultSite, Random], None]


def server_killed(site: FaultSite, random: Random) -> None:
    site.kill_server()
    time.sleep(random.uniform(0, 3))
    site.start_server()


def database_killed(site: FaultSite, random: Random) -> None:
    site.mariadb.kill()
    time.sleep(random.uniform(0, 3))
    site.mariadb.restart()


def asterisk_killed(site: FaultSite, random: Random) -> None:
    site.lab.crash()
    time.sleep(random.uniform(0, 3))
    site.start_asterisk()


def ami_cut(site: FaultSite, random: Random) -> None:
    for _ in range(random.randint(1, 3)):
        site.ami.cut()
        time.sleep(random.uniform(0, 2.5))


def ami_silent(site: FaultSite, random: Random) -> None:
    """Long enough that it is noticed, or so short that all comes late."""
    site.ami.freeze()
    time.sleep(random.choice([random.uniform(0, 4), DEAF_SECONDS]))
    site.ami.thaw()


def ami_stammers(site: FaultSite, random: Random) -> None:
    """Cut while it is silent: what had been sent is lost."""
    site.ami.freeze()
    time.sleep(random.uniform(0, 3))
    site.ami.cut()
    site.ami.thaw()


def agi_cut(site: FaultSite, random: Random) -> None:
    for _ in range(random.randint(3, 30)):
        site.agi.cut()
        time.sleep(random.uniform(0, 0.2))


def agi_silent(site: FaultSite, random: Random) -> None:
    site.agi.freeze()
    time.sleep(random.uniform(0, 4))
    site.agi.cut()
    site.agi.thaw()


def database_silent(site: FaultSite, random: Random) -> None:
    site.database.freeze()
    time.sleep(random.uniform(0, 8))
    if random.random() < 0.5:
        site.database.cut()
    site.database.thaw()


FAULTS: Mapping[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        server_killed,
        database_killed,
        asterisk_killed,
        ami_cut,
        ami_silent,
        ami_stammers,
        agi_cut,
        agi_silent,
        database_silent,
    )
}


class Round:
    """One round on a site that is in order."""

    def __init__(self, site: FaultSite, random: Random) -> None:
        self._site = site
        self._random = random
        self._records = len(site.lab.asterisk_cdrs())
        self._last_id = str(site.scene.query("SELECT COALESCE(MAX(id), '') m FROM astcdr")[0]["m"])

    def play(self, *faults: str) -> Result:
        """Calls, the faults one after the other, more calls, healing; then the books are compared
        with Asterisk's records. AssertionError if they are not as they must be."""
        site, random = self._site, self._random
        site.scene.cli("topup", POOR, POOR_MONEY)
        with self._carriers():
            with self._calls(LOAD):
                for fault in faults:
                    time.sleep(random.uniform(0.2, LOAD_SECONDS / 2 / len(faults)))
                    FAULTS[fault](site, random)
                with self._calls(AFTERWARDS):
                    time.sleep(random.uniform(0, 2))
            began = time.monotonic()
            site.heal()
            with suppress(LabError):
                site.lab.console("channel request hangup all")
            site.lab.wait_idle()
            self._wait_settled()
        result = Result(" + ".join(faults))
        result.healed_seconds = time.monotonic() - began
        site.scene.cli("audit")
        self._compare(result, "asterisk killed" in faults)
        return result

    @contextmanager
    def _carriers(self) -> Iterator[None]:
        lab = self._site.lab
        with lab.carrier(Answer()), lab.carrier(OUT_OF_ORDER, backup=True):
            yield

    @contextmanager
    def _calls(self, load: tuple[Calls, ...]) -> Iterator[None]:
        """Calls begin; at the end of the block they have ended, or their telephones are off."""
        began, under_way = time.monotonic(), list[CustomerCalls]()
        with ExitStack() as stack:
            for calls in load:
                script = CustomerScript(
                    NUMBER, calls.talk_s, calls=calls.calls, calls_per_second=calls.per_second
                )
                started = self._site.lab.start_calls(script, account=calls.account)
                stack.callback(started.stop)
                under_way.append(started)
            yield
            for started in under_way:
                left = began + LOAD_SECONDS + LATE_SECONDS - time.monotonic()
                with suppress(SippError):  # it got other answers than in good times, or none
                    started.wait(max(0.1, left))

    def _wait_settled(self) -> None:
        wait_until(
            lambda: not self._query("SELECT call_id FROM astcreditres"),
            HEALED_SECONDS,
            "the last reservation to be settled",
            lambda: f"{self._query('SELECT * FROM astcreditres')}\n{self._site.log_tail()}",
        )

    def _query(self, statement: str, *values: object) -> list[Row]:
        return self._site.scene.query(statement, *values)

    def _compare(self, result: Result, crashed: bool) -> None:
        rows = self._query("SELECT * FROM astcdr WHERE id > %s", self._last_id)
        calls = {row["uniqueid"]: row for row in rows}
        assert len(calls) == len(rows), "a channel made two calls"
        assert all(row["node"] == NODE for row in rows)
        result.statuses.update(row["status"] for row in rows)
        legs = self._legs(calls, crashed)
        for uniqueid, leg in legs.items():
            self._judge(result, calls[uniqueid], leg)
        for row in rows:
            if row["status"] == "completed" and row["uniqueid"] not in legs:
                # What ended just before Asterisk crashed was heard, and not yet written by it.
                assert crashed, f"Asterisk has no record of {row}"
                heard = row["settled_by"] in ("ami", "hangup")
                assert heard or row["estimated"], f"nobody heard how it ended: {row}"
                result.unrecorded += 1

    def _legs(self, calls: Mapping[str, Row], crashed: bool) -> Mapping[str, AsteriskCdr]:
        """Asterisk's records of answered calls to carriers; a record is written a moment after its
        channel has gone."""

        def complete() -> bool:
            completed = {uid for uid, row in calls.items() if row["status"] == "completed"}
            return crashed or completed <= self._answered().keys()

        with suppress(LabError):  # then the comparison says which is missing
            wait_until(complete, RECORD_SECONDS, "Asterisk's records")
        return self._answered()

    def _answered(self) -> Mapping[str, AsteriskCdr]:
        records = self._site.lab.asterisk_cdrs()[self._records :]
        return {r.uniqueid: r for r in records if r.dstchannel and r.answer_ms}

    def _judge(self, result: Result, row: Row, leg: AsteriskCdr) -> None:
        """One answered call, as we and as Asterisk have it."""
        told = f"{row}\n{leg}\n{self._site.log_tail()}"
        if row["status"] == "failed":
            # Asterisk took the answer and its acknowledgement was lost: the leg was ended at once.
            ended = row["settled_by"] == "undelivered" and leg.billsec_ms < ENDED_MS
            assert row["estimated"] or ended, f"an answered call was released: {told}"
            result.unheard += not ended
            result.ended += ended
            return
        assert row["status"] == "completed", told
        assert row["price"] <= row["reservedamount"], told
        deviation_ms = int(row["answeredtime"] * 1000) - leg.billsec_ms
        if row["estimated"]:
            assert deviation_ms <= SAME_MS, f"estimated too long: {told}"
            result.estimated += 1
            result.deviations.append(deviation_ms)
        else:
            assert abs(deviation_ms) <= SAME_MS, told
            result.exact += 1
