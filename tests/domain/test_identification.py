"""Which account a call is taken for: every rule of precedence, every tie, every explanation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import pytest

from astcredit.domain.accounts import Account, AmbiguousAccountsError, IdentKind
from astcredit.domain.calls import Origin
from astcredit.domain.identification import Identified, Identities, conflicts

NUMBER = "442071234567"


def account(
    id: int,
    by: str,
    idents: str,
    tech_prefix: str = "",
    gateways: tuple[str, ...] = (),
    enabled: bool = True,
) -> Account:
    """An account; `idents` are separated by semicolons, as people write them."""
    return Account(
        id,
        id,
        f"acc{id}",
        tuple(idents.split(";")),
        enabled=enabled,
        ident_by=IdentKind(by),
        tech_prefix=tech_prefix,
        gateways=gateways,
    )


def origin(
    source: str = "",
    callerid: str = "",
    *,
    account: str = "",
    code: str = "",
    endpoint: str = "",
    node: str = "pbx1",
) -> Origin:
    return Origin(node, account, code, endpoint, source, callerid)


def found_id(accounts: Iterable[Account], where: Origin, number: str = NUMBER) -> int | None:
    found = Identities.of(accounts).find(where, number)
    return found.account.id if found else None


# Kinds, in their order

ONE_OF_EACH = [
    account(1, "name", "alice"),
    account(2, "name", "desk"),
    account(3, "ip", "10.0.0.0/8"),
    account(4, "ani", "4420*"),
    account(5, "name", "named"),
]


@pytest.mark.parametrize(
    ("where", "expected", "by", "ident"),
    [
        (
            origin("10.1.1.1:5060", "+442099", code="alice", endpoint="desk"),
            1,
            "accountcode",
            "alice",
        ),
        (origin("10.1.1.1:5060", "+442099", code="x", endpoint="desk"), 2, "endpoint", "desk"),
        (origin("10.1.1.1:5060", "+442099", code="x"), 3, "address", "10.0.0.0/8"),
        (origin("11.1.1.1:5060", "+442099"), 4, "caller's number", "4420*"),
        (origin("11.1.1.1:5060", "+4421"), None, "", ""),
        (origin("10.1.1.1", code="alice", account="named"), 5, "account", "named"),
        (origin("10.1.1.1", "4420", code="alice", account="nobody"), None, "", ""),
        (origin(code="desk", endpoint="alice"), 2, "accountcode", "desk"),
        (origin(), None, "", ""),
    ],
)
def test_the_first_kind_that_finds_an_account_counts(
    where: Origin, expected: int | None, by: str, ident: str
) -> None:
    found = Identities.of(ONE_OF_EACH).find(where, NUMBER)
    if expected is None:
        assert found is None
    else:
        expected_account = ONE_OF_EACH[expected - 1]
        assert found == Identified(expected_account, NUMBER, ident, expected_account.ident_by, by)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "where",
    [
        origin(code="10.0.0.5"),
        origin(code="4420"),
        origin(account="10.0.0.5"),
        origin(callerid="alice"),
        origin(source="alice"),
        origin(code="Alice"),
        origin(code="alice "),
        origin(endpoint="alicé"),
        origin(source="10.0.0.55"),
    ],
)
def test_an_ident_counts_for_its_own_kind_only_and_letter_by_letter(where: Origin) -> None:
    accounts = [
        account(1, "name", "alice"),
        account(2, "ip", "10.0.0.5"),
        account(3, "ani", "4420"),
    ]
    assert found_id(accounts, where) is None


def test_empty_fields_and_idents_identify_nothing() -> None:
    """A slip in a list of names ("alice;") must not make every nameless call alice's."""
    accounts = [account(1, "name", "alice;"), account(2, "ip", ""), account(3, "ani", "")]
    assert found_id(accounts, origin()) is None
    assert found_id(accounts, origin(code="alice")) == 1


def test_a_disabled_account_is_found_so_that_the_call_can_be_refused_for_that() -> None:
    assert found_id([account(1, "name", "alice", enabled=False)], origin(code="alice")) == 1


def test_an_account_answers_to_each_of_its_idents() -> None:
    accounts = [account(1, "ip", "10.0.0.0/24;192.0.2.1;2001:db8::/32"), account(2, "name", "a;b")]
    for source in ("10.0.0.9", "192.0.2.1:5060", "[2001:db8:1::1]:5060"):
        assert found_id(accounts, origin(source)) == 1
    assert [found_id(accounts, origin(code=code)) for code in "ab"] == [2, 2]


