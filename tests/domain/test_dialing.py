"""What Dial is told: whom to call, and the option by which Asterisk ends the call in time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk.variables import exact
from astcredit.domain.accounts import Protocol, Termination
from astcredit.domain.dialing import (
    MOST_HOST,
    MOST_PREPEND,
    MOST_PROXY,
    NoDialString,
    check_address,
    check_host,
    check_prepend,
    check_proxy,
    dial_string,
    limit_option,
    rewritten,
)
from astcredit.domain.numbers import MOST_DIGITS

LONDON = "442071234567"
LONGEST_HOST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("seconds", "warn", "repeat", "option"),
    [
        (754, 60, 30, "L(754000:60000:30000)"),
        (754, 60, 0, "L(754000:60000)"),
        (754, 0, 30, "L(754000)"),  # nothing to repeat
        (754, 0, 0, "L(754000)"),
        (61, 60, 30, "L(61000:60000:30000)"),
        (60, 60, 30, "L(60000)"),  # not longer than the warning time: no warning
        (2, 60, 30, "L(2000)"),
        (1, 1, 1, "L(1000)"),
    ],
)
def test_limit_option(seconds: int, warn: int, repeat: int, option: str) -> None:
    assert limit_option(seconds, warn, repeat) == option


PJSIP, SIP, IAX2 = Protocol.PJSIP, Protocol.SIP, Protocol.IAX2


@pytest.mark.parametrize(
    ("termination", "dial"),
    [
        (Termination(proxy="carrier-a"), "PJSIP/442071234567@carrier-a"),
        (Termination(proxy="carrier-a", port=5061), "PJSIP/442071234567@carrier-a"),
        (
            Termination(proxy="carrier-a", host="sip.example.com"),
            "PJSIP/carrier-a/sip:442071234567@sip.example.com",
        ),
        (Termination(host="sip.example.com"), "PJSIP/carriers/sip:442071234567@sip.example.com"),
        (Termination(host="10.0.0.5", port=5061), "PJSIP/carriers/sip:442071234567@10.0.0.5:5061"),
        (Termination(host="2001:db8::1"), "PJSIP/carriers/sip:442071234567@[2001:db8::1]"),
        (Termination(host="::1", port=5061), "PJSIP/carriers/sip:442071234567@[::1]:5061"),
        (
            Termination(host="sip.example.com", port=5061, routing_ip="10.0.0.6"),
            "PJSIP/carriers/sip:442071234567@10.0.0.6:5061",
        ),
        (Termination(routing_ip="10.0.0.6"), "PJSIP/carriers/sip:442071234567@10.0.0.6"),
        (
            Termination(proxy="carrier-a", routing_ip="2001:db8::2"),
            "PJSIP/carrier-a/sip:442071234567@[2001:db8::2]",
        ),
        (Termination(protocol=SIP, proxy="carrier-a"), "SIP/442071234567@carrier-a"),
        (Termination(protocol=SIP, host="10.0.0.5"), "SIP/442071234567@10.0.0.5"),
        (Termination(protocol=SIP, host="a.example", port=5061), "SIP/442071234567@a.example:5061"),
        (Termination(protocol=SIP, host="::1", port=5061), "SIP/442071234567@[::1]:5061"),
        (Termination(protocol=SIP, proxy="a", host="10.0.0.5"), "SIP/442071234567@a"),
        (Termination(protocol=IAX2, proxy="carrier-a"), "IAX2/carrier-a/442071234567"),
        (Termination(protocol=IAX2, host="10.0.0.5"), "IAX2/10.0.0.5/442071234567"),
        (
            Termination(protocol=IAX2, host="a.example", port=4570),
            "IAX2/a.example:4570/442071234567",
        ),
        (Termination(protocol=IAX2, proxy="a", host="::1"), "IAX2/a/442071234567"),
    ],
)
def test_the_dial_string_of_a_terminator(termination: Termination, dial: str) -> None:
    assert dial_string(termination, LONDON, "carriers") == dial
    assert exact("AC_DIAL", dial) == dial


@pytest.mark.parametrize(
    ("termination", "why"),
    [
        (Termination(), "neither proxy nor host is set"),
        (Termination(port=5060), "neither proxy nor host is set"),
        (Termination(protocol=SIP), "neither proxy nor host is set"),
        (Termination(host="10.0.0.5", port=0), "port 0: expected 1 to 65535"),
        (Termination(host="10.0.0.5", port=65_536), "port 65536: expected 1 to 65535"),
        (Termination(host="10.0.0.5,30,g"), "'10.0.0.5,30,g': expected a host name"),
        (Termination(host="10.0.0.5&Local/x"), "expected a host name"),
        (Termination(host="sip.example.com:5060"), "expected a host name"),
        (Termination(host="a.example", routing_ip="b.example"), "expected an IP address"),
        (Termination(proxy="carrier-a/sip:1@evil"), "expected 1 to 64 letters"),
        (Termination(protocol=IAX2, proxy="user:pw@a"), "expected 1 to 64 letters"),
        (Termination(proxy="a", host="b c"), "expected a host name"),
        (Termination(protocol=IAX2, host="::1"), "IAX2 cannot dial the IPv6 address [::1]"),
        (Termination(protocol=IAX2, host="::1", port=4569), "IAX2 cannot dial the IPv6 address"),
    ],
)
def test_a_terminator_that_cannot_be_dialled(termination: Termination, why: str) -> None:
    with pytest.raises(NoDialString, match=re.escape(why)):
        dial_string(termination, LONDON, "carriers")


def test_a_host_needs_an_endpoint_for_pjsip_only() -> None:
    assert dial_string(Termination(protocol=SIP, host="a.example"), LONDON, "") != ""
    assert dial_string(Termination(proxy="carrier-a"), LONDON, "no endpoint at all") != ""
    with pytest.raises(NoDialString, match="through an endpoint, and none is set"):
        dial_string(Termination(host="a.example"), LONDON, "")
    with pytest.raises(NoDialString, match="expected 1 to 64 letters"):
        dial_string(Termination(host="a.example"), LONDON, "carriers/sip:1@evil")


@pytest.mark.parametrize(
    ("number", "strip", "prepend", "dialled"),
    [
        (LONDON, 0, "", "442071234567"),
        (LONDON, 2, "", "2071234567"),
        (LONDON, 2, "0", "02071234567"),
        (LONDON, 0, "00", "00442071234567"),
        (LONDON, 11, "", "7"),
        (LONDON, 0, "*31#", "*31#442071234567"),
        ("9" * MOST_DIGITS, 0, "1" * MOST_PREPEND, "1" * MOST_PREPEND + "9" * MOST_DIGITS),
    ],
)
def test_digits_are_stripped_and_then_prepended(
    number: str, strip: int, prepend: str, dialled: str
) -> None:
    assert rewritten(number, strip, prepend) == dialled
    assert dial_string(Termination(proxy="a"), dialled, "") == f"PJSIP/{dialled}@a"


@pytest.mark.parametrize(
    ("number", "strip", "prepend", "why"),
    [
        ("112", 3, "", "112 less 3 digits: expected at least one to be left"),
        ("112", 9, "00", "112 less 9 digits"),  # what is prepended is no number
        ("112", -1, "", "112 less -1 digits"),
        ("112", 0, "00,30", "prepend: '00,30': expected at most 20 digits"),
        ("112", 0, "1" * (MOST_PREPEND + 1), "expected at most 20 digits"),
        ("", 0, "00", "'': expected a telephone number"),
        ("+112", 0, "", "expected a telephone number"),
        ("1" * (MOST_DIGITS + 1), 0, "", "expected a telephone number"),
    ],
)
def test_what_is_no_number_after_rewriting(number: str, strip: int, prepend: str, why: str) -> None:
    with pytest.raises(NoDialString, match=re.escape(why)):
        rewritten(number, strip, prepend)


HOSTS = ["localhost", "a", "sip.example.com", "3com.com", "xn--bcher-kva.example", LONGEST_HOST]
ADDRESSES = ["10.0.0.5", "255.255.255.255", "::1", "2001:db8::1", "::ffff:10.0.0.5"]
NO_HOSTS = [
    *("", " ", "a b", "a..b", ".a", "a.", "-a", "a-", "a_b", "bücher.example", "a\n", "a,b", "a/b"),
    *("10.0.0.256", "10.0.0", "10.0.0.05", "1", "10.0.0.5:5060", "[::1]", "::1%eth0", ":::"),
    *("a" * 64, LONGEST_HOST + "d", "a;b", "a&b", "${A}", "٣.example", "\uff11.2.3.4"),
]


@pytest.mark.parametrize("text", [*HOSTS, *ADDRESSES])
def test_a_host_is_a_name_or_an_address(text: str) -> None:
    assert check_host(text) == text


@pytest.mark.parametrize("text", NO_HOSTS)
def test_what_is_no_host_is_refused_and_shown(text: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape("expected a host name like sip.example.com or an IP")
    ):
        check_host(text)


def test_a_host_of_the_greatest_length_is_allowed() -> None:
    assert len(LONGEST_HOST) == MOST_HOST


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_is_one(text: str) -> None:
    assert check_address(text) == text


@pytest.mark.parametrize("text", [*HOSTS, *NO_HOSTS])
def test_a_name_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected an IP address"):
        check_address(text)


@pytest.mark.parametrize("text", ["a", "carrier-a", "Carrier_A.2", "0", "x" * MOST_PROXY])
def test_a_proxy_is_a_name(text: str) -> None:
    assert check_proxy(text) == text


@pytest.mark.parametrize(
    "text", ["", "a b", "a/b", "a@b", "a:b", "é", "a\n", "x" * (MOST_PROXY + 1)]
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 64 letters, digits, '\.', '_' or '-'"):
        check_proxy(text)


@pytest.mark.parametrize("text", ["", "0", "00", "*31#", "1" * MOST_PREPEND])
def test_digits_and_service_codes_can_be_prepended(text: str) -> None:
    assert check_prepend(text) == text


@pytest.mark.parametrize("text", ["+44", "a", " ", "0,", "0\n", "٣", "1" * (MOST_PREPEND + 1)])
def test_what_cannot_be_prepended_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected at most 20 digits"):
        check_prepend(text)


SIGNS = st.text("0123456789abcAZ.-_@/:;,&|^~*#+%[](){}$\"'\\ \n\x00éß٣", max_size=12)
"""Short texts in which the signs that mean something to Dial, AGI or SIP are frequent."""

hosts = st.sampled_from(["", *HOSTS, *ADDRESSES]) | SIGNS | st.text()
proxies = st.sampled_from(["", "a", "carrier-a", "x" * MOST_PROXY]) | SIGNS
numbers = st.from_regex(r"[*#0-9]{0,20}[0-9]{1,32}", fullmatch=True) | SIGNS | st.text()


def outcome(termination: Termination, number: str, endpoint: str) -> tuple[str, str]:
    """The dial string, or why there is none; the other is empty."""
    try:
        return dial_string(termination, number, endpoint), ""
    except NoDialString as error:
        return "", str(error)


@given(
    st.builds(
        Termination,
        protocol=st.sampled_from(Protocol),
        host=hosts,
        port=st.none() | st.integers(-1, 70_000),
        proxy=proxies,
        routing_ip=hosts,
    ),
    numbers,
    proxies,
)
def test_no_setting_and_no_number_makes_a_dial_string_that_means_something_else(
    termination: Termination, number: str, endpoint: str
) -> None:
    """Each dial string reaches Asterisk unchanged, and has the form of its kind and no other."""
    dial, why = outcome(termination, number, endpoint)
    assert len(why) < 200
    assert why.isprintable()
    if why:
        return
    assert exact("AC_DIAL", dial) == dial
    digits, name = re.escape(number), r"[A-Za-z0-9_.-]+"
    place = rf"(?:{name}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
    forms = {
        PJSIP: rf"PJSIP/(?:{digits}@{name}|{name}/sip:{digits}@{place})",
        SIP: rf"SIP/{digits}@{place}",
        IAX2: rf"IAX2/{name}(?::[0-9]{{1,5}})?/{digits}",
    }
    assert re.fullmatch(forms[termination.protocol], dial, re.ASCII)
    assert re.fullmatch(r"[0-9*#]+", number, re.ASCII)


@given(numbers, st.integers(-2, 40), SIGNS | st.sampled_from(["", "00", "*31#"]))
def test_a_number_is_rewritten_to_what_can_be_dialled_or_not_at_all(
    number: str, strip: int, prepend: str
) -> None:
    try:
        dialled = rewritten(number, strip, prepend)
    except NoDialString:
        return
    assert dialled == prepend + number[strip:]
    assert dial_string(Termination(proxy="a"), dialled, "") == f"PJSIP/{dialled}@a"


def test_the_longest_dial_string_reaches_asterisk() -> None:
    termination = Termination(proxy="x" * MOST_PROXY, host=LONGEST_HOST, port=65_535)
    number = "*" * MOST_PREPEND + "9" * MOST_DIGITS
    dial = dial_string(termination, number, "")
    assert exact("AC_DIAL", dial) == dial
