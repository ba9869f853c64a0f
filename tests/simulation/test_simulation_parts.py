"""The parts of the simulation that must be right for the rest to mean anything."""

from __future__ import annotations

import asyncio

import pytest

from simulation.chance import Chance
from simulation.store import Locks
from simulation.tariffs import Tariff, tariff_of
from simulation.virtual_time import StuckError, VirtualLoop, run


def test_an_hour_passes_at_once_and_in_order() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        seen: list[str] = []

        async def after(seconds: float, name: str) -> None:
            await asyncio.sleep(seconds)
            seen.append(f"{name} {loop.time():.0f}")

        await asyncio.gather(after(3600, "late"), after(1, "early"), after(60, "between"))
        return seen

    assert run(main) == ["early 1", "between 60", "late 3600"]


def test_waiting_for_ever_is_an_error() -> None:
    async def main(loop: VirtualLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError):
        run(main)


def test_a_lock_has_one_holder_and_then_whoever_waited_first() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        locks, seen = Locks(), list[str]()

        async def hold(name: str, patience: float) -> None:
            holder = object()
            try:
                async with asyncio.timeout(patience):
                    await locks.take("row", holder)
            except TimeoutError:
                seen.append(f"{name} gave up")
                return
            seen.append(name)
            await asyncio.sleep(10)
            locks.release(holder, ["row"])

        await asyncio.gather(hold("first", 99), hold("hasty", 5), hold("third", 99))
        return seen

    assert run(main) == ["first", "hasty gave up", "third"]


@pytest.mark.parametrize(
    ("tariff", "seconds", "price"),
    [
        (Tariff("4", 60_000), 0, 0),
        (Tariff("4", 60_000), 1, 1_000),
        (Tariff("4", 60_001), 1, 1_001),
        (Tariff("4", 60_000, first=60, next=60), 61, 120_000),
        (Tariff("4", 60_000, fee=500, first=30, next=6), 31, 36_500),
        (Tariff("4", 60_000, grace=3), 3, 0),
        (Tariff("4", 60_000, grace=3), 4, 4_000),
        (Tariff("4", 60_000, minimum=30_000), 2, 30_000),
    ],
)
def test_the_auditor_can_count(tariff: Tariff, seconds: int, price: int) -> None:
    assert tariff.price(seconds) == price


def test_what_is_cut_late_is_not_charged() -> None:
    tariff = Tariff("4", 60_000)
    assert tariff.price_of_ms(10_004, 10) == tariff.price(10)
    assert tariff.price_of_ms(9_001, 10) == tariff.price(10)
    assert tariff.price_of_ms(9_000, 10) == tariff.price(9)


def test_the_longest_prefix_has_the_price() -> None:
    found = tariff_of("4912345")
    assert found is not None
    assert found.prefix == "49"
    assert tariff_of("99512345678") is None


def test_streams_of_chance_do_not_disturb_each_other() -> None:
    one, other = Chance(1).stream("a"), Chance(1).stream("b")
    first = [one.whole(0, 10**9) for _ in range(3)]
    assert first != [other.whole(0, 10**9) for _ in range(3)]
    again = Chance(1).stream("a")
    assert first == [again.whole(0, 10**9) for _ in range(3)]
