"""Changes of accounts, and what the settings of one account demand of each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.service.account_ports import COLUMNS, Account, Termination
from astcredit.service.account_rules import (
    AccountChange,
    TerminationChange,
    check_consistent,
    contradictions,
)
from astcredit.service.account_settings import SettingError

DESK = Account("desk", "acme", ("desk",))
CARRIER = Termination(
    "cost", "night", 30, Protocol.SIP, "sip.example.com", 5070, "peer", "10.0.0.1"
)


FILLING = AccountChange(
    idents=["10.0.0.0/24"],
    rate_table="retail",
    tag="t",
    notes="n",
    enabled=False,
    ident_by=IdentKind.IP,
    tech_prefix="77",
    gateways=["pbx1"],
    routing_plan="plan",
    source_policy=SourcePolicy.OVERWRITE,
    dids=["+4930"],
    orig_enabled=False,
    orig_capacity=0,
    termination=TerminationChange(
        "cost", "night", 30, Protocol.SIP, "sip.example.com", 5070, "peer", "10.0.0.1"
    ),
)


def term(change: TerminationChange, old: Termination | None = None) -> Termination | None:
    return change.applied_to(old)


def test_what_is_not_named_stays() -> None:
    full = replace(
        DESK,
        rate_table="retail",
        tech_prefix="77",
        gateways=("pbx1",),
        source_policy=SourcePolicy.REJECT,
        dids=("4930",),
        orig_enabled=False,
        orig_capacity=3,
        termination=CARRIER,
    )
    assert AccountChange().applied_to(full) == full


def test_every_setting_can_be_set_and_emptied() -> None:
    full = FILLING.applied_to(DESK)
    assert full.state() == {
        "client": "acme",
        "ident_by": "ip",
        "ident": ["10.0.0.0/24"],
        "rate_table": "retail",
        "tag": "t",
        "notes": "n",
        "enabled": False,
        "tech_prefix": "77",
        "gateways": ["pbx1"],
        "routing_plan": "plan",
        "src_policy": "overwrite",
        "dids": ["4930"],
        "orig_enabled": False,
        "orig_capacity": 0,
        "term_enabled": True,
        "term_rate_table": "cost",
        "term_tag": "night",
        "term_capacity": 30,
        "protocol": "SIP",
        "host": "sip.example.com",
        "port": 5070,
        "proxy": "peer",
        "routing_ip": "10.0.0.1",
    }
    assert full.termination == CARRIER
    emptying = AccountChange(
        idents=["desk"],
        rate_table="",
        tag="",
        notes="",
        enabled=True,
        ident_by=IdentKind.NAME,
        tech_prefix="",
        gateways=[],
        routing_plan="",
        source_policy=SourcePolicy.ALLOW_ANY,
        dids=[],
        orig_enabled=True,
        orig_capacity=None,
        termination=TerminationChange("", "", None, Protocol.PJSIP, "", None, "", "", False),
    )
    assert emptying.applied_to(full) == replace(DESK, termination=Termination(enabled=False))


def test_state_has_the_columns_in_their_order() -> None:
    for account in (DESK, replace(DESK, termination=CARRIER)):
        assert ("name", *account.state()) == COLUMNS


@pytest.mark.parametrize(
    "change",
    [
        TerminationChange(enabled=True),
        TerminationChange(rate_table="cost"),
        TerminationChange(tag="night"),
        TerminationChange(capacity=0),
        TerminationChange(protocol=Protocol.PJSIP),
        TerminationChange(host="h"),
        TerminationChange(port=5060),
        TerminationChange(proxy="p"),
        TerminationChange(routing_ip="10.0.0.1"),
    ],
)
def test_any_terminator_setting_makes_a_terminator_that_is_on(change: TerminationChange) -> None:
    made = term(change)
    assert made is not None
    assert made.enabled
    off = term(replace(change, enabled=False))
    if change != TerminationChange(enabled=True):
        assert off == replace(made, enabled=False)


def test_nothing_given_makes_no_terminator() -> None:
    for change in (
        TerminationChange(),
        TerminationChange(enabled=False),
        TerminationChange("", "", None, None, "", None, "", ""),
    ):
        assert term(change) is None


def test_settings_of_a_side_that_is_off_do_not_switch_it_on() -> None:
    """Who corrects the host of a terminator in trouble does not send calls to it again."""
    off = replace(CARRIER, enabled=False)
    assert term(TerminationChange(host="other"), off) == replace(off, host="other")
    assert term(TerminationChange(enabled=True), off) == CARRIER


def test_what_identifies_changes_together_with_the_idents() -> None:
    with pytest.raises(SettingError, match="together with it"):
        AccountChange(ident_by=IdentKind.IP).applied_to(DESK)
    same = AccountChange(ident_by=IdentKind.NAME)
    assert same.applied_to(DESK) == DESK
    with pytest.raises(SettingError, match="at least one"):
        same.applied_to(Account("new", "acme"))


@pytest.mark.parametrize("policy", [SourcePolicy.REJECT, SourcePolicy.OVERWRITE])
def test_a_policy_on_dids_needs_dids(policy: SourcePolicy) -> None:
    account = replace(DESK, source_policy=policy)
    (error,) = contradictions(account)
    assert error.column == "src_policy"
    assert "--did" in str(error)
    assert not list(contradictions(replace(account, dids=("4930",))))


def test_a_terminator_that_is_on_can_be_dialled() -> None:
    with pytest.raises(SettingError, match="--host, --proxy, --routing-ip"):
        check_consistent(replace(DESK, termination=Termination("cost")))
    with pytest.raises(SettingError, match="IAX2"):
        check_consistent(
            replace(DESK, termination=Termination(protocol=Protocol.IAX2, host="2001:db8::1"))
        )
    for fine in (
        None,
        Termination(enabled=False),
        Termination(host="h"),
        Termination(proxy="p"),
        Termination(routing_ip="10.0.0.1"),
    ):
        check_consistent(replace(DESK, termination=fine))


def test_a_terminator_without_rates_is_noticed_only_when_it_is_on() -> None:
    on = Termination(host="h")
    assert replace(DESK, termination=on).needs_term_rates
    for fine in (None, replace(on, enabled=False), replace(on, rate_table="cost")):
        assert not replace(DESK, termination=fine).needs_term_rates
