"""Errors that cross layers.

AstcreditError
├── RefusedError          the user asked for something that cannot be done; the text is for them
└── StorageError          the database
    ├── TransientError    may pass: deadlock, lost connection, full disk; nothing was committed
    │   └── Outdated      what was taken for granted was not so; nothing was committed
    ├── CommitUnknown     the connection was lost at COMMIT: it may or may not have happened
    └── PoisonError       the data of some operation in the transaction is not acceptable
"""

from __future__ import annotations


class AstcreditError(Exception):
    """Base of all errors that astcredit raises on purpose."""


class RefusedError(AstcreditError):
    """A request of a person that cannot be carried out. One line, names value and expectation."""


class StorageError(AstcreditError):
    """The database did not do what was asked."""


class TransientError(StorageError):
    """A failure before COMMIT that blames no value: deadlock, lost connection, full disk."""


class Outdated(TransientError):  # noqa: N818 - a state of knowledge, as the next one
    """A row is not what it was taken for (`Wanted.guess`)."""


class CommitUnknown(StorageError):  # noqa: N818 - it is a state of knowledge, not a fault
    """The connection was lost while COMMIT was under way."""


class PoisonError(StorageError):
    """The database refuses the data of at least one operation in the transaction."""
