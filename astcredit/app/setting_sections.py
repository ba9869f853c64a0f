"""The settings that there are.

The classes below are the single home of each setting: name, type, default, range, unit and help
stand together, and reading, `doctor`, docs/SETTINGS.md and the tests are made from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

from astcredit.app import setting_kinds as kinds
from astcredit.app.setting_kinds import HostPort, Kind, Network

T = TypeVar("T")

PREFIX = "ASTCREDIT_"
"""Environment variables of settings: ASTCREDIT_<SECTION>_<KEY>."""

_META = "astcredit"


@dataclass(frozen=True, slots=True)
class _Meta:
    """What a section's field says about itself beyond name, type and default."""

    kind: Kind[object]
    default: str
    help: str
    unit: str
    secret: bool


def _setting(kind: Kind[T], default: str, help: str, *, unit: str = "", secret: bool = False) -> T:
    """A field of a section. The type checker takes it for a T, so kind and annotation agree."""
    meta = _Meta(cast(Kind[object], kind), default, help, unit, secret)
    return field(default=kind.parse(default), repr=not secret, metadata={_META: meta})


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    url: str = _setting(
        kinds.database_url(),
        "sqlite:///astcredit.db",
        "The database of catalog and books. PATH is relative to the current folder unless it "
        "begins with / (then four slashes in all). Behind NAME, ?ssl_ca=FILE (a PEM file with the "
        "authorities to trust, or the word system) encrypts and checks the server's certificate; "
        "ssl_cert=FILE and ssl_key=FILE show one to the server.",
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class FastAgiSettings:
    listen: HostPort = _setting(
        kinds.address(), "127.0.0.1:4573", "Where Asterisk's AGI(agi://…) connects to."
    )
    allow: tuple[Network, ...] = _setting(
        kinds.networks(),
        "127.0.0.0/8,::1",
        "Networks whose connections are served; others are closed and counted.",
    )


@dataclass(frozen=True, slots=True)
class AmiSettings:
    nodes: tuple[str, ...] = _setting(
        kinds.ami_urls(),
        "",
        "The Asterisk servers whose manager interface is listened to. A node that is not here is "
        "settled by the hangup script. Write %2C, %40, %3A or %2F for , @ : / in a secret.",
        secret=True,
    )


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    listen: HostPort | None = _setting(
        kinds.optional_address(),
        "127.0.0.1:9573",
        "Where /metrics (Prometheus) and /healthz are served.",
    )


@dataclass(frozen=True, slots=True)
class CallSettings:
    max_seconds: int = _setting(
        kinds.whole(1, 86_400), "3600", "The longest that a call may last after answer.", unit="s"
    )
    warn_seconds: int = _setting(
        kinds.whole(0, 3_600),
        "60",
        "How long before its end the caller hears a warning; 0: none.",
        unit="s",
    )
    warn_repeat_seconds: int = _setting(
        kinds.whole(0, 3_600), "30", "The warning is repeated so often; 0: not at all.", unit="s"
    )
    setup_seconds: int = _setting(
        kinds.whole(10, 3_600),
        "300",
        "The longest time from authorization to answer, all routes together, before the "
        "reservation is given up.",
        unit="s",
    )
    answer_deadline_ms: int = _setting(
        kinds.whole(50, 60_000),
        "1800",
        "The dialplan gets an answer within this time, AC_STATUS=ERROR if the database has none.",
        unit="ms",
    )
    denied_cdr: bool = _setting(
        kinds.flag(), "true", "Whether a call that is refused gets a row in astcdr."
    )
    emergency_numbers: tuple[str, ...] = _setting(
        kinds.digits_list(15),
        "112,911",
        "Always allowed, at no charge, whatever the state of account and database.",
    )


@dataclass(frozen=True, slots=True)
class NumbersSettings:
    country_code: str = _setting(
        kinds.digits(3),
        "",
        'The callers\' country, e.g. "44"; empty: they dial international numbers only.',
    )
    trunk_prefix: str = _setting(
        kinds.digits(8),
        "0",
        "What begins a national number. Counts only with a country code.",
    )
    international_prefixes: tuple[str, ...] = _setting(
        kinds.digits_list(8),
        "",
        'What is dialled for +. Empty: "011" for country code 1, "00" for others, both without a '
        "country code.",
    )


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    thresholds: tuple[int, ...] = _setting(
        kinds.percents(),
        "80,100",
        "When so much of a quota is spent, client and administrator are told, once each; 100: also "
        "when what little is left does not pay for a call.",
        unit="%",
    )


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    pjsip_endpoint: str = _setting(
        kinds.asterisk_name(),
        "astcredit-carrier",
        "The PJSIP endpoint through which terminators are dialled that have a host and no proxy; "
        "dialplan/pjsip.conf has it.",
    )


@dataclass(frozen=True, slots=True)
class BatchSettings:
    max_operations: int = _setting(
        kinds.whole(1, 1_024), "1000", "The most requests that go into one database transaction."
    )
    event_delay_ms: int = _setting(
        kinds.whole(0, 1_000),
        "20",
        "So long an answer or an end that Asterisk told of waits for others before it is written, "
        "while requests of dialplans go ahead: fewer transactions under load.",
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = _setting(
        kinds.word("debug", "info", "warning", "error"), "info", "The least that is logged."
    )
    format: str = _setting(
        kinds.word("text", "json"), "text", "Lines for people, or one JSON object a line."
    )


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    inline_rates: int = _setting(
        kinds.whole(0, 10_000_000),
        "5000",
        "A change of rate tables up to this size is in force for the next call; a larger one is "
        "loaded beside the old one, within some seconds (ten for a million rates).",
        unit="rates",
    )


@dataclass(frozen=True, slots=True)
class MailSettings:
    server: HostPort | None = _setting(
        kinds.optional_address(),
        "",
        "The SMTP server for notifications. Without one they wait in the "
        "outbox, and are given up after two days.",
    )
    tls: str = _setting(
        kinds.word("none", "starttls", "tls"),
        "starttls",
        "starttls (port 25 or 587) and tls (port 465) encrypt, and check the server's certificate; "
        "none does not.",
    )
    ca_file: str = _setting(
        kinds.line(1_000),
        "",
        "A PEM file with the certificates that are trusted, in place of the system's.",
    )
    user: str = _setting(kinds.line(200), "", "The login name; empty: no login.")
    password: str = _setting(kinds.password(), "", "The password that belongs to it.", secret=True)
    sender: str = _setting(
        kinds.mail_address(),
        "",
        "Where notifications come from, and what cannot be delivered goes to. Needed with a "
        "server.",
    )
    sender_name: str = _setting(kinds.line(80), "", "The name beside the sender's address.")
    admin: tuple[str, ...] = _setting(
        kinds.mail_addresses(), "", "Who is told what administrators are told."
    )
    timeout_seconds: int = _setting(
        kinds.whole(5, 300),
        "120",
        "The longest that the server may take for one mail. A mail that it took and did not "
        "confirm in this time is not sent again by itself.",
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `Settings()` is what holds when nothing is configured.

    `config_path` is the file that was read, if any; `origins` says for each setting that is not at
    its default ("section.key") where its value came from.
    """

    database: DatabaseSettings = DatabaseSettings()
    fastagi: FastAgiSettings = FastAgiSettings()
    ami: AmiSettings = AmiSettings()
    metrics: MetricsSettings = MetricsSettings()
    call: CallSettings = CallSettings()
    numbers: NumbersSettings = NumbersSettings()
    routing: RoutingSettings = RoutingSettings()
    quota: QuotaSettings = QuotaSettings()
    batch: BatchSettings = BatchSettings()
    log: LogSettings = LogSettings()
    catalog: CatalogSettings = CatalogSettings()
    mail: MailSettings = MailSettings()
    config_path: Path | None = None
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as people write and read about it. `default` is its text form."""

    section: str
    key: str
    kind: Kind[object]
    default: str
    help: str
    unit: str
    secret: bool

    @property
    def name(self) -> str:
        """As error messages call it, and as it stands in the file: [section] key."""
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"{PREFIX}{self.section}_{self.key}".upper()

    def shown(self, value: object) -> str:
        """The text form of a typed value, secrets hidden."""
        if isinstance(value, tuple) and not isinstance(value, HostPort):
            return ",".join(self.shown(part) for part in value)
        if isinstance(value, bool):
            return "true" if value else "false"
        text = "" if value is None else str(value)
        if self.kind.hidden:
            return kinds.HIDDEN if text else ""
        return kinds.hide_secrets(text) if self.secret else text

    def holds_secret(self, text: str) -> bool:
        """Whether a value as it was given has something that not everybody may read."""
        return self.secret and (bool(text) if self.kind.hidden else kinds.has_secret(text))


def _settings() -> Iterator[Setting]:
    defaults = Settings()
    for name in (item.name for item in fields(defaults)):
        section = getattr(defaults, name)
        if is_dataclass(section):
            for item in fields(section):
                m: _Meta = item.metadata[_META]
                yield Setting(name, item.name, m.kind, m.default, m.help, m.unit, m.secret)


SETTINGS: tuple[Setting, ...] = tuple(_settings())
"""Every setting, in the order in which the manual lists them."""
