"""Several statements in one packet: what is sent is what was meant, and answers are read however
they are cut."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pymysql.err import InternalError, MySQLError

from astcredit.service.errors import CommitUnknown, PoisonError, TransientError
from astcredit.storage.database import Database
from astcredit.storage.sessions import Question, WireSession
from astcredit.storage.sql import FEW_ROWS, MySql, Value
from astcredit.storage.wire import AnswersParser, Row, literals
from support.core import opened, seed
from support.databases import MariaDb

MORE = 0x0008
OK, EOF = 0x00, 0xFE


def packed(payloads: Sequence[bytes]) -> bytes:
    """The packets that a server sends after a query."""
    headed = (
        len(payload).to_bytes(3, "little") + bytes([number % 256]) + payload
        for number, payload in enumerate(payloads, 1)
    )
    return b"".join(headed)


def sized(text: str | None) -> bytes:
    if text is None:
        return b"\xfb"
    data = text.encode()
    if len(data) < 251:
        return bytes([len(data)]) + data
    if len(data) < 1 << 16:
        return b"\xfc" + len(data).to_bytes(2, "little") + data
    return b"\xfd" + len(data).to_bytes(3, "little") + data


def answer(rows: Sequence[Row] | None, status: int) -> list[bytes]:
    """The packets of one answer: rows, or OK where there are none to return."""
    if rows is None:
        return [struct.pack("<BBBHH", OK, 0xFC & 0x01, 0, status, 0)]
    end = struct.pack("<BHH", EOF, 0, status)
    columns = len(rows[0]) if rows else 2
    described = [b"\x03def" + bytes(20)] * columns
    return [bytes([columns]), *described, end, *(b"".join(map(sized, row)) for row in rows), end]


texts = st.one_of(st.none(), st.text(max_size=30), st.just("long" * 100), st.just("ü" * 40_000))
answers = st.lists(
    st.one_of(
        st.none(),
        st.integers(1, 4).flatmap(
            lambda columns: st.lists(
                st.lists(texts, min_size=columns, max_size=columns), max_size=4
            )
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(answers, st.lists(st.integers(1, 5_000), max_size=20))
def test_answers_are_read_however_they_are_cut(
    sent: list[list[list[str | None]] | None], cuts: list[int]
) -> None:
    last = len(sent) - 1
    packets = [p for n, rows in enumerate(sent) for p in answer(rows, MORE if n < last else 0)]
    stream = packed(packets)
    parser, position, done = AnswersParser(), 0, False
    for cut in [*cuts, len(stream)]:
        assert not done
        done = parser.feed(stream[position : position + cut])
        position += cut
        if position >= len(stream):
            break
    assert done
    assert parser.error is None
    assert parser.rows == [rows or [] for rows in sent]


@given(st.binary(max_size=60), st.binary(max_size=60))
@example(b"\x01\0\0\1\0", b"")
@example(b"\x02\0\0\1\xff\0", b"")
def test_what_is_no_answer_is_an_error_and_never_another(one: bytes, other: bytes) -> None:
    parser = AnswersParser()
    try:
        if not parser.feed(one):
            parser.feed(other)
    except InternalError:
        pass
    else:
        assert parser.error is None or isinstance(parser.error, MySQLError)


@pytest.mark.parametrize(
    ("server", "word", "compound"),
    [
        ("5.5.5-10.11.6-MariaDB-0+deb12u1", "", True),
        ("11.4.2-MariaDB", "", True),
        ("5.5.5-10.2.44-MariaDB", None, True),
        ("10.0.38-MariaDB", None, False),
        ("8.0.36", "ROW", False),
        ("8.0.18", None, False),
        ("5.7.44-log", None, False),
        ("8.0.11-TiDB-v7.5.0", None, False),
        ("", None, False),
    ],
)
def test_what_a_server_can_do(server: str, word: str | None, compound: bool) -> None:
    sql = MySql()
    sql.meet(server)
    assert sql.row_word == word
    assert len(sql.silently(["DELETE FROM a", "DELETE FROM b"])) == (1 if compound else 2)


@pytest.mark.parametrize(
    ("server", "begin"),
    [
        ("11.4.2-MariaDB", "SET STATEMENT foreign_key_checks = 0 FOR INSERT INTO astaccount"),
        ("8.0.36", "INSERT /*+ SET_VAR(foreign_key_checks = OFF) */ INTO astaccount"),
    ],
)
def test_children_are_inserted_without_a_look_at_their_parents(server: str, begin: str) -> None:
    sql = MySql()
    sql.meet(server)
    statement, values = sql.insert_children(
        "astaccount", ["name", "client_id"], [("a", 1), ("b", 2)]
    )
    assert statement == f"{begin} (name, client_id) VALUES (%s, %s), (%s, %s)"
    assert values == ("a", 1, "b", 2)


def test_sessions_share_a_connection_until_it_is_lost(mariadb: MariaDb, mariadb_url: str) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as database:
            numbers = [(await ask(database, "SELECT CONNECTION_ID()"))[0][0] for _ in range(3)]
            assert len(set(numbers)) == 1
            mariadb.execute(f"KILL {numbers[0]}")
            with pytest.raises(TransientError):
                await ask(database, "SELECT 1")
            assert (await ask(database, "SELECT CONNECTION_ID()"))[0][0] != numbers[0]

    asyncio.run(main())


def test_two_sessions_at_once_have_two_connections(mariadb_url: str) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as database:
            async with database.session() as one:
                ours = await one.ask(Question("SELECT CONNECTION_ID()", (), list))
                theirs = await ask(database, "SELECT CONNECTION_ID()")
            assert ours != [theirs]

    asyncio.run(main())


async def ask(database: Database, statement: str, *values: Value) -> list[Row]:
    async with database.session() as session:
        (rows,) = await session.ask(Question(statement, values, list))
    found: list[Row] = rows
    return found


NODE_HEARD = "INSERT INTO astnode (name, heard_until) VALUES ('x', '2026-01-01')"


async def write(database: Database, *statements: str) -> None:
    async with database.session() as session:
        for statement in statements:
            await session.run(statement, ())


ODD = ["'", "\\", "\\'", '"', "%s", "%", ";", "--", "\n\r\t\x00\x1a", "é€😀", "'; DROP TABLE t; --"]


def test_every_text_arrives_as_it_was(mariadb_url: str) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as database:
            for text in [*ODD, "".join(ODD), *map(chr, range(1, 256))]:
                assert await ask(database, "SELECT %s, %s", text, 7) == [[text, "7"]], repr(text)
            assert await ask(database, "SELECT %s, 'x'", None) == [[None, "x"]]

    asyncio.run(main())


@given(st.text())
def test_a_literal_has_no_way_out(text: str) -> None:
    (written,) = literals([text])
    assert written[0] == written[-1] == "'"
    inside = written[1:-1].replace("\\\\", "").replace("\\'", "")
    assert "'" not in inside
    assert not inside.endswith("\\")


@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS, FEW_ROWS + 1, 300])
@pytest.mark.parametrize("both", ["union", "values"])
def test_rows_are_written_changed_and_deleted_by_their_keys(
    mariadb_url: str, both: str, rows: int
) -> None:
    """In whichever form, and a server that cannot do the shorter one gets the longer: they mean the
    same, and leave other rows alone."""
    keys = [f"k{n}" for n in range(rows)]
    texts = [None, "", "long" * 9, "it's"]
    changed = [(k, n, texts[n % 4], "same") for n, k in enumerate(keys)]
    told = [[k, str(n), text, same] for k, n, text, same in changed]

    async def main() -> None:
        async with opened(mariadb_url) as database:
            sql = MySql()
            sql.row_word = "" if both == "values" else None
            every = Question("SELECT k, a, b, c FROM t ORDER BY LENGTH(k), k", (), list)
            async with database.session() as session:
                await session.run(
                    "CREATE TEMPORARY TABLE t (k CHAR(9) PRIMARY KEY, a INT, b TEXT, c TEXT)", ()
                )
                before = [(k, -1, "", "") for k in (*keys, "other")]
                await session.run(*sql.insert_wide("t", ("k", "a", "b", "c"), before))
                await session.run(*sql.update_many("t", "k", ("a", "b", "c"), changed))
                assert await session.ask(every) == [[*told, ["other", "-1", "", ""]]]
                await session.run(sql.delete_many("t", "k", rows), keys)
                assert await session.ask(every) == [[["other", "-1", "", ""]]]
                await session.run(*sql.insert_wide("t", ("k", "a", "b", "c"), changed))
                assert await session.ask(every) == [[*told, ["other", "-1", "", ""]]]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO astnode (name, heard_until) VALUES ('a', 'no time')", PoisonError),
        ("SELECT 1 FROM no_such_table", TransientError),
        ("KILL CONNECTION CONNECTION_ID()", TransientError),
    ],
)
def test_a_statement_that_is_refused_before_commit_is_known_not_to_be_booked(
    mariadb_url: str, statement: str, error: type[Exception]
) -> None:
    """They travel together; the server's word tells which of them it was."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database)
            with pytest.raises(error):
                await write(database, NODE_HEARD, statement)
            assert await ask(database, "SELECT COUNT(*) FROM astnode") == [["0"]]

    asyncio.run(main())


