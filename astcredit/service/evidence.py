"""Asterisk's records of the calls in doubt: collected as they are read, then asked about a call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from astcredit.domain.correction import CallInDoubt
from astcredit.domain.witness import (
    AsteriskRecord,
    ChannelCall,
    Unclear,
    Witness,
    call_of,
    witness_of,
)


class Evidence:
    """What Asterisk's records say of calls. Keeps the records of these calls only.

    `names` are the uniqueids and channels of which records are wanted; it grows by the legs that
    were answered, for a leg that was transferred goes on under its own name.
    """

    def __init__(self, calls: Iterable[CallInDoubt]) -> None:
        # Files without uniqueids are matched by the channel's name, which is used again when
        # Asterisk has started anew: several channels, of different times, may have had it.
        self._uniqueids: dict[str, set[str]] = {}
        for call in calls:
            for name in filter(None, (call.uniqueid, call.channel)):
                self._uniqueids.setdefault(name, set()).add(call.uniqueid)
        self.names: set[str] = set(self._uniqueids)
        # As dictionaries: files that overlap have the same record twice.
        self._records: dict[str, dict[AsteriskRecord, None]] = {}
        self._of_legs: dict[str, dict[AsteriskRecord, None]] = {}

    def add(self, record: AsteriskRecord) -> None:
        """Take a record."""
        for uniqueid in self._uniqueids.get(record.key, ()):
            self._records.setdefault(uniqueid, {})[record] = None
            if record.answered:
                self._of_legs.setdefault(record.dstchannel, {})
                self.names.add(record.dstchannel)
        for name in (record.channel, record.dstchannel):
            if name in self._of_legs:
                self._of_legs[name][record] = None

    @property
    def uniqueids(self) -> Collection[str]:
        """The calling channels of which there are records."""
        return self._records.keys()

    def of(self, call: CallInDoubt, made: Sequence[ChannelCall]) -> Witness | Unclear | None:
        """What the records say of a call; None if there are none of it. `made` are all calls that
        its channel made, oldest first."""
        instants = [other.created_at_ms for other in made]
        read = [record.near(instants) for record in self._records.get(call.uniqueid, ())]
        of_channel = [
            record for record in read if record.uniqueid or any(map(record.covers, instants))
        ]
        mine = [record for record in of_channel if call_of(record, made) == call.call_id]
        if not mine:
            return None
        return witness_of(call.created_at_ms, mine, self._of_legs)
