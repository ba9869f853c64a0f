"""Looks whether everything that the controller needs is there and works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import StrEnum

from astcredit.app.clock import now_ms
from astcredit.app.core import call_policy
from astcredit.app.links import parse_nodes
from astcredit.app.mailer import exposes_password, try_server
from astcredit.app.settings import Settings
from astcredit.asterisk.ami import AmiLink, AmiNode
from astcredit.asterisk.simulator import SimulatedChannel, SimulationError
from astcredit.domain.calls import ChannelEnded, LegAnswered
from astcredit.service.errors import AstcreditError, RefusedError, StorageError
from astcredit.storage.catalog import SqlCatalog
from astcredit.storage.database import Database, open_database
from astcredit.storage.schema import missing

# Asterisk answers a login within milliseconds; a name that does not resolve takes seconds.
AMI_SECONDS = 6.0
# A mail server may look up who asks before it greets.
MAIL_SECONDS = 15


class Verdict(StrEnum):
    """How a check came out. A warning does not keep calls from being controlled."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    detail: str


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Check settings, database, AMI links, mail server and the running server, one by one."""
    for finding in _settings(settings):
        yield finding
    database = open_database(settings.database.url)
    try:
        async for finding in _database(settings, database):
            yield finding
    finally:
        await database.close()
    async for finding in _nodes(settings):
        yield finding
    yield await _mail(settings)
    yield await _server(settings)


def _settings(settings: Settings) -> list[Finding]:
    path = settings.config_path
    source = f"read from {path}" if path else "no file: environment and defaults"
    findings = [Finding("settings", Verdict.OK, source)]
    try:
        call_policy(settings)
    except ValueError as error:
        findings.append(Finding("numbers", Verdict.ERROR, str(error)))
    return findings


async def _database(settings: Settings, database: Database) -> AsyncIterator[Finding]:
    try:
        lacking = await missing(database)
    except StorageError as error:
        yield Finding("database", Verdict.ERROR, f"{database.shown_url}: {error}")
        return
    yield Finding("database", Verdict.OK, database.shown_url)
    if lacking:
        yield Finding("schema", Verdict.ERROR, f"lacks {', '.join(lacking)}: run `astcredit init`")
        return
    yield Finding("schema", Verdict.OK, "up to date")
    yield await _catalog(settings, database)


async def _catalog(settings: Settings, database: Database) -> Finding:
    source = SqlCatalog(database, inline_rates=settings.catalog.inline_rates)
    try:
        catalog = await source.at_least(0)
    except (AstcreditError, ValueError) as error:
        return Finding("catalog", Verdict.ERROR, str(error))
    finally:
        await source.close()
    rates = sum(len(table) for table in catalog.rate_tables.values())
    unrated = [a.name for a in catalog.accounts.values() if catalog.rate_table_for(a) is None]
    detail = (
        f"{len(catalog.clients)} clients, {len(catalog.accounts)} accounts,"
        f" {len(catalog.rate_tables)} rate tables, {rates} rates"
    )
    if unrated:
        more = f" and {len(unrated) - 1} more" if len(unrated) > 1 else ""
        detail += f"; account {unrated[0]!r}{more} has no enabled rate table"
    return Finding("catalog", Verdict.WARNING if unrated else Verdict.OK, detail)


async def _nodes(settings: Settings) -> AsyncIterator[Finding]:
    try:
        nodes = parse_nodes(settings.ami.nodes)
    except RefusedError as error:
        yield Finding("ami", Verdict.ERROR, str(error))
        return
    if not nodes:
        yield Finding(
            "ami", Verdict.WARNING, "no node in ami.nodes: the hangup script settles every call"
        )
    for node in nodes:
        yield await _node(node)


async def _node(node: AmiNode) -> Finding:
    link = AmiLink(node, _Nobody(), now_ms)
    await link.start()
    try:
        async with asyncio.timeout(AMI_SECONDS):
            await link.wait_up()
        channels = len(await link.channels())
    except TimeoutError:
        why = link.state.reason or "no answer"
        return Finding(f"ami {node.name}", Verdict.ERROR, f"{node.host}:{node.port}: {why}")
    except AstcreditError as error:
        return Finding(f"ami {node.name}", Verdict.ERROR, str(error))
    finally:
        await link.stop()
    return Finding(
        f"ami {node.name}",
        Verdict.OK,
        f"Asterisk {link.state.version} since {link.state.asterisk_started}, {channels} channels",
    )


class _Nobody:
    """Hears the events of a link that is only tried."""

    def leg_answered(self, event: LegAnswered) -> None: ...

    def channel_ended(self, event: ChannelEnded) -> None: ...


async def _mail(settings: Settings) -> Finding:
    mail = settings.mail
    if mail.server is None:
        return Finding("mail", Verdict.WARNING, "no mail.server: notifications wait in the outbox")
    try:
        done = await try_server(replace(mail, timeout_seconds=MAIL_SECONDS))
    except AstcreditError as error:
        return Finding("mail", Verdict.ERROR, f"{mail.server}: {error}")
    if exposes_password(mail):
        detail = f"{mail.server}: the password goes over the network unencrypted: set mail.tls"
        return Finding("mail", Verdict.WARNING, detail)
    if not mail.admin:
        detail = f"{mail.server} {done}; mail.admin is empty: administrators are told nothing"
        return Finding("mail", Verdict.WARNING, detail)
    return Finding("mail", Verdict.OK, f"{mail.server} {done}")


async def _server(settings: Settings) -> Finding:
    host, port = settings.fastagi.listen
    channel = SimulatedChannel(host, port, f"doctor-{now_ms()}.1", "", "")
    try:
        await channel.run("balance")
    except SimulationError as error:
        return Finding("server", Verdict.WARNING, str(error))
    status = channel.variables.get("AC_STATUS", "")
    if status == "ERROR":
        reason = channel.variables.get("AC_REASON", "")
        return Finding("server", Verdict.ERROR, f"{host}:{port} answers ERROR: {reason}")
    return Finding("server", Verdict.OK, f"{host}:{port} answers")
