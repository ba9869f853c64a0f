"""What happens in the program, brought to its metrics."""

from __future__ import annotations

from functools import cache

from astcredit.app.metrics import Metrics
from astcredit.domain.calls import AuthStatus
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState


class MetricsObserver:
    """Counts batches, calls and AGI connections; knows whether the books can be written."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._queued = 0
        metrics.queue_operations.set_function(lambda: self._queued)
        # Finding a counter by its labels takes longer than to count: each is looked up once. The
        # labels are words of our own, so there are few.
        self._authorizations = cache(metrics.authorizations.labels)
        self._settlements = cache(metrics.settlements.labels)
        self.books_error = ""

    def batch_done(self, operations: int, seconds: float) -> None:
        """A transaction was committed."""
        self.books_error = ""
        self._metrics.batch_operations.observe(operations)
        self._metrics.batch_seconds.observe(seconds)

    def batch_failed(self, error: Exception) -> None:
        """A transaction failed and is tried again or split."""
        self.books_error = f"{type(error).__name__}: {error}"
        self._metrics.batch_retries.labels(type(error).__name__).inc()

    def queue_length(self, operations: int) -> None:
        """So many operations wait."""
        self._queued = operations

    def authorized(self, status: AuthStatus, seconds: float) -> None:
        """A request was answered."""
        self._authorizations(status.value).inc()
        self._metrics.authorize_seconds.observe(seconds)

    def settled(self, settlement: Settlement) -> None:
        """A call was settled or released."""
        charged = "charged" if settlement.state is CallState.COMPLETED else "released"
        self._settlements(settlement.ending.settled_by, charged).inc()

    def count(self, outcome: str, script: str, seconds: float) -> None:
        """An AGI connection ended."""
        self._metrics.count_agi(script, outcome, seconds)


class SilentObserver:
    """For a process that lives for one call."""

    def batch_done(self, operations: int, seconds: float) -> None: ...

    def batch_failed(self, error: Exception) -> None: ...

    def queue_length(self, operations: int) -> None: ...

    def authorized(self, status: AuthStatus, seconds: float) -> None: ...

    def settled(self, settlement: Settlement) -> None: ...