# The most specific ident, port, tech prefix, gateway: in this order


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("10.0.0.5:5060", 4),
        ("10.0.0.6:5060", 3),
        ("10.0.1.5:5060", 2),
        ("11.0.0.5:5060", 1),
        ("::ffff:10.0.0.5", 4),
        ("2001:db8::1", 7),
        ("2001:db8::2", 6),
        ("[2001:db9::1]:5060", 5),
        ("fe80::1%eth0", 5),
    ],
)
def test_the_most_specific_network_wins(source: str, expected: int) -> None:
    nested = "0.0.0.0/0 10.0.0.0/8 10.0.0.0/24 10.0.0.5 ::/0 2001:db8::/32 2001:db8::1"
    accounts = [account(i, "ip", ident) for i, ident in enumerate(nested.split(), 1)]
    assert found_id(accounts, origin(source)) == expected


@pytest.mark.parametrize(
    ("callerid", "expected"),
    [
        ("4420", 3),
        ("+4420", 3),
        ("44207", 4),
        ("44201", 2),
        ("4421", 1),
        ("44", 1),
        ("4", None),
        ("anonymous", None),
        ("0044207", None),
    ],
)
def test_a_whole_callers_number_wins_then_the_longest_prefix(
    callerid: str, expected: int | None
) -> None:
    idents = ["44*", "4420*", "4420", "44207*"]
    accounts = [account(i, "ani", ident) for i, ident in enumerate(idents, 1)]
    assert found_id(accounts, origin(callerid=callerid)) == expected


@pytest.mark.parametrize(
    ("source", "number", "node", "expected"),
    [
        # network before port, port before tech prefix, tech prefix before gateway
        ("10.0.0.5:5061", "9944", "pbx1", 1),
        ("10.0.0.6:5061", "9944", "pbx1", 2),
        ("10.0.0.6:5060", "9944", "pbx1", 3),
        ("10.0.0.6", "9944", "pbx1", 3),
        ("10.0.0.6:5060", "944", "pbx1", 4),
        ("10.0.0.6:5060", "844", "pbx1", 5),
        ("10.0.0.6:5060", "844", "pbx2", 6),
    ],
)
def test_network_then_port_then_tech_prefix_then_gateway(
    source: str, number: str, node: str, expected: int
) -> None:
    accounts = [
        account(1, "ip", "10.0.0.5"),
        account(2, "ip", "10.0.0.0/24:5061"),
        account(3, "ip", "10.0.0.0/24", "99"),
        account(4, "ip", "10.0.0.0/24", "9"),
        account(5, "ip", "10.0.0.0/24", gateways=("pbx1",)),
        account(6, "ip", "10.0.0.0/24"),
    ]
    for order in (accounts, accounts[::-1]):
        assert found_id(order, origin(source, node=node), number) == expected


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (account(1, "ip", "10.0.0.5"), account(2, "ip", "10.0.0.4/31:5060", "44", ("pbx1",))),
        (account(1, "ip", "10.0.0.5:5060"), account(2, "ip", "10.0.0.5", "44", ("pbx1",))),
        (account(1, "ip", "10.0.0.5", "44"), account(2, "ip", "10.0.0.5", "4", ("pbx1",))),
        (account(1, "ip", "10.0.0.5", "", ("pbx1",)), account(2, "ip", "10.0.0.5")),
        (account(1, "ani", "331"), account(2, "ani", "33*", "44", ("pbx1",))),
        (account(1, "name", "trunk", "44"), account(2, "name", "trunk", "4", ("pbx1",))),
        (account(1, "name", "trunk"), account(2, "ip", "10.0.0.5:5060", "44", ("pbx1",))),
        (account(1, "ip", "0.0.0.0/0"), account(2, "ani", "331", "44", ("pbx1",))),
    ],
)
def test_each_rule_outweighs_all_that_come_after_it(better: Account, worse: Account) -> None:
    where = origin("10.0.0.5:5060", "331", code="trunk")
    for order in permutations((better, worse)):
        assert found_id(order, where) == 1
    assert found_id([worse], where) == 2


