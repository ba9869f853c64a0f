"""The rates of a rate table in arrays of machine numbers, in an order in which a number is found
with one bisection.

Rates are in the order of their prefixes as texts, those of one prefix from old to new. In it the
longest prefix that a number begins with is either the last one that does not come after the number,
or one that that prefix begins with itself. So each rate is linked to the one to be looked at
after it: the next older of its prefix, then the newest of the next shorter prefix that it begins
with. From the place that the bisection finds, a look-up follows the links; they are as many as
prefixes of one number are in the table, at most.

A million rates take 35 MB and the names of their destinations.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from astcredit.domain.rate_columns import BEGIN, UNTIL, RateColumns, RateRow, Terms, known_rate

NO_ROW: Final = -1

# Prefixes are compared as integers, padded with zeros on the right to so many digits: what an
# unsigned integer of 64 bits holds.
_KEY_DIGITS: Final = 19

# Of a prefix of twenty digits the last one does not fit. It is kept where others have their length:
# the digit and this. Those with the same key are linked to one another as if each began with
# the one before.
_LAST_DIGIT: Final = _KEY_DIGITS + 1

_STEPS: Final = (*(10 ** (_KEY_DIGITS - length) for length in range(_LAST_DIGIT)), *(1,) * 10)
"""What the last digit of a prefix counts in a key, by the length or by what stands in its place."""

# Texts that are remembered while a table is filled, so that a name that comes again is kept once.
# Prefixes of one destination are neighbours, so more would hardly save any.
_MOST_REMEMBERED: Final = 20_000

# A text is known by one number: its place, and its length in so many bits below it.
_LENGTH_BITS: Final = 24
_LENGTH_MASK: Final = (1 << _LENGTH_BITS) - 1

_T = TypeVar("_T")


class RateIndex:
    """Rates, found by number. `add` all of them, `seal` it; from then on it does not change and
    is safe from any thread."""

    __slots__ = (
        "_after",
        "_begun",
        "_destinations",
        "_keys",
        "_last",
        "_names",
        "_per_minute",
        "_tails",
        "_terms",
        "_terms_known",
    )

    def __init__(self) -> None:
        self._keys: Final = array("Q")
        self._tails: Final = bytearray()
        self._after: Final = array("i")
        self._per_minute: Final = array("q")
        self._terms: Final = array("i")
        self._terms_known: Final = _Pool[Terms]()
        self._destinations: Final = array("Q")
        self._names: Final = _Names()
        # The prefixes that the last one begins with, and itself, with their newest rows.
        self._begun: Final[list[tuple[str, int]]] = []
        self._last = ("", 0)

    def __len__(self) -> int:
        """Number of rates."""
        return len(self._tails)

    def add(self, columns: RateColumns) -> None:
        """Add rates; they must come by prefix, those of one prefix by their beginning.

        Some microseconds each: add some hundred at a time where something else must not wait.
        Raises ValueError for a rate that is none or comes out of order.
        """
        columns.check()
        self._link(columns)
        prefixes = columns.prefixes
        self._keys.extend(
            [int(prefix[:_KEY_DIGITS].ljust(_KEY_DIGITS, "0")) for prefix in prefixes]
        )
        self._tails.extend(map(_tail, prefixes))
        self._per_minute.extend(columns.per_minute)
        self._terms.extend(map(self._terms_known.number, columns.terms))
        self._destinations.extend(map(self._names.place, columns.destinations))

    def seal(self) -> None:
        """Free what only `add` needs."""
        self._begun.clear()
        self._terms_known.seal()
        self._names.seal()

    def _link(self, columns: RateColumns) -> None:
        begun, after, row = self._begun, self._after, len(self)
        last = self._last
        for prefix, begin in zip(columns.prefixes, columns.begins(), strict=True):
            if (prefix, begin) < last:
                raise ValueError(f"prefix: {prefix!r}: expected the rates in order")
            if prefix == last[0]:
                after.append(row - 1)
                begun[-1] = (begun[-1][0], row)
            else:
                while begun and not prefix.startswith(begun[-1][0]):
                    begun.pop()
                after.append(begun[-1][1] if begun else NO_ROW)
                begun.append((prefix[:_KEY_DIGITS], row))
            last = (prefix, begin)
            row += 1
        self._last = last

    def find(self, number: str, now_ms: int) -> int:
        """The row of the rate that applies to calls to a number that begin at an instant, NO_ROW if
        there is none: the first one in force of those that are `matching`, found faster."""
        if not (number.isascii() and number.isdigit()):
            return NO_ROW
        keys, tails, digits = self._keys, self._tails, len(number)
        key = int(number[:_KEY_DIGITS].ljust(_KEY_DIGITS, "0"))
        row = bisect_right(keys, key) - 1
        while row != NO_ROW:
            tail = tails[row]
            if key - key % _STEPS[tail] == keys[row] and (
                tail <= digits if tail < _LAST_DIGIT else _ends(number, tail)
            ):
                terms = self._terms_known[self._terms[row]]
                until = terms[UNTIL]
                if terms[BEGIN] <= now_ms and (until is None or now_ms < until):
                    return row
            row = self._after[row]
        return NO_ROW

    def matching(self, number: str) -> Iterator[int]:
        """The rows whose prefix begins a number: the longest prefix first, of one prefix the
        newest. A number of other than ASCII digits has none."""
        if not (number.isascii() and number.isdigit()):
            return
        key = int(number[:_KEY_DIGITS].ljust(_KEY_DIGITS, "0"))
        row = bisect_right(self._keys, key) - 1
        while row != NO_ROW:
            if number.startswith(self._prefix(row)):
                yield row
            row = self._after[row]

    def rate(self, row: int, number: str) -> RateRow:
        """The row's rate as it was added; `number` is one that it matches."""
        return known_rate(
            number[: min(self._tails[row], _LAST_DIGIT)],
            self._names[self._destinations[row]],
            self._per_minute[row],
            self._terms_known[self._terms[row]],
        )

    def _prefix(self, row: int) -> str:
        key, tail = f"{self._keys[row]:0{_KEY_DIGITS}}", self._tails[row]
        return key[:tail] if tail < _LAST_DIGIT else f"{key}{tail - _LAST_DIGIT}"


