"""What becomes of a notification, whatever the mail server, the database and the rows do."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from astcredit.domain.alerts import AlertKind
from astcredit.domain.notices import SAMPLES, Template
from astcredit.service import postman as postman_module
from astcredit.service.errors import CommitUnknown, StorageError, TransientError
from astcredit.service.notification_ports import (
    HandOver,
    Letter,
    Mail,
    MailDelayedError,
    MailRefusedError,
    MailStatus,
    MailUnsureError,
    Outcome,
    Receipt,
)
from astcredit.service.postman import (
    CLAIM_MS,
    MINUTE_MS,
    MOST_ATTEMPTS,
    Postman,
    pause_after,
)
from support.core import NOW_MS, Clock

HOUR_MS = 60 * MINUTE_MS
FACTS = {
    name: value
    for name, value in SAMPLES[AlertKind.QUOTA].items()
    if name not in ("client", "currency")
}


def letter(id: int = 1, **changes: object) -> Letter:
    made = Letter(
        id=id,
        reference=f"quota:17:2026-11:80:{id}",
        kind="quota",
        audience="client",
        facts=FACTS,
        attempts=1,
        created_at_ms=NOW_MS,
        client="Acme Ltd",
        currency="EUR",
        email="anna@example.com",
        template=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class MemoryOutbox:
    """Rows in a list; `trouble` is raised once by the next method of that name."""

    letters: list[Letter]
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    until: list[int] = field(default_factory=list)
    dead: dict[str, MailStatus] = field(default_factory=dict)
    old: list[str] = field(default_factory=list)
    noted: list[int] = field(default_factory=list)
    lost: bool = False
    """Another sender has taken the rows over."""
    due_before: int = 0
    trouble: dict[str, list[Exception]] = field(default_factory=dict)

    def _fails(self, method: str) -> None:
        if self.trouble.get(method):
            raise self.trouble[method].pop(0)

    async def claim(self, sender: str, now_ms: int, until_ms: int) -> Letter | None:
        self._fails("claim")
        self.senders.append(sender)
        self.until.append(until_ms - now_ms)
        return self.letters.pop(0) if self.letters else None

    async def report(self, letter: Letter, sender: str, outcome: Outcome) -> None:
        self._fails("report")
        self.outcomes.append((letter.id, outcome))

    async def hand_over(self, letter: Letter, sender: str, now_ms: int) -> bool:
        self._fails("hand_over")
        self.noted.append(letter.id)
        return not self.lost

    async def abandon(self, now_ms: int) -> Mapping[str, MailStatus]:
        self._fails("abandon")
        dead, self.dead = self.dead, {}
        return dead

    async def expire(self, due_before_ms: int) -> Sequence[str]:
        self.due_before = due_before_ms
        return [self.old.pop()] if self.old else []

    async def counts(self) -> Mapping[MailStatus, int]:
        return {MailStatus.WAITING: len(self.letters)}


@dataclass
class FakeMailer:
    """Answers by the table, whoever is not in it gets the mail; keeps what it was given."""

    answers: dict[str, Exception] = field(default_factory=dict)
    mails: list[Mail] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    async def send(self, mail: Mail, hand_over: HandOver) -> Receipt:
        try:
            await hand_over()
        except StorageError as error:
            raise MailDelayedError(str(error), unreachable=True) from error
        self.mails.append(mail)
        self.meanwhile()
        if answer := self.answers.get(mail.recipients[0]):
            raise answer
        return Receipt(mail.recipients)


@dataclass
class Seen:
    """Implements PostObserver."""

    mails: Counter[str] = field(default_factory=Counter)
    counts: dict[MailStatus, int] = field(default_factory=dict)

    def mail(self, status: MailStatus) -> None:
        self.mails[status.value] += 1

    def outbox(self, counts: Mapping[MailStatus, int]) -> None:
        self.counts = dict(counts)


class Names:
    """sender-1, sender-2, …"""

    def __init__(self) -> None:
        self.given = 0

    def __call__(self) -> str:
        self.given += 1
        return f"sender-{self.given}"


@dataclass
class Scene:
    """A postman between an outbox and a mailer that the test stages."""

    outbox: MemoryOutbox
    mailer: FakeMailer
    seen: Seen
    stop: asyncio.Event
    postman: Postman
    reachable: bool = True

    @property
    def fates(self) -> list[tuple[int, str]]:
        return [(id, outcome.status.value) for id, outcome in self.outbox.outcomes]


def scene(
    *letters: Letter, mailer: FakeMailer | None = None, admins: Sequence[str] = ("noc@x.example",)
) -> Scene:
    outbox, mailer, seen = MemoryOutbox(list(letters)), mailer or FakeMailer(), Seen()
    postman = Postman(outbox, mailer, admins, Names(), Clock(), seen)
    return Scene(outbox, mailer, seen, asyncio.Event(), postman)


def one_round(
    *letters: Letter, mailer: FakeMailer | None = None, admins: Sequence[str] = ("noc@x.example",)
) -> Scene:
    at = scene(*letters, mailer=mailer, admins=admins)
    at.reachable = asyncio.run(at.postman.round(at.stop))
    return at


def outcome_of(made: Letter, answer: Exception) -> Outcome:
    at = one_round(made, mailer=FakeMailer({made.email: answer}))
    ((_, outcome),) = at.outbox.outcomes
    return outcome


def test_everything_that_is_due_is_sent_in_its_order() -> None:
    at = one_round(letter(1), letter(2, audience="admin"), letter(3, email="bob@example.com"))
    assert [mail.recipients[0] for mail in at.mailer.mails] == [
        "anna@example.com",
        "noc@x.example",
        "bob@example.com",
    ]
    assert at.fates == [(1, "sent"), (2, "sent"), (3, "sent")]
    assert at.outbox.outcomes[0][1] == Outcome(
        MailStatus.SENT, NOW_MS, None, "anna@example.com", ""
    )
    assert at.reachable
    assert at.seen.mails == {"sent": 3}
    assert at.seen.counts == {MailStatus.WAITING: 0}
    assert set(at.outbox.until) == {CLAIM_MS}


def test_the_text_is_the_templates_else_the_shipped_one() -> None:
    own = Template("{client} {percent} {quota} {currency}", "b", "<p>{client}", ("X-A: {period}",))
    at = one_round(letter(1), letter(2, template=own, client="A\r\nBcc: <x@y>"))
    shipped, changed = (mail.notice for mail in at.mailer.mails)
    assert shipped.subject == "80 % of your monthly telephone quota is used"
    assert changed.subject == "A  Bcc: <x@y> 80 500.00 EUR"
    assert changed.html == "<p>A  Bcc: &lt;x@y&gt;"
    assert changed.headers == (("X-A", "2026-11"),)


def test_a_mails_key_is_that_of_its_row() -> None:
    at = one_round(letter(1), letter(1, attempts=9, email="x@y.example"), letter(2))
    first, again, other = (mail.key for mail in at.mailer.mails)
    assert first == again != other


def test_pauses_double_up_to_six_hours_and_end_after_two_days() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, MOST_ATTEMPTS)]
    minutes = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert pauses == [m * MINUTE_MS for m in minutes] + [6 * HOUR_MS] * 7
    assert pause_after(MOST_ATTEMPTS) is None
    assert pause_after(MOST_ATTEMPTS + 1) is None
    assert 48 * HOUR_MS < sum(filter(None, pauses)) < 52 * HOUR_MS


def test_what_is_delayed_waits_and_is_given_up_at_last() -> None:
    delayed = MailDelayedError("451 try later")
    assert outcome_of(letter(attempts=3), delayed) == Outcome(
        MailStatus.WAITING, NOW_MS, NOW_MS + 4 * MINUTE_MS, "anna@example.com", "451 try later"
    )
    assert outcome_of(letter(attempts=MOST_ATTEMPTS), delayed) == Outcome(
        MailStatus.FAILED,
        NOW_MS,
        None,
        "anna@example.com",
        f"given up after {MOST_ATTEMPTS} attempts: 451 try later",
    )


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (MailRefusedError("550 no such user"), MailStatus.FAILED, "550 no such user"),
        (MailUnsureError("no answer"), MailStatus.UNSURE, "no answer"),
        (KeyError("x\ny"), MailStatus.UNSURE, "KeyError: 'x\\ny'"),
        (MailRefusedError("5" * 400 + "\n"), MailStatus.FAILED, "5" * 200),
        (MailRefusedError("a\x1b[2J\nb"), MailStatus.FAILED, "a [2J b"),
    ],
)
def test_what_is_refused_or_unsure_is_not_sent_again(
    answer: Exception, status: MailStatus, error: str
) -> None:
    outcome = outcome_of(letter(), answer)
    assert outcome == Outcome(status, NOW_MS, None, "anna@example.com", error)


def test_a_recipient_that_was_not_taken_is_noted_beside_one_that_was() -> None:
    class Half(FakeMailer):
        async def send(self, mail: Mail, hand_over: HandOver) -> Receipt:
            return Receipt(mail.recipients[1:], "not for a@x.example: 550 no")

    at = one_round(letter(audience="admin"), mailer=Half(), admins=("a@x.example", "b@x.example"))
    ((_, outcome),) = at.outbox.outcomes
    assert outcome == Outcome(
        MailStatus.SENT, NOW_MS, None, "b@x.example", "not for a@x.example: 550 no"
    )


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (letter(email=""), "the client has no email address"),
        (letter(email="a@x\r\nRCPT TO:<evil@y>"), "address 'a@x\\r\\nRCPT TO:<evil@y>': expected"),
        (letter(email="a@x, evil@y"), "address 'a@x, evil@y': expected one"),
        (letter(kind="flood"), "'flood' is not a valid AlertKind"),
        (letter(audience="press"), "'press' is not a valid Audience"),
        (letter(facts={}), "template: subject: there is no fact 'threshold'"),
        (letter(template=Template("{x}", "b")), "template: subject: there is no fact 'x'"),
        (letter(template=Template("{", "b")), "template: subject: a { stands alone"),
        (letter(template=Template("s", "b", headers=("Bcc: x@y",))), "template: header 'Bcc'"),
    ],
)
def test_what_cannot_be_written_fails_with_its_reason_and_holds_up_nobody(
    made: Letter, error: str
) -> None:
    at = one_round(made, letter(2))
    assert at.fates == [(1, "failed"), (2, "sent")]
    assert at.outbox.outcomes[0][1].error.startswith(error)
    assert len(at.mailer.mails) == 1


def test_without_an_administrators_address_nothing_is_sent_to_them() -> None:
    at = one_round(letter(audience="admin"), letter(2), admins=())
    assert at.fates == [(1, "failed"), (2, "sent")]
    assert at.outbox.outcomes[0][1].error == "no administrator's address is set (mail.admin)"


def test_a_server_that_cannot_be_reached_is_asked_by_one_mail_only() -> None:
    gone = MailDelayedError("Connection refused", unreachable=True)
    at = one_round(letter(1), letter(2), letter(3), mailer=FakeMailer({"anna@example.com": gone}))
    assert not at.reachable
    assert at.fates == [(1, "waiting")]
    assert [left.id for left in at.outbox.letters] == [2, 3]
    assert at.seen.counts == {MailStatus.WAITING: 2}


def test_a_recipient_that_is_busy_does_not_hold_up_others() -> None:
    busy = FakeMailer({"anna@example.com": MailDelayedError("450 greylisted")})
    at = one_round(letter(1), letter(2, email="bob@example.com"), mailer=busy)
    assert at.reachable
    assert at.fates == [(1, "waiting"), (2, "sent")]


def run_until_stopped(at: Scene, monkeypatch: pytest.MonkeyPatch, waits: int) -> list[float]:
    """Run the postman's loop; his waits take no time, after so many he is stopped."""
    waited: list[float] = []

    async def wait(stop: asyncio.Event, seconds: float) -> bool:
        waited.append(seconds)
        await asyncio.sleep(0)
        if len(waited) == waits:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr(postman_module, "_wait", wait)
    asyncio.run(at.postman.run(at.stop))
    return waited


