"""The operations of one batch, decided one after the other on the rows that are locked. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from astcredit.domain.alerts import low_balance, quota_alerts
from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.calls import (
    CallRequest,
    ChannelEnded,
    HangupReport,
    LegAnswered,
    RouteRequest,
)
from astcredit.domain.capacity import Occupancy, Uses
from astcredit.domain.decisions import CallPolicy, Decision, Inquiry, Rows, decide, unbounded
from astcredit.domain.quotas import UNUSED, ClientPeriod, Usage, Usages, watched
from astcredit.domain.rerouting import next_route, rerouted
from astcredit.domain.routing import Routing
from astcredit.domain.settlement import Ending, Settlement, settle
from astcredit.domain.states import CallEvent, CallState, after
from astcredit.service.endings import end_of_channel, end_of_report, expired, gone, unreported
from astcredit.service.errors import StorageError
from astcredit.service.open_calls import OpenCalls
from astcredit.service.operations import (
    Answered,
    Changed,
    Expire,
    Gone,
    NodeHeard,
    NoFurtherRoute,
    Operation,
    Outcome,
    Postponed,
    Reconciled,
    Rerouted,
    Undelivered,
)
from astcredit.service.ports import Changes, Channel, Links, NewCall

NOTHING = Changed()


@dataclass(frozen=True, slots=True)
class BatchRows:
    """The rows that a transaction has locked: clients, their open calls, the legs (as far as there
    are any) of calls of which nothing but their answer is to be noted, counters of capacity, what
    the clients used of their quotas, and up to when all was heard of the nodes of calls that are
    gone."""

    clients: Mapping[int, ClientBooks]
    calls: Iterable[OpenCall]
    answered: Mapping[str, str | None]
    uses: Uses
    usages: Mapping[ClientPeriod, Usage]
    heard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BatchAnswers:
    """What is known of the questions of a batch before the books are asked.

    `screened`: by call id, what the catalog says of a request. `routings`: by call id, all
    routes of a call whose next one is asked for. `carried`: answers of an earlier attempt.
    `ahead`: events that came before the requests are not in the batch.
    """

    screened: Mapping[str, Inquiry | Decision]
    routings: Mapping[str, Routing]
    carried: Mapping[str, Outcome]
    ahead: bool = False


class Batch:
    """The rows of one transaction, as they change from one operation to the next."""

    def __init__(
        self,
        rows: BatchRows,
        answers: BatchAnswers,
        policy: CallPolicy,
        now_ms: int,
        links: Links,
        denied_cdr: bool,
    ) -> None:
        self.changes = Changes()
        self._clients = dict(rows.clients)
        self._calls = OpenCalls(rows.calls)
        self._answered = dict(rows.answered)
        self._uses = dict(rows.uses)
        self._usages = dict(rows.usages)
        self._heard = dict(rows.heard)
        self._answers = answers
        self._policy = policy
        self._now_ms = now_ms
        self._links = links
        self._denied_cdr = denied_cdr
        self._postponed: set[int] = set()

    def apply(self, operation: Operation) -> Outcome:
        """Apply one operation to the rows."""
        match operation:
            case CallRequest():
                return self._authorize(operation)
            case RouteRequest():
                return self._reroute(operation)
            case LegAnswered():
                return self._answer(operation)
            case ChannelEnded():
                return self._channel_ended(operation)
            case HangupReport():
                return self._hangup(operation)
            case Undelivered():
                return self._undelivered(operation)
            case Expire():
                return self._expire(operation)
            case Gone():
                return self._gone(operation)
            case Reconciled(call_id, ending):
                return self._changed(self._calls.get(call_id), ending)
            case NodeHeard(node, until_ms):
                self._heard[node] = self.changes.heard[node] = until_ms
                return NOTHING

    def _authorize(self, request: CallRequest) -> Decision | Postponed:
        known = self._answers.carried.get(request.call_id)
        if isinstance(known, Decision):
            return known
        decision = self._decision(request)
        if self._answers.ahead and self._is_bounded(request, decision):
            return Postponed()
        now_ms = self._now_ms
        expires_at_ms = self._policy.expires_at_ms(now_ms, decision.seconds)
        if not decision.allowed:
            if self._denied_cdr:
                self.changes.calls.append(NewCall(request, decision, now_ms, expires_at_ms))
            self._block(decision)
        elif decision.client is not None:
            call = _open_call(request, decision, now_ms, expires_at_ms)
            self.changes.calls.append(NewCall(request, decision, now_ms, expires_at_ms, call))
            self._set_client(decision.client)
            self._open(call, decision.client)
        return decision

    def _decision(self, request: CallRequest) -> Decision:
        screened = self._answers.screened[request.call_id]
        account = screened.account
        client = self._clients.get(account.client_id) if account else None
        if isinstance(screened, Decision):
            return replace(screened, client=client)
        if client is None:
            raise StorageError(f"client {screened.account.client_id} has no row")
        rows = Rows(client, self._uses, self._usages_of(client), self._now_ms)
        return decide(screened, rows, self._policy)

    def _is_bounded(self, request: CallRequest, decision: Decision) -> bool:
        """Whether events could have made a decision better; or one before it on the same client,
        which is to have its money first."""
        inquiry = self._answers.screened[request.call_id]
        if isinstance(inquiry, Decision) or decision.client is None:
            return False
        client_id = decision.client.id
        if client_id in self._postponed or not unbounded(decision, inquiry, self._policy):
            self._postponed.add(client_id)
        return client_id in self._postponed

    def _usages_of(self, client: ClientBooks) -> Usages:
        return {
            period: self._usages.get((client.id, period), UNUSED)
            for period in client.quotas.periods(self._now_ms)
        }

    def _block(self, decision: Decision) -> None:
        for quota in decision.used_up:
            assert decision.client is not None
            usage = self._usages.get((decision.client.id, quota.period), UNUSED)
            self._watch(decision.client, quota.period, usage, blocked=True)

    def _open(self, call: OpenCall, client: ClientBooks) -> None:
        self._calls.put(call)
        self._use(call.occupancy, 1)
        for period in call.periods:
            usage = self._usages.get((call.client_id, period), UNUSED)
            quota = client.quotas.quota_of(period)
            self._set_usage((call.client_id, period), usage.reserve(call.reserved, quota))

    def _reroute(self, request: RouteRequest) -> Rerouted | NoFurtherRoute:
        call = self._calls.meant(request.call_id, Channel(request.node, request.uniqueid))
        if call is None:
            return NoFurtherRoute("the call has no reservation")
        known = self._answers.carried.get(request.ask_id)
        if isinstance(known, Rerouted) and known.route.rule.id == call.occupancy.route_id:
            return known
        routing = self._answers.routings.get(call.call_id)
        if routing is None:
            return NoFurtherRoute("the client has no routing plan")
        if call.state is not CallState.OPEN:
            return NoFurtherRoute("the call was answered")
        route = next_route(call, routing, self._uses, self._policy.emergency_numbers)
        if route is None:
            return NoFurtherRoute(f"routing plan {routing.plan_name!r} has no further route")
        moved = rerouted(call, route, routing, request)
        outcome = Rerouted(moved, route, self._clients[call.client_id])
        self._use(call.occupancy, -1)
        self._use(outcome.call.occupancy, 1)
        self._calls.put(outcome.call)
        self.changes.rerouted.append(outcome)
        return outcome

    def _answer(self, event: LegAnswered) -> Changed:
        call = self._calls.meant(event.call_id, Channel(event.node, event.caller_uniqueid))
        call_id = call.call_id if call else event.call_id
        if call is None and call_id not in self._answered:
            return Changed(unreserved=event) if call_id else NOTHING
        if call.leg_uniqueid if call else self._answered[call_id]:
            return NOTHING
        # It may be answered already: by its caller's report, by another clock than Asterisk's.
        if call is not None:
            at_ms, dialed_at_ms = event.answered_at_ms, event.dialed_at_ms
            self._calls.put(call.answered(event.leg_uniqueid, dialed_at_ms, at_ms))
        else:
            self._answered[call_id] = event.leg_uniqueid
        return self._keep_answer(
            Answered(
                call_id,
                event.leg_uniqueid,
                event.trunk,
                event.dialed_at_ms,
                event.answered_at_ms,
            )
        )

    def _channel_ended(self, event: ChannelEnded) -> Changed:
        settled, unclear = [], ""
        for call in self._calls.of_channel(Channel(event.node, event.uniqueid)):
            if call.leg_uniqueid == event.uniqueid:
                settled.append(self._settle(call, end_of_channel(event, CallEvent.END)))
            elif call.state is CallState.OPEN and self._is_unclear(call, event):
                unclear = call.node
            elif call.state is CallState.OPEN:
                settled.append(self._settle(call, end_of_channel(event, CallEvent.RELEASE)))
        return Changed(settled=tuple(s for s in settled if s is not None), unclear=unclear)

    def _is_unclear(self, call: OpenCall, ended: ChannelEnded) -> bool:
        """Whether a leg may live that was dialled and transferred before the listener came.

        Asterisk can be asked, now or when the link is up again.
        """
        return not ended.dialstatus and self._links.configured(call.node)

    def _hangup(self, report: HangupReport) -> Changed:
        caller = Channel(report.node, report.uniqueid)
        call = self._calls.meant(report.call_id, caller)
        if call is None:
            return NOTHING
        if self._is_listeners(call, report):
            return self._note_transfer(call, report)
        before = [] if self._links.configured(call.node) else self._calls.before(call, caller)
        settled = [self._settle(call, end_of_report(report))]
        settled += [self._settle(other, unreported(report)) for other in before]
        return Changed(settled=tuple(s for s in settled if s is not None))

    def _note_transfer(self, call: OpenCall, report: HangupReport) -> Changed:
        """A leg whose answer the listener missed lives on after a blind transfer: it is answered,
        and which channel it is will be found out."""
        state = after(call.state, CallEvent.ANSWER)
        if not report.answered or not report.blind_transfer:
            left = replace(report, call_id=call.call_id)
            return Changed(left=left) if report.answered else NOTHING
        if state is None:
            return NOTHING
        answered_at_ms = report.ended_at_ms - report.talk_ms
        self._calls.put(replace(call, state=state, answered_at_ms=answered_at_ms))
        return self._keep_answer(Answered(call.call_id, None, "", None, answered_at_ms))

    def _keep_answer(self, answered: Answered) -> Changed:
        self.changes.answered.append(answered)
        return Changed(answered=(answered,))

    def _is_listeners(self, call: OpenCall, report: HangupReport) -> bool:
        """Whether the end of this call is for the AMI listener of its node to tell.

        A leg that the listener heard being answered may still be up. An attempt that failed has
        no such leg: it is released, so that a caller who goes on to voicemail holds no money. A
        call whose answer the listener missed is settled from the report. After a blind transfer
        the leg lives on: where AMI is configured it is left to the listener, even if the link is
        down at the moment.
        """
        if report.answered and report.blind_transfer != "":
            return self._links.configured(call.node)
        # Without a DIALSTATUS another application than Dial was used: the listener knows better.
        heard = call.state is CallState.ANSWERED or not report.dialstatus
        return heard and self._links.up(call.node)

    def _undelivered(self, operation: Undelivered) -> Changed:
        ending = Ending(CallEvent.RELEASE, operation.at_ms, "undelivered")
        return self._changed(self._calls.get(operation.call_id), ending)

    def _expire(self, operation: Expire) -> Changed:
        call = self._calls.get(operation.call_id)
        if call is None or call.expires_at_ms > self._now_ms:
            return NOTHING
        listened = self._links.configured(call.node)
        heard_until_ms = self._heard.get(call.node) if listened else None
        return self._changed(call, expired(call, heard_until_ms, operation.at_ms))

    def _gone(self, operation: Gone) -> Changed:
        call = self._calls.get(operation.call_id)
        if call is None:
            return NOTHING
        heard_until_ms = self._heard.get(call.node)
        ending = gone(call, heard_until_ms, operation.asked_at_ms, operation.report)
        return self._changed(call, ending)

    def _changed(self, call: OpenCall | None, ending: Ending) -> Changed:
        settlement = self._settle(call, ending) if call else None
        return Changed(settled=(settlement,)) if settlement else NOTHING

    def _settle(self, call: OpenCall, ending: Ending) -> Settlement | None:
        settlement = settle(self._clients[call.client_id], call, ending, self._now_ms)
        if settlement is None:
            return None
        self._calls.remove(call)
        self._use(call.occupancy, -1)
        for period in call.periods:
            usage = self._usages.get((call.client_id, period), UNUSED)
            usage = usage.settle(call.reserved, settlement.price)
            self._watch(settlement.client, period, usage, blocked=False)
        client, alerts = low_balance(settlement.client, self._now_ms)
        self.changes.alerts.extend(alerts)
        self._set_client(client)
        self.changes.settlements.append(settlement)
        if settlement.charge:
            self.changes.ledger.append(settlement.charge)
        return settlement

    def _use(self, occupancy: Occupancy, calls: int) -> None:
        levels = occupancy.levels()
        self.changes.use(levels, calls)
        for level in levels:
            self._uses[level] = self._uses.get(level, 0) + calls

    def _watch(self, client: ClientBooks, period: str, usage: Usage, *, blocked: bool) -> None:
        """Keep a usage, and tell of the thresholds that it passes."""
        quota = client.quotas.quota_for(period, usage, self._now_ms)
        thresholds = self._policy.quota_thresholds
        usage, passed = watched(usage, quota, thresholds, self._now_ms, blocked=blocked)
        self._set_usage((client.id, period), usage)
        self.changes.alerts.extend(quota_alerts(client.id, passed, self._now_ms))

    def _set_usage(self, period: ClientPeriod, usage: Usage) -> None:
        self._usages[period] = usage
        self.changes.usages[period] = usage

    def _set_client(self, client: ClientBooks) -> None:
        self._clients[client.id] = client
        self.changes.clients[client.id] = client


def _open_call(
    request: CallRequest, decision: Decision, now_ms: int, expires_at_ms: int
) -> OpenCall:
    """The call that a decision allows."""
    assert decision.client is not None
    assert decision.rate is not None
    assert decision.occupancy is not None
    return OpenCall(
        call_id=request.call_id,
        client_id=decision.client.id,
        node=request.node,
        uniqueid=request.uniqueid,
        leg_uniqueid=None,
        state=CallState.OPEN,
        rate=decision.rate,
        reserved=decision.reserved,
        seconds=decision.seconds,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
        dialed_at_ms=None,
        answered_at_ms=None,
        occupancy=decision.occupancy,
        number=decision.number,
        callerid=decision.callerid,
        cost_rate=decision.route.rate if decision.route else None,
        periods=decision.periods,
    )
