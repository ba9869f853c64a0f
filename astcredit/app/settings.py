"""Reading the settings: where values come from, and what is wrong with them.

A value comes from the command line, else the environment (ASTCREDIT_<SECTION>_<KEY>), else the TOML
file, else the default. A name that does not exist is an error wherever it stands: a misspelt limit
that is silently ignored costs money.
"""

from __future__ import annotations

import difflib
import os
import shlex
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from astcredit.app import process_list
from astcredit.app.setting_kinds import HostPort, Raw, secret_of
from astcredit.app.setting_sections import (
    PREFIX,
    SETTINGS,
    AmiSettings,
    BatchSettings,
    CallSettings,
    CatalogSettings,
    DatabaseSettings,
    FastAgiSettings,
    LogSettings,
    MailSettings,
    MetricsSettings,
    NumbersSettings,
    Setting,
    Settings,
)
from astcredit.domain.text import printable
from astcredit.service.errors import RefusedError

__all__ = [
    "SETTINGS",
    "AmiSettings",
    "BatchSettings",
    "CallSettings",
    "CatalogSettings",
    "DatabaseSettings",
    "FastAgiSettings",
    "HostPort",
    "LogSettings",
    "MailSettings",
    "MetricsSettings",
    "NumbersSettings",
    "Setting",
    "SettingRow",
    "Settings",
    "SettingsError",
    "describe",
    "load",
]

CONFIG_VARIABLE = "ASTCREDIT_CONFIG"
CONFIG_PLACES = (Path("astcredit.toml"), Path("/etc/astcredit/astcredit.toml"))
"""Where a file is looked for when none is named: the current folder first."""

OTHER_VARIABLES = (CONFIG_VARIABLE, "ASTCREDIT_VENV")
OTHER_PREFIXES = ("ASTCREDIT_LAB_",)
"""Variables with our prefix that are no settings; the scripts beside the program read them."""

MOST_SHOWN = 120
"""Characters of a wrong value that an error shows."""

_OTHERS_MAY = stat.S_IROTH | stat.S_IWOTH


class SettingsError(RefusedError):
    """A setting that cannot be used. Names it, where it came from, the value and what is meant."""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting with its value in force, for `doctor`. Secrets are hidden in `value`."""

    name: str
    variable: str
    value: str
    origin: str
    default: str
    unit: str
    help: str


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was found, and where."""

    raw: Raw
    origin: str


def load(
    config_path: Path | None = None,
    environ: Mapping[str, str] = MappingProxyType({}),
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """The settings in force.

    `config_path` is the file that the command line names, `environ` the process's environment,
    `overrides` values from the command line by name, as {"database.url": "sqlite:///x.db"}: `ps`
    does not show their passwords any more.
    Raises SettingsError: a named file that is missing, a name that does not exist, a bad value,
    secrets in a file that everybody can read.
    """
    for raw in overrides.values():
        process_list.hide(secret_of(raw))
    path = _config_path(config_path, environ)
    given = {
        **(_from_file(path) if path is not None else {}),
        **_from_environment(environ),
        **{name: _Given(raw, "the command line") for name, raw in overrides.items()},
    }
    values: dict[str, dict[str, object]] = {}
    for setting in SETTINGS:
        if setting.name in given:
            value = _parsed(setting, given[setting.name])
            values.setdefault(setting.section, {})[setting.key] = value
    origins = MappingProxyType({name: found.origin for name, found in given.items()})
    return _assembled(values, path, origins)


def describe(settings: Settings) -> tuple[SettingRow, ...]:
    """Every setting with its value in force and where that came from."""
    return tuple(
        SettingRow(
            setting.name,
            setting.variable,
            setting.shown(getattr(getattr(settings, setting.section), setting.key)),
            settings.origins.get(setting.name, "default"),
            setting.default,
            setting.unit,
            setting.help,
        )
        for setting in SETTINGS
    )


def _assembled(
    values: Mapping[str, dict[str, Any]], path: Path | None, origins: Mapping[str, str]
) -> Settings:
    defaults = Settings()
    sections: dict[str, Any] = {
        name: replace(getattr(defaults, name), **values[name]) for name in values
    }
    return replace(defaults, **sections, config_path=path, origins=origins)


def _parsed(setting: Setting, given: _Given) -> object:
    try:
        return setting.kind.parse(given.raw)
    except ValueError:
        pass  # what a parser of the library says about the value may hold a secret
    shown = "a value not shown here" if setting.secret else printable(str(given.raw), MOST_SHOWN)
    unit = f" ({setting.unit})" if setting.unit else ""
    raise SettingsError(
        f"{setting.name} from {given.origin}: {shown}: expected {setting.kind.expects}{unit}"
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    known = {setting.variable: setting for setting in SETTINGS}
    given = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable in known:
            origin = f"the environment ({variable})"
            given[known[variable].name] = _Given(environ[variable], origin)
        elif variable not in OTHER_VARIABLES and not variable.startswith(OTHER_PREFIXES):
            raise SettingsError(
                f"environment variable {printable(variable, MOST_SHOWN)}: there is no such setting"
                f"{_nearest(variable, known)}"
            )
    return given


def _config_path(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read. One that somebody named must be there; else the first that is."""
    if named is None and environ.get(CONFIG_VARIABLE):
        named = Path(environ[CONFIG_VARIABLE])
    if named is not None:
        if not os.path.lexists(named):
            raise SettingsError(f"{named}: there is no such configuration file")
        return named
    return next((place for place in CONFIG_PLACES if os.path.lexists(place)), None)


def _from_file(path: Path) -> dict[str, _Given]:
    tables, mode = _read(path)
    known = {setting.name: setting for setting in SETTINGS}
    given = {}
    for name, raw in _entries(path, tables):
        if name not in known:
            raise SettingsError(
                f"{path}: {printable(name, MOST_SHOWN)}: there is no such setting"
                f"{_nearest(name, known)}"
            )
        given[name] = _Given(raw, str(path))
        if mode & _OTHERS_MAY and known[name].holds_secret(str(raw)):
            raise SettingsError(
                f"{path}: {name} holds a secret and every user of this machine can read or change "
                f"it: chmod 640 {shlex.quote(str(path))}"
            )
    return given


def _read(path: Path) -> tuple[dict[str, object], int]:
    """The file's tables and its permission bits."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {printable(str(error), MOST_SHOWN)}") from None


def _entries(path: Path, tables: Mapping[str, object]) -> Iterator[tuple[str, Raw]]:
    sections = {setting.section for setting in SETTINGS}
    for section, table in tables.items():
        if section not in sections:
            raise SettingsError(
                f"{path}: {printable(section, MOST_SHOWN)}: there is no such section"
                f"{_nearest(section, sections)}"
            )
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {section}: expected a table, [{section}]")
        for key, raw in table.items():
            yield f"{section}.{key}", raw


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; the nearest is {close[0]}" if close else ""