@pytest.mark.parametrize(
    ("unfit", "reason"),
    [
        (account(1, "ip", "10.0.0.5:5061"), "the call does not come from port 5061"),
        (account(1, "ip", "10.0.0.5", "99"), "does not begin with its tech prefix 99"),
        (account(1, "ip", "10.0.0.5", "", ("pbx2", "pbx3")), "bound to gateway 'pbx2', 'pbx3'"),
    ],
)
def test_what_is_better_but_does_not_fit_leaves_the_call_to_the_next(
    unfit: Account, reason: str
) -> None:
    identities = Identities.of([unfit, account(2, "ip", "10.0.0.0/24")])
    found = identities.find(origin("10.0.0.5:5060"), NUMBER)
    assert found is not None
    assert found.account.id == 2
    assert reason in identities.explain(origin("10.0.0.5:5060"), NUMBER)[1].why


# Tech prefixes


@pytest.mark.parametrize("by", ["name", "ip", "ani"])
@pytest.mark.parametrize(
    ("number", "expected", "rest"),
    [
        ("99442071", 3, "442071"),
        ("9442071", 2, "442071"),
        ("442071", 1, "442071"),
        ("99", 3, ""),
        ("9", 2, ""),
        ("", 1, ""),
        ("+99442071", 1, "+99442071"),
        ("x99", 1, "x99"),
    ],
)
def test_the_longest_tech_prefix_wins_and_is_stripped(
    by: str, number: str, expected: int, rest: str
) -> None:
    ident = {"name": "trunk", "ip": "10.0.0.5", "ani": "331*"}[by]
    accounts = [account(i, by, ident, tech) for i, tech in enumerate(("", "9", "99"), 1)]
    found = Identities.of(accounts).find(origin("10.0.0.5:5060", "33145", code="trunk"), number)
    assert found is not None
    assert (found.account.id, found.number) == (expected, rest)


@pytest.mark.parametrize("number", ["", "44", "+99", "9"])
def test_behind_tech_prefixes_alone_other_numbers_are_nobodys(number: str) -> None:
    accounts = [account(1, "ip", "10.0.0.5", "99"), account(2, "ip", "10.0.0.5", "981")]
    assert found_id(accounts, origin("10.0.0.5"), number) is None


@pytest.mark.parametrize("tech_prefix", ["x", "+9", "9 ", "\u0669", "9\n"])
def test_a_tech_prefix_is_digits(tech_prefix: str) -> None:
    with pytest.raises(ValueError, match=r"tech prefix .*: expected digits"):
        Identities.of([account(1, "name", "a", tech_prefix)])


# Ties

A, B = ("a",), ("b",)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (account(1, "name", "x;y"), account(2, "name", "y;z"), "the name 'y'"),
        (account(1, "ip", "10.0.0.5"), account(2, "ip", "10.0.0.5/32"), "the address '10.0.0.5'"),
        (
            account(1, "ip", "::ffff:10.0.0.0/120"),
            account(2, "ip", "10.0.0.0/24"),
            "the address '10.0.0.0/24'",
        ),
        (
            account(1, "ip", "[2001:DB8::1]:5060"),
            account(2, "ip", "[2001:db8::1]:5060"),
            "the address '[2001:db8::1]:5060'",
        ),
        (account(1, "ani", "+44*"), account(2, "ani", "44*"), "the caller's number '44*'"),
        (
            account(1, "ip", "10.0.0.5", "99"),
            account(2, "ip", "10.0.0.5", "99"),
            "the address '10.0.0.5' with the tech prefix 99",
        ),
        (
            account(1, "name", "x", "9", ("b", "a")),
            account(2, "name", "x", "9", ("c", "a")),
            "the name 'x' with the tech prefix 9 on the gateway 'a'",
        ),
        (account(1, "name", "x", enabled=False), account(2, "name", "x"), "the name 'x'"),
    ],
)
def test_accounts_that_would_tie_are_refused_with_both_named(
    one: Account, other: Account, shared: str
) -> None:
    text = f"accounts 'acc1' and 'acc2' are both identified by {shared}"
    assert conflicts(one, other) == text
    assert conflicts(other, one).startswith("accounts 'acc2' and 'acc1' are both identified by")
    for order in permutations((one, other)):
        with pytest.raises(AmbiguousAccountsError) as caught:
            Identities.of(order)
        assert str(caught.value) == text
    with pytest.raises(AmbiguousAccountsError, match="'acc1' and 'acc2'"):
        Identities.of([one]).changed((), [other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (account(1, "name", "x"), account(2, "name", "X")),
        (account(1, "name", "10.0.0.5"), account(2, "ip", "10.0.0.5")),
        (account(1, "name", "44"), account(2, "ani", "44")),
        (account(1, "ip", "10.0.0.0/24"), account(2, "ip", "10.0.0.0/25")),
        (account(1, "ip", "0.0.0.0/0"), account(2, "ip", "::/0")),
        (account(1, "ip", "10.0.0.5"), account(2, "ip", "10.0.0.5:5060")),
        (account(1, "ip", "10.0.0.5:5061"), account(2, "ip", "10.0.0.5:5060")),
        (account(1, "ip", "10.0.0.5"), account(2, "ip", "10.0.0.5", "9")),
        (account(1, "ip", "10.0.0.5", "99"), account(2, "ip", "10.0.0.5", "9")),
        (account(1, "ani", "44"), account(2, "ani", "44*")),
        (account(1, "name", "x", "", A), account(2, "name", "x")),
        (account(1, "name", "x", "", A), account(2, "name", "x", "", B)),
    ],
)
def test_accounts_that_can_be_told_apart_are_not_refused(one: Account, other: Account) -> None:
    assert conflicts(one, other) == conflicts(other, one) == ""
    Identities.of([one, other])