def test_a_transaction_that_has_ended_early_is_noticed(mariadb_url: str) -> None:
    """Another server of a cluster may undo it between two statements, and no error says so."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database)
            with pytest.raises(CommitUnknown, match="ended early"):
                await write(database, "ROLLBACK", NODE_HEARD)
            with pytest.raises(TransientError, match="ended early"):
                await ask_after(database, "ROLLBACK")

    asyncio.run(main())


async def ask_after(database: Database, statement: str) -> None:
    async with database.session() as session:
        await session.run(statement, ())
        await session.ask(Question("SELECT 1", (), list))


@pytest.mark.parametrize("together", [True, False])
def test_statements_go_alone_where_a_cluster_may_undo_them(
    mariadb_url: str, together: bool
) -> None:
    """And mean the same."""

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database)
            async with database.session() as session:
                assert isinstance(session, WireSession)
                session.connection.together = together
                await session.run(NODE_HEARD, ())
                count = Question("SELECT COUNT(*) FROM astnode", (), list)
                assert await session.ask(count, count) == [[["1"]], [["1"]]]
            with pytest.raises(PoisonError):
                await write(database, NODE_HEARD)
            assert await ask(database, "SELECT name FROM astnode") == [["x"]]

    asyncio.run(main())


def test_what_is_written_and_nothing_asked_is_booked(mariadb_url: str) -> None:
    async def main() -> None:
        async with opened(mariadb_url) as database:
            await seed(database)
            await write(database, NODE_HEARD)
            assert await ask(database, "SELECT name FROM astnode") == [["x"]]

    asyncio.run(main())