def test_an_outcome_is_written_before_anything_else_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The database goes away while a mail is being sent, and comes back."""
    at = scene(letter(1), letter(2))
    at.outbox.trouble["report"] = [TransientError("gone"), CommitUnknown("gone"), StorageError("x")]
    sent_when_reported: list[int] = []
    at.mailer.meanwhile = lambda: sent_when_reported.append(len(at.outbox.outcomes))
    waited = run_until_stopped(at, monkeypatch, 4)
    assert waited == [postman_module.REPORT_SECONDS] * 3 + [postman_module.POLL_SECONDS]
    assert at.fates == [(1, "sent"), (2, "sent")]
    assert sent_when_reported == [0, 1]


def test_at_the_end_an_outcome_is_tried_to_be_written_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = scene(letter(1), letter(2))
    at.outbox.trouble["report"] = [TransientError("gone")] * 9
    assert run_until_stopped(at, monkeypatch, 1)[0] == postman_module.REPORT_SECONDS
    assert len(at.outbox.trouble["report"]) == 7
    assert at.outbox.outcomes == []
    assert len(at.mailer.mails) == 1  # nothing more is begun


def test_stopping_finishes_the_mail_that_is_being_sent() -> None:
    at = scene(letter(1), letter(2))
    at.mailer.meanwhile = at.stop.set
    asyncio.run(at.postman.run(at.stop))
    assert at.fates == [(1, "sent")]
    assert len(at.outbox.letters) == 1


def test_a_database_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at = scene(letter(1))
    at.outbox.trouble = {"abandon": [TransientError("gone")], "claim": [CommitUnknown("gone")]}
    waited = run_until_stopped(at, monkeypatch, 3)
    assert waited == [postman_module.POLL_SECONDS] * 3
    assert at.fates == [(1, "sent")]
    # Whatever the claim whose answer was lost did, it was done in the name that asks again.
    assert set(at.outbox.senders) == {"sender-1"}


def test_a_server_that_cannot_be_reached_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = MailDelayedError("Connection refused", unreachable=True)
    at = scene(letter(1), letter(2), mailer=FakeMailer({"anna@example.com": gone}))
    waited = run_until_stopped(at, monkeypatch, 3)
    assert waited == [*[postman_module.UNREACHABLE_SECONDS] * 2, postman_module.POLL_SECONDS]


def test_after_a_fault_of_the_program_no_mail_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A row whose mail may have left is claimed by its old name only, which is never used again."""
    at = scene(letter(1), letter(2))
    at.outbox.trouble["report"] = [RuntimeError("a fault")]
    run_until_stopped(at, monkeypatch, 2)
    assert at.fates == [(2, "sent")]
    assert at.outbox.senders == ["sender-1", "sender-2", "sender-2"]
    assert "postman_failed" in [vars(record).get("action") for record in caplog.records]


