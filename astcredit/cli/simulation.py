"""What `astcredit simulate` prints."""

from __future__ import annotations

from collections.abc import Mapping

from astcredit.app.simulation import UNREACHABLE, SimulatedCall, Step
from astcredit.app.simulation import simulate as play_steps
from astcredit.cli.context import App
from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text
from astcredit.storage.inspection import rows_of_call

REFUSED = 1

# What of a row is worth a look in a simulation, and how it is written.
AMOUNTS = frozenset({"reservedamount", "rate", "price", "ourcost", "amount", "balance_after"})
INSTANTS = frozenset({"date_created", "expires_at", "answered_at", "ended_at"})
SHOWN = {
    "astcreditres": ("reservedamount", "seconds", "date_created", "expires_at"),
    "astcdr": (
        "status",
        "callednum",
        "destination",
        "rate",
        "answered_at",
        "ended_at",
        "billsec",
        "price",
        "ident_by",
        "callerid",
        "tried",
        "ourcost",
    ),
    "astledger": ("kind", "amount", "balance_after", "reference"),
}
TITLES = {
    "authorize": "authorize: may this call be made, and for how long?",
    "next-route": "next-route: {} cannot be reached ({}), who else may take the call?",
    "hangup": "hangup: what became of it",
    "balance": "balance: what is left",
}


async def play(app: App, call: SimulatedCall, books: bool) -> int:
    """Play the call, print each step as it is done; the exit status."""
    steps: list[dict[str, object]] = []
    status = 0
    async for step in play_steps(app.settings, call):
        rows = await _rows(app, step) if books else {}
        if step.refuses:
            status = REFUSED
        if app.output.format == "json":
            steps.append({"script": step.script, "variables": _answers(step), "rows": rows})
        else:
            _print(app, step, rows)
    if app.output.format == "json":
        app.output.document({"steps": steps})
    return status


def _answers(step: Step) -> Mapping[str, str]:
    """The variables that this script has set."""
    if step.script in ("authorize", "next-route"):
        return dict(step.variables)
    names: tuple[str, ...] = ()
    if step.script == "balance":
        names = ("AC_BALANCE", "AC_AVAILABLE")
        if not step.variables.get("AC_BALANCE"):  # nobody was recognised; that is told there
            names += ("AC_STATUS", "AC_REASON")
    return {name: step.variables.get(name, "") for name in names}


async def _rows(app: App, step: Step) -> dict[str, dict[str, str]]:
    if step.script == "balance":
        return {}
    async with app.database() as database:
        found = await rows_of_call(database, step.call_id)
    return {
        table.name: {name: _cell(name, row[name]) for name in SHOWN[table.name]}
        for table, row in found.items()
    }


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in AMOUNTS and isinstance(value, int):
        return amount_text(value)
    if name in INSTANTS and isinstance(value, int):
        return instant_text(value)
    return str(value)


def _print(app: App, step: Step, rows: Mapping[str, Mapping[str, str]]) -> None:
    app.output.line(TITLES[step.script].format(step.unreachable, UNREACHABLE))
    for name, value in _answers(step).items():
        app.output.line(f"  {name}={value}")
    for table, row in rows.items():
        shown = "  ".join(f"{name}={value}" for name, value in row.items() if value)
        app.output.line(f"  {table}: {shown}")
    if step.script == "hangup" and not rows:
        app.output.line("  (--books shows the rows in the database)")
    if rows and "astcreditres" not in rows:
        app.output.line("  astcreditres: no row, nothing is reserved for this call")
