"""Drivers' errors stop here: the other layers know the kinds of `StorageError`, not forty codes."""

from __future__ import annotations

from typing import cast

import pymysql
from pymysql.err import MySQLError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from astcredit.service.errors import (
    CommitUnknown,
    Outdated,
    PoisonError,
    StorageError,
    TransientError,
)
from astcredit.storage.proofs import OUTDATED_CODE
from astcredit.storage.wire import StatementFailed

# MariaDB and MySQL error codes after which the connection is gone, and with it the answer to
# what was under way.
LOST_CODES = frozenset({2002, 2003, 2006, 2013, 2014, 2055, 1927, 4031})

# Codes of a server that works and is of no use: another one of its cluster may be.
ELSEWHERE_CODES = frozenset(
    {
        1047,  # Galera: cut off from the majority, or not up to date yet
        1290,  # read only: group replication's secondaries, and members without a majority
        1836,  # read only
    }
)

# Codes after which a COMMIT is known not to have happened. Whatever else a server answers to a
# COMMIT leaves it open: a member of a cluster that is cut off while it asks the others says
# "error during commit", and the others may have taken it.
ROLLED_BACK_CODES = frozenset(
    {
        1213,  # deadlock; Galera: the same rows were changed through another server
        3101,  # MySQL group replication: the same
        9007,  # TiDB: the same
    }
)

# Codes that blame a value. pymysql calls some of them OperationalError.
POISON_CODES = frozenset(
    {
        1048,  # NULL where none may be
        1153,  # more than max_allowed_packet: not the value's fault, but half of it may pass
        1062,  # duplicate key
        1264,  # out of range
        1292,  # no such time
        1366,  # not a number, or not a text of this character set
        1406,  # too long
    }
)


def is_lost(error: BaseException) -> bool:
    """Whether the connection went away, and with it the answer to what was under way."""
    if isinstance(error, TimeoutError | OSError | MySQLError):
        return True  # the driver's own error, of no statement: it could not connect or go on
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return error_code(error) in LOST_CODES


def is_elsewhere(error: BaseException) -> bool:
    """Whether the server cannot do it, but another one of its cluster may."""
    return error_code(error) in ELSEWHERE_CODES


def translate(error: Exception, *, committing: bool) -> StorageError:
    """The StorageError for a driver's, SQLAlchemy's or the network's error."""
    text = _text(error)
    if error_code(error) == OUTDATED_CODE:
        return Outdated(text)
    if _blames_value(error) and not is_lost(error):
        return PoisonError(text)
    if committing and not _rolled_back(error):
        return CommitUnknown(text)
    # Whatever does not blame a value may pass: no ending is given up because a disk is full, a
    # password was changed or a table is being restored.
    return TransientError(text)


def _blames_value(error: Exception) -> bool:
    if isinstance(error, IntegrityError | DataError):
        return True
    if isinstance(_cause(error), pymysql.IntegrityError | pymysql.DataError):
        return True
    return error_code(error) in POISON_CODES


def _rolled_back(error: Exception) -> bool:
    return error_code(error) in ROLLED_BACK_CODES


def error_code(error: BaseException) -> int:
    """The server's error code, or 0."""
    arguments = _cause(error).args
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _cause(error: BaseException) -> BaseException:
    """What the driver said, without what was wrapped around it."""
    if isinstance(error, StatementFailed):
        return cast(BaseException, error.error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _text(error: Exception) -> str:
    """One line without the statement: its parameters are callers' numbers."""
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    cause = _cause(error)
    return " ".join(f"{type(cause).__name__}: {cause}".split())


DRIVER_ERRORS = (SQLAlchemyError, MySQLError, StatementFailed, OSError, TimeoutError)
"""What `translate` is for."""
