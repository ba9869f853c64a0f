"""The open calls that a batch works on, found by what an event says of them."""

from __future__ import annotations

from collections.abc import Iterable

from astcredit.domain.books import OpenCall
from astcredit.domain.states import CallState
from astcredit.service.ports import Channel


class OpenCalls:
    """The open calls of a batch, by id and by the channels that they have."""

    def __init__(self, calls: Iterable[OpenCall]) -> None:
        self._by_id: dict[str, OpenCall] = {}
        self._ids_by_channel: dict[Channel, list[str]] = {}
        for call in calls:
            self.put(call)

    def put(self, call: OpenCall) -> None:
        """Add a call, or what has become of it."""
        self._by_id[call.call_id] = call
        for uniqueid in (call.uniqueid, call.leg_uniqueid):
            if uniqueid:
                ids = self._ids_by_channel.setdefault(Channel(call.node, uniqueid), [])
                if call.call_id not in ids:
                    ids.append(call.call_id)

    def remove(self, call: OpenCall) -> None:
        """Take out a call that has ended."""
        del self._by_id[call.call_id]

    def get(self, call_id: str) -> OpenCall | None:
        """The call of that id, if it is open."""
        return self._by_id.get(call_id)

    def of_channel(self, channel: Channel) -> list[OpenCall]:
        """The open calls whose calling channel or answered leg this is, oldest first."""
        ids = sorted(self._ids_by_channel.get(channel, ()))
        return [self._by_id[call_id] for call_id in ids if call_id in self._by_id]

    def meant(self, call_id: str, caller: Channel) -> OpenCall | None:
        """The call named by its id, and no other; without an id the newest of the channel.

        A channel may make one call after the other: an event that comes late or twice for the
        first must not be taken for the second.
        """
        if call_id:
            return self._by_id.get(call_id)
        made = (call for call in self.of_channel(caller) if call.uniqueid == caller.uniqueid)
        return max(made, key=lambda call: call.call_id, default=None)

    def before(self, call: OpenCall, caller: Channel) -> list[OpenCall]:
        """The open calls, not known to be answered, that the channel `caller` made before `call`;
        none if it did not make `call`."""
        made = [c for c in self.of_channel(caller) if c.uniqueid == caller.uniqueid]
        if call not in made:
            return []
        return [c for c in made if c.call_id < call.call_id and c.state is CallState.OPEN]