def test_gateways_may_each_have_their_own_and_one_for_all_the_others() -> None:
    accounts = [
        account(1, "name", "x"),
        account(2, "name", "x", "", A),
        account(3, "name", "x", "", B),
    ]
    nodes = {"a": 2, "b": 3, "c": 1, "": 1}
    assert {n: found_id(accounts, origin(code="x", node=n)) for n in nodes} == nodes


def test_an_account_may_say_an_ident_twice() -> None:
    twice = account(1, "ip", "10.0.0.5;10.0.0.5/32;10.0.0.0/24")
    identities = Identities.of([twice])
    again = identities.changed([twice], [twice]).changed((), [twice])
    for index in (identities, again):
        assert index.find(origin("10.0.0.5"), NUMBER) is not None
        assert index.changed([twice], []).find(origin("10.0.0.5"), NUMBER) is None


def test_what_is_no_ident_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ident '10\.0\.0\.5/24': expected no host bits"):
        Identities.of([account(1, "ip", "10.0.0.5/24")])
    with pytest.raises(ValueError, match="account id 1: expected each id once"):
        Identities.of([account(1, "name", "x"), account(1, "name", "y")])


# The name that the script gives


@pytest.mark.parametrize("order", [0, 1])
def test_a_script_names_accounts_by_their_own_names_before_their_idents(order: int) -> None:
    """A database may have such a pair from before it was refused: AC_PAYER of the first is its own
    name, and must not make the other pay."""
    pair = [account(1, "ip", "10.0.0.5"), account(2, "name", "acc1;b")]
    identities = Identities.of(pair[:: 1 - 2 * order])
    named = identities.find(origin("10.0.0.9", account="acc1"), NUMBER)
    assert named == Identified(pair[0], NUMBER, "acc1", IdentKind.NAME, "account")
    for where in (origin(account="b"), origin(account="acc2"), origin(code="acc1")):
        found = identities.find(where, NUMBER)
        assert found is not None
        assert found.account.id == 2
    told = identities.explain(origin("10.0.0.5", account="acc1"), NUMBER)
    assert [(each.account.id, each.chosen) for each in told] == [(1, True), (2, False)]
    assert told[1].why == "the script names an account, and then nothing else counts"


def test_an_accounts_own_name_counts_on_every_gateway_and_with_every_number() -> None:
    bound = account(1, "name", "acc1", "99", ("pbx2",))
    other = account(2, "name", "acc1", "", ("pbx1",))
    found = Identities.of([bound, other]).find(origin(account="acc1"), NUMBER)
    assert found is not None
    assert (found.account.id, found.number) == (1, NUMBER)


@pytest.mark.parametrize(
    ("dialled", "number"),
    [
        ("44442079999999", "442079999999"),
        ("+442079999999", "+442079999999"),
        ("00442079999999", "00442079999999"),
        ("4930123456", "4930123456"),
        ("442079999999", "2079999999"),  # a guess, and wrong here: the guides say what to dial
    ],
)
def test_of_an_account_that_the_script_names_the_tech_prefix_may_be_dialled_or_not(
    dialled: str, number: str
) -> None:
    identities = Identities.of([account(1, "ip", "10.0.0.5", "44"), account(2, "name", "x", "44")])
    for name in ("acc1", "acc2"):
        found = identities.find(origin(account=name), dialled)
        assert found is not None
        assert found.number == number


