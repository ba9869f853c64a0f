"""The AMI links of a server process, and which Asterisk server is which."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence

from astcredit.app.clock import now_ms
from astcredit.app.metrics import Metrics
from astcredit.asterisk.ami import AmiLink, AmiNode, parse_ami_url
from astcredit.service.errors import RefusedError
from astcredit.service.ports import LegEvents

log = logging.getLogger(__name__)

DEFAULT_NODE = "default"
# A name server that does not answer must not keep the program from starting.
RESOLVE_SECONDS = 5.0


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
    """The links of the server process: each node is listened to."""

    def __init__(
        self, nodes: Sequence[AmiNode], addresses: Mapping[str, str], metrics: Metrics
    ) -> None:
        super().__init__(nodes, addresses)
        self._nodes = nodes
        self._metrics = metrics
        self._links: dict[str, AmiLink] = {}

    def up(self, node: str) -> bool:
        """Whether what happens on that node is heard now."""
        link = self._links.get(node)
        return link is not None and link.up

    @property
    def down(self) -> list[str]:
        """The nodes whose link is down."""
        return [node.name for node in self._nodes if not self.up(node.name)]

    async def start(self, events: LegEvents) -> None:
        """Connect to every node and keep connected; what is heard goes to `events`."""
        for node in self._nodes:
            self._metrics.ami_up.labels(node.name).set(0)
            link = AmiLink(node, events, now_ms, on_change=self._changed)
            self._links[node.name] = link
            await link.start()

    async def stop(self) -> None:
        """Close all links."""
        await asyncio.gather(*(link.stop() for link in self._links.values()))

    def _changed(self, link: AmiLink) -> None:
        self._metrics.ami_up.labels(link.node.name).set(1 if link.up else 0)
