"""What each setting of an account may be, by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from astcredit.domain.accounts import IdentKind
from astcredit.service.account_settings import (
    MOST_LIST,
    SettingError,
    checked_dids,
    checked_gateways,
    checked_host,
    checked_idents,
    checked_proxy,
    checked_routing_ip,
    checked_tech_prefix,
    checked_text,
    read_capacity,
    read_port,
)

NAME, IP, ANI = IdentKind.NAME, IdentKind.IP, IdentKind.ANI


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (NAME, ["acme", "Acme 2"], ("acme", "Acme 2")),
        (IP, ["10.0.0.5/32", " 2001:DB8::/32"], ("10.0.0.5", "2001:db8::/32")),
        (IP, ["::ffff:10.0.0.5", "10.0.0.5:5061"], ("10.0.0.5", "10.0.0.5:5061")),
        (ANI, ["+442071234567", "44207*"], ("442071234567", "44207*")),
    ],
)
def test_idents_are_kept_in_canonical_form(
    kind: IdentKind, given: Sequence[str], kept: tuple[str, ...]
) -> None:
    assert checked_idents(kind, given) == kept


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (NAME, [], "at least one"),
        (NAME, [""], "a name"),
        (NAME, ["a", " b"], "' b'"),
        (NAME, ["a", "a"], "'a': expected each of them once"),
        (IP, ["10.0.0.5", "10.0.0.5/32"], "'10.0.0.5': expected each of them once"),
        (IP, ["10.0.0.5/24"], "no host bits, as in 10.0.0.0/24"),
        (IP, ["acme"], "an address or a network"),
        (ANI, ["+44 20"], "a caller's number"),
        (NAME, [f"{number:080}" for number in range(900)], f"at most {MOST_LIST} bytes"),
    ],
)
def test_what_is_no_ident_is_refused(kind: IdentKind, given: Sequence[str], words: str) -> None:
    with pytest.raises(SettingError) as refused:
        checked_idents(kind, given)
    assert refused.value.column == "ident"
    assert words in str(refused.value)


Check = Callable[[str], object]


@pytest.mark.parametrize(
    ("check", "given", "kept"),
    [
        (checked_tech_prefix, "", ""),
        (checked_tech_prefix, "0077", "0077"),
        (checked_tech_prefix, "7" * 20, "7" * 20),
        (checked_host, "", ""),
        (checked_host, "sip.example.com", "sip.example.com"),
        (checked_host, "2001:db8::1", "2001:db8::1"),
        (checked_proxy, "", ""),
        (checked_proxy, "carrier-a", "carrier-a"),
        (checked_routing_ip, "", ""),
        (checked_routing_ip, "192.0.2.1", "192.0.2.1"),
        (read_port, "", None),
        (read_port, "65535", 65535),
        (lambda text: checked_dids([text]), "+4930123", ("4930123",)),
        (lambda text: checked_gateways([text]), "pbx-1.example", ("pbx-1.example",)),
        (lambda text: read_capacity("orig_capacity", text), "", None),
        (lambda text: read_capacity("orig_capacity", text), "0", 0),
        (lambda text: checked_text("notes", text, 5), "", ""),
        (lambda text: checked_text("notes", text, 5), "Grüße", "Grüße"),
    ],
)
def test_a_setting_that_can_be_is_kept(check: Check, given: str, kept: object) -> None:
    assert check(given) == kept


@pytest.mark.parametrize(
    ("check", "column", "wrong"),
    [
        (checked_tech_prefix, "tech_prefix", ["+77", "7a", "7" * 21, "\u0667", "7\n"]),
        (checked_host, "host", ["a b", "sip.example.com:5060", "x,y", "a@b", "[::1]"]),
        (checked_proxy, "proxy", ["a/b", "a@b", "a b", "a,b", "x" * 65]),
        (checked_routing_ip, "routing_ip", ["sip.example.com", "10.0.0.1:5060", "10.0.0.0/8"]),
        (read_port, "port", ["0", "65536", "-1", "5060.0", "\u0665"]),
        (lambda text: checked_dids([text]), "dids", ["", "++49", "49 30", "x", "1" * 33, "44*"]),
        (lambda text: checked_dids(["49", text]), "dids", ["49", "+49"]),
        (lambda text: checked_gateways([text]), "gateways", ["", "a;b", "a b", "x" * 65]),
        (
            lambda text: read_capacity("term_capacity", text),
            "term_capacity",
            ["-1", "1000001", "1.5", "many"],
        ),
        (lambda text: checked_text("tag", text, 5), "tag", ["a\nb", "123456", " a", "a "]),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_column_and_value(
    check: Check, column: str, wrong: Sequence[str]
) -> None:
    for value in wrong:
        with pytest.raises(SettingError, match="expected") as refused:
            check(value)
        assert refused.value.column == column
        assert refused.value.value in (value, value.removeprefix("+"))
        assert str(refused.value).isprintable()


def test_gateways_fit_into_their_column() -> None:
    assert len(checked_gateways(f"{number:064}" for number in range(6))) == 6
    with pytest.raises(SettingError, match="at most 400"):
        checked_gateways(f"{number:064}" for number in range(7))
