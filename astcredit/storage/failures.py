"""Drivers' errors stop here: the other layers know the kinds of `StorageError`, not forty codes."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from astcredit.service.errors import CommitUnknown, PoisonError, StorageError, TransientError

# MariaDB and MySQL error codes after which the connection is gone, and with it the answer to
# what was under way.
LOST_CODES = frozenset({2002, 2003, 2006, 2013, 2014, 2055, 1927, 4031})

# Codes that blame a value. pymysql calls some of them OperationalError.
POISON_CODES = frozenset(
    {
        1048,  # NULL where none may be
        1062,  # duplicate key
        1264,  # out of range
        1292,  # no such time
        1366,  # not a number, or not a text of this character set
        1406,  # too long
    }
)


def is_lost(error: BaseException) -> bool:
    """Whether the connection went away, so that the outcome of a COMMIT is not known."""
    if isinstance(error, TimeoutError | OSError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or error_code(error) in LOST_CODES


def translate(error: Exception, *, committing: bool) -> StorageError:
    """The StorageError for a driver's, SQLAlchemy's or the network's error."""
    text = _text(error)
    if is_lost(error):
        return CommitUnknown(text) if committing else TransientError(text)
    # Whatever does not blame a value may pass: no ending is given up because a disk is full, a
    # password was changed or a table is being restored.
    return PoisonError(text) if _blames_value(error) else TransientError(text)


def _blames_value(error: Exception) -> bool:
    if isinstance(error, IntegrityError | DataError):
        return True
    return isinstance(error, DBAPIError) and error_code(error) in POISON_CODES


def error_code(error: DBAPIError) -> int:
    """The server's error code, or 0."""
    arguments = error.orig.args if error.orig is not None else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _text(error: Exception) -> str:
    """One line without the statement: its parameters are callers' numbers."""
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())


DRIVER_ERRORS = (SQLAlchemyError, OSError, TimeoutError)
"""What `translate` is for."""
