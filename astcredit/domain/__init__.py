"""The rules of rating, reservation and settlement: pure, no I/O, no clock.

Money is `int` micro-units of the client's currency (see `money`). An instant is `int`
milliseconds since 1970-01-01 UTC and its name ends in `_ms`, as does a duration in
milliseconds; whole seconds end in `_seconds`, or are called `seconds` or `billsec`.
"""
