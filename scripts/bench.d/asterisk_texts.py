"""What Asterisk 22 writes to a controller, as bytes with places to fill: AGI requests and replies,
manager events, answers to manager actions.

Taken from what an Asterisk 22.10 sent (tests/asterisk/events, res_agi.c), header by header, for a
reader's cost is in the headers that it does not want.
"""

from __future__ import annotations

REQUEST = b"""agi_network: yes
agi_network_script: authorize
agi_request: agi://127.0.0.1:4573/authorize
agi_channel: PJSIP/%(account)b-%(serial)08x
agi_language: en
agi_type: PJSIP
agi_uniqueid: %(uniqueid)b
agi_version: 22.10.1
agi_callerid: 4930123456
agi_calleridname: unknown
agi_callingpres: 0
agi_callingani2: 0
agi_callington: 0
agi_callingtns: 0
agi_dnid: %(number)b
agi_rdnis: unknown
agi_context: customers
agi_extension: %(number)b
agi_priority: 4
agi_enhanced: 0.0
agi_accountcode: %(account)b
agi_threadid: 140609853802176
agi_arg_1: %(number)b
agi_arg_2: 
agi_arg_3: 
agi_arg_4: 192.0.2.7:5060
agi_arg_5: %(uniqueid)b

"""  # noqa: W291 - an empty argument is a blank and nothing, as dialplan/astcredit.conf makes it
"""The block that begins an AGI connection."""

SET = b"200 result=0\n"
"""The reply to EXEC MSet."""
UNKNOWN_COMMAND = b"510 Invalid or unknown command\n"

_CALLER = b"""Channel: PJSIP/%(account)b-%(serial)08x
ChannelState: %(state)d
ChannelStateDesc: %(desc)b
CallerIDNum: 4930123456
CallerIDName: <unknown>
ConnectedLineNum: %(number)b
ConnectedLineName: <unknown>
Language: en
AccountCode: %(account)b
Context: customers
Exten: %(number)b
Priority: 9
Uniqueid: %(uniqueid)b
Linkedid: %(uniqueid)b
ChanVariable: AC_CALL=%(call)b
ChanVariable: AC_LEG=
"""

_LEG = b"""Channel: PJSIP/carrier-%(serial)08x
ChannelState: %(legstate)d
ChannelStateDesc: %(legdesc)b
CallerIDNum: %(number)b
CallerIDName: <unknown>
ConnectedLineNum: 4930123456
ConnectedLineName: <unknown>
Language: en
AccountCode: %(account)b
Context: from-carrier
Exten: 
Priority: 1
Uniqueid: %(leg)b
Linkedid: %(uniqueid)b
ChanVariable: AC_CALL=
ChanVariable: AC_LEG=%(told)b
"""  # noqa: W291


def _filled(text: bytes, **values: bytes | int) -> bytes:
    """`text` with some of its places filled, the others left as they are."""
    for name, value in values.items():
        shown = value if isinstance(value, bytes) else b"%d" % value
        for kind in (b"b", b"d"):
            text = text.replace(b"%%(%b)%b" % (name.encode(), kind), shown)
    return text


def _dest(text: bytes) -> bytes:
    """Headers of a channel that is dialled: each name begins with Dest."""
    return b"".join(b"Dest" + line for line in text.splitlines(keepends=True))


def _event(name: bytes, *parts: bytes) -> bytes:
    text = b"Event: %b\nPrivilege: call,all\nTimestamp: %%(at)b\n" % name + b"".join(parts) + b"\n"
    return text.replace(b"\n", b"\r\n")


_RINGING = _filled(_CALLER, state=4, desc=b"Ring")
_TALKING = _filled(_CALLER, state=6, desc=b"Up")
_NEW_LEG = _filled(_LEG, legstate=0, legdesc=b"Down", told=b"")
_LEG_UP = _filled(_LEG, legstate=6, legdesc=b"Up")
_END = b"Cause: %d\nCause-txt: %b\n"
_NORMAL = _END % (16, b"Normal Clearing")

DIAL_BEGIN = _event(b"DialBegin", _RINGING, _dest(_NEW_LEG), b"DialString: %(number)b@carrier\n")
DIAL_ANSWERED = _event(
    b"DialEnd", _RINGING, _dest(_filled(_LEG_UP, told=b"")), b"DialStatus: ANSWER\n"
)
DIAL_BUSY = _event(b"DialEnd", _RINGING, _dest(_NEW_LEG), b"DialStatus: BUSY\n")
LEG_BUSY = _event(b"Hangup", _NEW_LEG, _END % (17, b"User busy"))
LEG_HANGUP = _event(b"Hangup", _LEG_UP, _NORMAL)
CALLER_HANGUP = _event(b"Hangup", _TALKING, _NORMAL)

ANSWERED_CALL = DIAL_BEGIN + DIAL_ANSWERED
"""The carrier's leg is dialled and answers."""
ENDED_CALL = LEG_HANGUP + CALLER_HANGUP
"""The carrier hangs up, and with it the caller."""
FAILED_ATTEMPT = DIAL_BEGIN + DIAL_BUSY + LEG_BUSY
"""An attempt that the carrier refuses: the caller may try another."""
EVENTS_OF_ATTEMPT = 3
EVENTS_OF_CALL = 4

NOISE = (
    _event(b"Newexten", _TALKING, b"Extension: 442071234567\nApplication: Set\nAppData: X=1\n"),
    _event(b"VarSet", _TALKING, b"Variable: DIALEDPEERNUMBER\nValue: 442071234567@carrier\n"),
    _event(b"NewConnectedLine", _TALKING),
    _event(b"BridgeEnter", b"BridgeUniqueid: 6a2b\nBridgeType: basic\n", _TALKING),
)
"""Events that mean nothing for credit, of those that Asterisk sends most where nobody filters."""

CHANNEL_ITEMS = (
    b"Event: CoreShowChannel\nActionID: %(action)b\n" + _TALKING + b"Application: Dial\n"
    b"ApplicationData: PJSIP/%(number)b@carrier\nDuration: 00:00:01\n"
    b"BridgeId: 6a2b-%(serial)08x\n\n"
    b"Event: CoreShowChannel\nActionID: %(action)b\n" + _LEG_UP + b"Application: AppDial\n"
    b"ApplicationData: (Outgoing Line)\nDuration: 00:00:01\nBridgeId: 6a2b-%(serial)08x\n\n"
).replace(b"\n", b"\r\n")
"""A call's two channels in the answer to CoreShowChannels."""

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
BOOTED = (
    b"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 93\r\nStatus: Fully Booted\r\n\r\n"
)


def stamp(at_us: int) -> bytes:
    """An instant, µs since 1970, as events tell it."""
    return b"%d.%06d" % divmod(at_us, 1_000_000)
