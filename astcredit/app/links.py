"""The AMI links of a server process, and which Asterisk server is which."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from astcredit.app.clock import now_ms
from astcredit.app.intercom import Intercom
from astcredit.app.metrics import Metrics
from astcredit.asterisk.ami import (
    AmiError,
    AmiLink,
    AmiNode,
    AmiRejectedError,
    AmiTimes,
    parse_ami_url,
)
from astcredit.service.errors import AstcreditError, RefusedError
from astcredit.service.ports import LegEvents
from astcredit.service.recovery import Recovery

log = logging.getLogger(__name__)

DEFAULT_NODE = "default"
# A name server that does not answer must not keep the program from starting.
RESOLVE_SECONDS = 5.0
# A database that is down, or a list that was cut: asked again so soon.
RECOVERY_RETRY_SECONDS = 2.0
# How exactly it is known until when a call was up whose end nobody heard.
HEARD_SECONDS = 10.0


def parse_nodes(urls: Sequence[str]) -> tuple[AmiNode, ...]:
    """The nodes of the setting ami.nodes. Raises RefusedError; two nodes need two names."""
    nodes = tuple(parse_ami_url(url) for url in urls)
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise RefusedError(f"ami.nodes: two nodes are called {name!r}")
    return nodes


async def addresses_of(nodes: Sequence[AmiNode]) -> dict[str, str]:
    """Node by address, for connections that do not say which node they come from.

    Where several nodes have one address, the first is meant; the others' dialplans name theirs.
    """
    found: dict[str, str] = {}
    for node in nodes:
        for address in await _resolve(node.host):
            found.setdefault(address, node.name)
    return found


async def _resolve(host: str) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:  # a TimeoutError is one
        log.warning("AMI host not resolved", extra={"action": "ami_unresolved", "host": host})
        return []
    return [str(info[4][0]) for info in infos]


class ConfiguredLinks:
    """For a process without links of its own: the server that has them settles.

    Implements `astcredit.service.ports.Links`.
    """

    def __init__(self, nodes: Sequence[AmiNode], addresses: Mapping[str, str]) -> None:
        self._names = frozenset(node.name for node in nodes)
        self._addresses = addresses

    def configured(self, node: str) -> bool:
        """Whether there is an AMI link to that node."""
        return node in self._names

    def up(self, node: str) -> bool:
        """Taken for granted where one is configured: the listener is another process."""
        return self.configured(node)

    def node_of(self, address: str) -> str:
        """The node that has an address, else `default`."""
        return self._addresses.get(address, DEFAULT_NODE)


class AmiLinks(ConfiguredLinks):
    """The links of a process that listens to all of `nodes`.

    `on_state` is told each time that a node's link goes up or down.
    """

    def __init__(
        self,
        nodes: Sequence[AmiNode],
        addresses: Mapping[str, str],
        metrics: Metrics,
        times: AmiTimes | None = None,
        on_state: Callable[[str, bool], None] | None = None,
    ) -> None:
        super().__init__(nodes, addresses)
        self._nodes = nodes
        self._metrics = metrics
        self._times = times
        self._on_state = on_state
        self._links: dict[str, AmiLink] = {}
        self._recovery: Recovery | None = None
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._to_end: dict[str, set[str]] = {}
        self._looks = {node.name: asyncio.Event() for node in nodes}

    def up(self, node: str) -> bool:
        """Whether what happens on that node is heard now."""
        link = self._links.get(node)
        return link is not None and link.up

    @property
    def down(self) -> list[str]:
        """The nodes whose link is down."""
        return [node.name for node in self._nodes if not self.up(node.name)]

    def show_lag(self) -> None:
        """Let the metrics tell, whenever they are read, how far each listener is behind."""
        for name in (node.name for node in self._nodes):
            self._metrics.ami_behind.labels(name).set_function(partial(self._behind_seconds, name))
            self._metrics.ami_waiting.labels(name).set_function(partial(self._waiting_bytes, name))

    def _behind_seconds(self, node: str) -> float:
        link = self._links.get(node)
        return link.behind_seconds if link else 0.0

    def _waiting_bytes(self, node: str) -> float:
        link = self._links.get(node)
        return link.waiting_bytes if link else 0.0

    async def start(self, events: LegEvents, recovery: Recovery) -> None:
        """Connect to every node and keep connected; what is heard goes to `events`, and after
        each time of silence `recovery` finds out what was missed."""
        self._recovery = recovery
        for node in self._nodes:
            self._metrics.ami_up.labels(node.name).set(0)
            link = AmiLink(node, events, now_ms, times=self._times, on_change=self._changed)
            self._links[node.name] = link
            await link.start()

    async def end(self, node: str, uniqueid: str) -> None:
        """End a channel, if it is there; as soon as the server can be reached, if not now."""
        link = self._links.get(node)
        if link is None:  # not one of ours, or not started yet
            self._end_later(node, uniqueid)
            return
        extra = {"node": node, "uniqueid": uniqueid}
        try:
            if await link.hangup(uniqueid):
                log.warning("leg without money ended", extra={"action": "leg_ended", **extra})
        except AmiError as error:
            failed = {"action": "leg_not_ended", "error": str(error), **extra}
            log.error("leg without money not ended", extra=failed)
            if not isinstance(error, AmiRejectedError):
                self._end_later(node, uniqueid)

    def look(self, node: str) -> None:
        """Compare the open calls of a node with what lives there, as soon as its link is up."""
        if node in self._looks:
            self._looks[node].set()

    def _end_later(self, node: str, uniqueid: str) -> None:
        if self.configured(node):
            self._to_end.setdefault(node, set()).add(uniqueid)

    async def stop(self) -> None:
        """Close all links."""
        for task in self._keepers.values():
            task.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        await asyncio.gather(*(link.stop() for link in self._links.values()))

    def _changed(self, link: AmiLink) -> None:
        name = link.node.name
        self._metrics.ami_up.labels(name).set(1 if link.up else 0)
        if self._on_state is not None:
            self._on_state(name, link.up)
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.cancel()
        if link.up and self._recovery is not None:
            keep = self._keep_up_to_date(link, self._recovery)
            self._keepers[name] = asyncio.create_task(keep, name=f"recovery {name}")

    async def _keep_up_to_date(self, link: AmiLink, recovery: Recovery) -> None:
        """As long as the link is up: find out what was missed, then note what has been heard, and
        look again when asked to."""
        to_end = self._to_end.get(link.node.name, set())
        for uniqueid in sorted(to_end):
            to_end.discard(uniqueid)
            await self.end(link.node.name, uniqueid)
        look = self._looks[link.node.name]
        look.set()
        while True:
            if await _is_set(look, HEARD_SECONDS):
                look.clear()
                if not await _recovered(link, recovery):
                    look.set()
                    await asyncio.sleep(RECOVERY_RETRY_SECONDS)
            elif link.state.heard_until_ms is not None:
                recovery.heard(link.node.name, link.state.heard_until_ms)


class SharedLinks(ConfiguredLinks):
    """The links of a server of several processes, as one of them sees them: it has some of its
    own, for the others there is the intercom.

    Implements `astcredit.service.ports.Links` and `astcredit.service.controller.Legs`.
    """

    def __init__(
        self,
        nodes: Sequence[AmiNode],
        addresses: Mapping[str, str],
        own: AmiLinks,
        intercom: Intercom,
    ) -> None:
        super().__init__(nodes, addresses)
        self._own = own
        self._intercom = intercom

    def up(self, node: str) -> bool:
        """Whether what happens on that node is heard now, in whichever process."""
        return self._intercom.up(node)

    @property
    def down(self) -> list[str]:
        """The nodes whose link is down."""
        return self._intercom.down

    async def end(self, node: str, uniqueid: str) -> None:
        """End a channel, or let the listener do so."""
        if self._own.configured(node):
            await self._own.end(node, uniqueid)
        else:
            self._intercom.end(node, uniqueid)

    def look(self, node: str) -> None:
        """Compare the open calls of a node with what lives there, or let the listener do so."""
        if self._own.configured(node):
            self._own.look(node)
        else:
            self._intercom.look(node)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event is set, now or within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


async def _recovered(link: AmiLink, recovery: Recovery) -> bool:
    """Whether it was found out what was missed."""
    extra = {"action": "recovery_failed", "node": link.node.name}
    try:
        await recovery.recover(link.node.name, link)
    except AstcreditError as error:
        log.warning("recovery failed, it is tried again", extra={**extra, "error": str(error)})
    except Exception:
        # Without it calls would stay open, and nothing heard would be noted: never given up.
        log.exception("recovery failed, it is tried again", extra=extra)
    else:
        return True
    return False
