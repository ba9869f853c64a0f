"""Blocked prefixes: whom they stop, and whom not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.blocks import Block, Blocks

PREMIUM, CUBA = Block("4490"), Block("53")
MINE, WIDE = Block("449", 1), Block("1", 2)
BLOCKS = Blocks([PREMIUM, CUBA, MINE, WIDE, Block("44901", 3)])


@pytest.mark.parametrize(
    ("number", "client_id", "found"),
    [
        ("449012345", 2, PREMIUM),  # everybody's
        ("4490", 2, PREMIUM),  # the prefix itself
        ("449", 2, None),  # shorter than it
        ("44812345", 2, None),
        ("5312345", 1, CUBA),
        ("44912345", 1, MINE),  # only this client's
        ("44912345", 2, None),
        ("12025550123", 2, WIDE),
        ("12025550123", 1, None),
        ("449012345", 1, MINE),  # several apply: the shortest is named
        ("449012345", 3, PREMIUM),
        ("", 1, None),
        ("0449012345", 1, None),  # a block is looked for at the beginning
    ],
)
def test_who_is_stopped_by_what(number: str, client_id: int, found: Block | None) -> None:
    assert BLOCKS.find(number, client_id) == found


def test_everybodys_block_is_named_before_the_clients_own() -> None:
    both = Blocks([Block("44", 1), Block("44")])
    assert both.find("441", 1) == Block("44")


def test_without_blocks_nothing_is_stopped() -> None:
    assert Blocks().find("442071234567", 1) is None
    assert len(Blocks()) == 0


def test_a_block_that_stands_there_twice_is_one() -> None:
    """NULL is not equal to NULL in a unique key: the table can have it twice."""
    assert len(Blocks([CUBA, CUBA])) == 1


digits = st.text("12", max_size=4)


@given(
    blocks=st.lists(
        st.builds(Block, digits.filter(bool), st.sampled_from([None, 1, 2])), max_size=9
    ),
    number=digits,
    client_id=st.sampled_from([1, 2, 3]),
)
def test_it_is_what_looking_at_each_one_finds(
    blocks: list[Block], number: str, client_id: int
) -> None:
    meets = [b for b in blocks if number.startswith(b.prefix) and b.client_id in (None, client_id)]
    found = Blocks(blocks).find(number, client_id)
    assert (found in meets) if meets else (found is None)
    assert found is None or len(found.prefix) == min(len(b.prefix) for b in meets)