# Explanations


def test_every_reason_is_told() -> None:
    accounts = [
        account(1, "ip", "10.0.0.5:5060", "44", ("pbx1",)),
        account(2, "ip", "10.0.0.5:5060", "44"),
        account(3, "ip", "10.0.0.5:5060", "4"),
        account(4, "ip", "10.0.0.5", "44"),
        account(5, "ip", "10.0.0.0/24;10.0.0.0/8"),
        account(6, "ani", "331*"),
        account(7, "name", "trunk", "99", ("pbx2",)),
        account(8, "ip", "10.0.0.5:5061"),
        account(9, "ip", "192.0.2.1"),
    ]
    told = Identities.of(accounts).explain(origin("10.0.0.5:5060", "33199", code="trunk"), NUMBER)
    assert [(each.account.id, each.ident, each.why) for each in told] == [
        (
            1,
            "10.0.0.5:5060",
            "the source address is '10.0.0.5:5060'; the number begins with its tech prefix 44;"
            " it is bound to this gateway",
        ),
        (2, "10.0.0.5:5060", "'acc1' is bound to this gateway, and this one to none"),
        (3, "10.0.0.5:5060", "the tech prefix 44 of 'acc1' is longer and fits"),
        (4, "10.0.0.5", "'10.0.0.5:5060' of 'acc1' names the port, too"),
        (5, "10.0.0.0/24", "'10.0.0.5:5060' of 'acc1' is more specific"),
        (
            6,
            "331*",
            "'acc1' is found by the address, which comes before the caller's number",
        ),
        (
            7,
            "trunk",
            "the number does not begin with its tech prefix 99; it is bound to gateway 'pbx2',"
            " the call is on 'pbx1'",
        ),
        (8, "10.0.0.5:5061", "the call does not come from port 5061"),
    ]
    assert [each.chosen for each in told] == [True] + [False] * 7


@pytest.mark.parametrize(
    ("where", "why"),
    [
        (origin(account="alice"), "the account that the script names is 'alice'"),
        (origin(code="alice"), "the accountcode is 'alice'"),
        (origin(endpoint="alice"), "the PJSIP endpoint is 'alice'"),
        (origin("10.0.0.5"), "the source address is '10.0.0.5'"),
        (origin("10.0.1.5"), "the source address is in '10.0.0.0/16'"),
        (origin("::1"), "the source address is '::1'"),
        (origin(callerid="331"), "the caller's number is '331'"),
        (origin(callerid="+3312"), "the caller's number begins with '33*'"),
    ],
)
def test_the_chosen_one_is_told_by_what_it_was_recognised(where: Origin, why: str) -> None:
    accounts = [
        account(1, "name", "alice"),
        account(2, "ip", "10.0.0.5;10.0.0.0/16;::1"),
        account(3, "ani", "331;33*"),
    ]
    (told,) = Identities.of(accounts).explain(where, NUMBER)
    assert (told.chosen, told.why) == (True, why)


@pytest.mark.parametrize("idents", ["10.0.0.5:5062;10.0.0.5:5061", "10.0.0.5:5061;10.0.0.5:5062"])
def test_an_account_is_told_of_once_and_always_by_the_same_ident(idents: str) -> None:
    (told,) = Identities.of([account(1, "ip", idents)]).explain(origin("10.0.0.5:5060"), NUMBER)
    assert (told.ident, told.chosen) == ("10.0.0.5:5061", False)


def test_where_the_script_names_an_account_the_others_are_told_that() -> None:
    told = Identities.of(ONE_OF_EACH).explain(
        origin("10.1.1.1", "4420", code="alice", account="named"), NUMBER
    )
    assert [(each.account.id, each.chosen) for each in told] == [
        (5, True),
        (1, False),
        (3, False),
        (4, False),
    ]
    for each in told[1:]:
        assert each.why == "the script names an account, and then nothing else counts"
    own = Identities.of(ONE_OF_EACH).explain(
        origin("10.1.1.1", code="alice", account="acc3"), NUMBER
    )
    assert [(each.account.id, each.ident, each.chosen, each.why) for each in own] == [
        (3, "acc3", True, "the script names the account itself, which counts alone"),
        (1, "alice", False, "the script names an account, and then nothing else counts"),
    ]
    nobody = Identities.of(ONE_OF_EACH).explain(origin(code="alice", account="nobody"), NUMBER)
    assert [(each.account.id, each.chosen) for each in nobody] == [(1, False)]
