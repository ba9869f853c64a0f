"""The manual's page about settings (docs/SETTINGS.md), made from the settings themselves."""

from __future__ import annotations

from itertools import groupby

from astcredit.app.settings import CONFIG_PLACES, CONFIG_VARIABLE, SETTINGS, Setting

_INTRODUCTION = f"""\
# Settings

Made from the program's own list of settings; a test keeps it so.

A value comes from, first to last: the command line (`--database URL`), the environment variable,
the TOML file, the default. The file is the one named by `--config` or `{CONFIG_VARIABLE}`,
else {" or ".join(f"`{place}`" for place in CONFIG_PLACES)}, whichever is there first.
A file may look so:

```toml
[database]
url = "mysql://astcredit:SECRET@127.0.0.1/astcredit"

[ami]
nodes = ["ami://astcredit:SECRET@127.0.0.1:5038/pbx1"]

[call]
max_seconds = 7200
```

A name that does not exist is an error, in the file and in the environment. A file that holds a
secret and that every user of the machine can read is refused (`chmod 640` mends it). Lists are TOML
lists or one text with commas. `astcredit doctor --settings` shows each value in force and where it
came from.
"""


def settings_page() -> str:
    """The whole page, as Markdown."""
    sections = groupby(SETTINGS, key=lambda setting: setting.section)
    return "\n".join([_INTRODUCTION, *(_section(name, list(group)) for name, group in sections)])


def _section(name: str, settings: list[Setting]) -> str:
    rows = "\n".join(_row(setting) for setting in settings)
    return (
        f"## [{name}]\n\n"
        "| key | environment variable | default | value | what it does |\n"
        "| --- | --- | --- | --- | --- |\n"
        f"{rows}\n"
    )


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else "none"
    unit = f" ({setting.unit})" if setting.unit else ""
    cells = (
        f"`{setting.key}`",
        f"`{setting.variable}`",
        default,
        setting.kind.expects + unit,
        setting.help,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