def _ends(number: str, tail: int) -> bool:
    """Whether a number goes on with the last digit of a prefix of twenty, which fits so far."""
    return number[_KEY_DIGITS:_LAST_DIGIT] == str(tail - _LAST_DIGIT)


def _tail(prefix: str) -> int:
    """The length of a prefix, or what stands in its place."""
    length = len(prefix)
    return length if length <= _KEY_DIGITS else _LAST_DIGIT + int(prefix[_KEY_DIGITS])


class _Pool(Generic[_T]):
    """Values that repeat, kept once and known by their number."""

    __slots__ = ("_numbers", "_values")

    def __init__(self) -> None:
        self._values: Final[list[_T]] = []
        self._numbers: Final[dict[_T, int]] = {}

    def number(self, value: _T) -> int:
        """The number of `value`, a new one when it was not asked for before."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> _T:
        return self._values[number]

    def seal(self) -> None:
        """Forget the numbers of the values; none must be asked for any more."""
        self._numbers.clear()


class _Names:
    """Texts in one piece of memory, known by their place in it. One that comes again soon has the
    place that it had."""

    __slots__ = ("_places", "_texts")

    def __init__(self) -> None:
        self._texts = bytearray()
        self._places: Final[dict[str, int]] = {}

    def place(self, text: str) -> int:
        """Where the text is, and its length."""
        place = self._places.get(text)
        return self._put(text) if place is None else place

    def _put(self, text: str) -> int:
        encoded = text.encode("utf-8", "surrogatepass")[:_LENGTH_MASK]
        place = len(self._texts) << _LENGTH_BITS | len(encoded)
        self._texts += encoded
        if len(self._places) >= _MOST_REMEMBERED:
            self._places.clear()
        self._places[text] = place
        return place

    def __getitem__(self, place: int) -> str:
        begin = place >> _LENGTH_BITS
        end = begin + (place & _LENGTH_MASK)
        return self._texts[begin:end].decode("utf-8", "surrogatepass")

    def seal(self) -> None:
        """Forget the places; none must be asked for any more."""
        self._places.clear()
