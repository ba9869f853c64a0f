"""An open call on its way from a route that failed to the next one. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from astcredit.domain.books import OpenCall
from astcredit.domain.calls import RouteRequest
from astcredit.domain.capacity import Uses
from astcredit.domain.decisions import free_route
from astcredit.domain.routing import Route, Routing

SEPARATOR = "; "


def next_route(
    call: OpenCall, routing: Routing, uses: Uses, emergency_numbers: Collection[str] = ()
) -> Route | None:
    """The first route with room that an open call has not tried, or None.

    The call gives its place on the old route back first: it may need it for the next one. A call to
    an emergency number needs none: it takes the first that it has not tried.
    """
    tried = {*call.routes_tried, call.occupancy.route_id}
    untried = (route for route in routing.routes if route.rule.id not in tried)
    if call.number in emergency_numbers:
        return next(untried, None)
    mine = call.occupancy.levels()
    without = {level: use - 1 if level in mine else use for level, use in uses.items()}
    return free_route(untried, without)


def rerouted(call: OpenCall, route: Route, routing: Routing, request: RouteRequest) -> OpenCall:
    """The call on its next route; of the one that failed it keeps what `request` tells."""
    before = call.occupancy
    failed = () if before.route_id is None else (before.route_id,)
    told = f"{_terminator(before.route_id, routing)} {request.dialstatus} {request.hangupcause}"
    return replace(
        call,
        occupancy=route.occupancy(before.account_id, before.reseller_id),
        cost_rate=route.rate,
        routes_tried=(*call.routes_tried, *failed),
        tried=f"{call.tried}{SEPARATOR}{told}" if call.tried else told,
    )


def _terminator(route_id: int | None, routing: Routing) -> str:
    """Whom a route led to; the route itself where it is in force no longer."""
    names = (route.terminator.name for route in routing.routes if route.rule.id == route_id)
    return next(names, f"route {route_id}")