def test_what_dead_senders_left_is_told(caplog: pytest.LogCaptureFixture) -> None:
    at = scene()
    at.outbox.dead = {"quota:1:80": MailStatus.UNSURE, "quota:1:100": MailStatus.WAITING}
    with caplog.at_level(logging.WARNING):
        asyncio.run(at.postman.round(at.stop))
    assert at.seen.mails == {"unsure": 1, "waiting": 1}
    said = [(r.levelname, vars(r)["action"], vars(r)["reference"]) for r in caplog.records]
    assert said == [
        ("ERROR", "mail_unsure", "quota:1:80"),
        ("WARNING", "mail_waiting", "quota:1:100"),
    ]


def test_what_nobody_sent_for_two_days_is_given_up_before_anything_is_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    at = scene(letter(1))
    at.outbox.old = ["b", "a"]
    with caplog.at_level(logging.WARNING):
        asyncio.run(at.postman.round(at.stop))
    assert at.seen.mails == {"failed": 2, "sent": 1}
    assert [vars(record)["reference"] for record in caplog.records] == ["a", "b"]
    assert at.outbox.due_before == NOW_MS - 48 * HOUR_MS


def test_a_mail_is_noted_before_it_is_handed_over() -> None:
    at = scene(letter(1), letter(2))
    at.mailer.meanwhile = lambda: at.outbox.noted.append(0)
    asyncio.run(at.postman.round(at.stop))
    assert at.outbox.noted == [1, 0, 2, 0]


