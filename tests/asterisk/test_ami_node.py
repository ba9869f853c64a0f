"""Where an Asterisk server is: read from a URL that holds a secret."""

from __future__ import annotations

import pytest

from astcredit.asterisk.ami import AmiNode, parse_ami_url
from astcredit.service.errors import RefusedError


@pytest.mark.parametrize(
    ("url", "node"),
    [
        ("ami://u:s@10.0.0.1:5039/pbx1", AmiNode("pbx1", "10.0.0.1", 5039, "u", "s")),
        (
            "ami://u:s@pbx.example.org",
            AmiNode("pbx.example.org", "pbx.example.org", 5038, "u", "s"),
        ),
        ("ami://u%3A1:a%2Cb%40%25@h/n", AmiNode("n", "h", 5038, "u:1", "a,b@%")),
        ("ami://u:p@ss/w:rd#?@h:1/n", AmiNode("n", "h", 1, "u", "p@ss/w:rd#?")),
        ("ami://u:s@[::1]:5040/n", AmiNode("n", "::1", 5040, "u", "s")),
        ("ami://u:s@[::1]", AmiNode("::1", "::1", 5038, "u", "s")),
    ],
)
def test_an_ami_url(url: str, node: AmiNode) -> None:
    assert parse_ami_url(url) == node


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:geheim@h", "does not start with ami://"),
        ("ami://h:5038/n", "no login"),
        ("ami://u@h", "no user or no secret"),
        ("ami://:geheim@h", "no user or no secret"),
        ("ami://u:@h", "no user or no secret"),
        ("ami://u:geheim@", "no valid host"),
        ("ami://u:geheim@h h", "no valid host"),
        ("ami://u:geheim@[zz]", "no valid host"),
        ("ami://u:geheim@h:0", "port"),
        ("ami://u:geheim@h:65536", "port"),
        ("ami://u:geheim@h:geheim", "port"),
        ("ami://u:geheim@h:", "port"),
        ("ami://u:geheim@h:9999999999", "port"),
        ("ami://u:geheim@h/", "name"),
        ("ami://u:geheim@h/a b", "name"),
        ("ami://u:geheim@h/n?x=geheim", "name"),
        ("ami://u:geheim%0d%0aAction: X@h", "control character"),
        ("ami://u:geheim%ff@h", "percent-encoded"),
    ],
)
def test_a_wrong_ami_url_is_explained_without_its_secret(url: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        parse_ami_url(url)
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_node_does_not_show_its_secret() -> None:
    assert "geheim" not in repr(AmiNode("n", "h", 1, "u", "geheim"))
