"""The texts of notifications as the program ships them. Templates replace them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from astcredit.domain.alerts import AlertKind, Audience
from astcredit.domain.notices import Template

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<body style="font-family: sans-serif; color: #222; max-width: 36em">
%s</body>
</html>
"""


def _row(label: str, value: str) -> str:
    cell = "padding: 2px 12px 2px 0"
    return f'<tr><td style="{cell}">{label}</td><td style="text-align: right">{value}</td></tr>\n'


_QUOTA_ROWS = (
    "<table>\n"
    + _row("Quota", "{quota} {currency}")
    + _row("Spent", "{spent} {currency} ({percent}&nbsp;%)")
    + _row("Reserved for calls now up", "{reserved} {currency}")
    + _row("Left", "<strong>{remaining} {currency}</strong>")
    + "</table>\n"
)
_QUOTA_LINES = """\
Quota:                     {quota} {currency}
Spent:                     {spent} {currency} ({percent} %)
Reserved for calls now up: {reserved} {currency}
Left:                      {remaining} {currency}
"""

QUOTA_CLIENT: Final = Template(
    subject="{threshold} % of your {kind} telephone quota is used",
    body=f"""\
Hello {{client}},

your {{kind}} quota for {{period}} has reached {{threshold}} %.

{_QUOTA_LINES}
Calls go on while something is left; then new calls are refused until the next
period begins or the quota is raised. Calls that are up are not cut.

Questions? Just ask your provider.

State of {{at}}.
""",
    html=_PAGE
    % f"""\
<p>Hello {{client}},</p>
<p>your {{kind}} quota for {{period}} has reached <strong>{{threshold}}&nbsp;%</strong>.</p>
{_QUOTA_ROWS}\
<p>Calls go on while something is left; then new calls are refused until the next period begins or
the quota is raised. Calls that are up are not cut.</p>
<p>Questions? Just ask your provider.</p>
<p style="color: #777">State of {{at}}.</p>
""",
)

QUOTA_ADMIN: Final = Template(
    subject="{client}: {threshold} % of the {kind} quota for {period}",
    body=f"""\
Client {{client}} has reached {{threshold}} % of its {{kind}} quota for {{period}}.

{_QUOTA_LINES}
All clients above a threshold:  astcredit quota show --over {{threshold}}

State of {{at}}.
""",
    html=_PAGE
    % f"""\
<p>Client <strong>{{client}}</strong> has reached {{threshold}}&nbsp;% of its {{kind}} quota for
{{period}}.</p>
{_QUOTA_ROWS}\
<p>All clients above a threshold: <code>astcredit quota show --over {{threshold}}</code></p>
<p style="color: #777">State of {{at}}.</p>
""",
)

LOW_BALANCE_CLIENT: Final = Template(
    subject="Your telephone balance is low: {balance} {currency}",
    body="""\
Hello {client},

your balance is {balance} {currency}, below {threshold} {currency}.
Please top it up in time: calls are refused when it does not pay for them.

Questions? Just ask your provider.

State of {at}.
""",
    html=_PAGE
    % """\
<p>Hello {client},</p>
<p>your balance is <strong>{balance} {currency}</strong>, below {threshold} {currency}.<br>
Please top it up in time: calls are refused when it does not pay for them.</p>
<p>Questions? Just ask your provider.</p>
<p style="color: #777">State of {at}.</p>
""",
)

LOW_BALANCE_ADMIN: Final = Template(
    subject="{client}: balance {balance} {currency}",
    body="""\
The balance of client {client} is {balance} {currency}, below {threshold} {currency}.

State of {at}.
""",
    html=_PAGE
    % """\
<p>The balance of client <strong>{client}</strong> is {balance} {currency}, below {threshold}
{currency}.</p>
<p style="color: #777">State of {at}.</p>
""",
)

SHIPPED: Final[Mapping[tuple[AlertKind, Audience], Template]] = {
    (AlertKind.QUOTA, Audience.CLIENT): QUOTA_CLIENT,
    (AlertKind.QUOTA, Audience.ADMIN): QUOTA_ADMIN,
    (AlertKind.LOW_BALANCE, Audience.CLIENT): LOW_BALANCE_CLIENT,
    (AlertKind.LOW_BALANCE, Audience.ADMIN): LOW_BALANCE_ADMIN,
}
"""For each kind and audience the text that is in force until a template replaces it."""