def test_a_mail_that_another_sender_has_is_not_handed_over() -> None:
    at = scene(letter(1))
    at.outbox.lost = True
    asyncio.run(at.postman.round(at.stop))
    assert at.mailer.mails == []
    assert at.fates == [(1, "waiting")]  # which is not written: the row is the other's


class Choosy(FakeMailer):
    """Takes mails for b only, as long as a is busy."""

    def __init__(self, busy: bool = True) -> None:
        super().__init__()
        self.busy = busy

    async def send(self, mail: Mail, hand_over: HandOver) -> Receipt:
        self.mails.append(mail)
        taken = tuple(r for r in mail.recipients if r[0] == "b" or not self.busy)
        late = tuple(r for r in mail.recipients if r not in taken)
        if not taken:
            raise MailDelayedError("450 busy")
        return Receipt(taken, "not for …" if late else "", late)


ADMINS = ("a@x.example", "b@x.example")


def test_an_administrator_who_is_busy_is_tried_again_and_no_other() -> None:
    made = letter(audience="admin")
    first = one_round(made, mailer=Choosy(), admins=ADMINS)
    ((_, outcome),) = first.outbox.outcomes
    assert outcome == Outcome(
        MailStatus.WAITING,
        NOW_MS,
        NOW_MS + MINUTE_MS,
        "a@x.example, b@x.example",
        "not for …",
        ("b@x.example",),
    )
    again = replace(made, attempts=2, taken_for=outcome.taken_for)
    busy = one_round(again, mailer=Choosy(), admins=ADMINS)
    assert busy.outbox.outcomes[0][1].taken_for == ("b@x.example",)
    at = one_round(again, mailer=Choosy(busy=False), admins=ADMINS)
    assert [mail.recipients for mail in at.mailer.mails] == [("a@x.example",)]
    ((_, outcome),) = at.outbox.outcomes
    assert (outcome.status, outcome.recipient) == (MailStatus.SENT, "b@x.example, a@x.example")


def test_what_some_have_got_is_sent_when_the_others_are_given_up() -> None:
    made = letter(audience="admin", attempts=MOST_ATTEMPTS, taken_for=("b@x.example",))
    ((_, outcome),) = one_round(made, mailer=Choosy(), admins=ADMINS).outbox.outcomes
    text = f"given up after {MOST_ATTEMPTS} attempts: 450 busy"
    taken = ("b@x.example",)
    assert outcome == Outcome(MailStatus.SENT, NOW_MS, None, "b@x.example", text, taken)
    gone = one_round(made, mailer=Choosy(), admins=("b@x.example",))
    assert gone.mailer.mails == []
    assert gone.fates == [(1, "sent")]


def test_the_wait_ends_when_the_program_does() -> None:
    async def run() -> None:
        stop = asyncio.Event()
        waiting = asyncio.create_task(postman_module._wait(stop, 3_600))
        await asyncio.sleep(0)
        stop.set()
        assert await waiting
        assert not await postman_module._wait(asyncio.Event(), 0)

    asyncio.run(run())
