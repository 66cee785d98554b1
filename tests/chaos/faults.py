"""The faults of AWS: what befalls a call, and what becomes of those behind it.

A fault lasts until its client heard of it: the device or the administrator that gets no answer, or 503, asks again, and
finds AWS well. So the SDK's own repetitions fail as well, where not said otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from local.aws_proxy import (
    BATCHES,
    AwsProxy,
    CutAfter,
    CutBefore,
    Delay,
    Disturbance,
    Error,
    Overtaken,
    Partly,
    Trouble,
    Twice,
)

# Behind the longest that a client in mdmlib.runtime waits for an answer.
_LATE_SECONDS: Final = {"events": 2.3, "s3": 5.3, "dynamodb.BatchWriteItem": 5.3}
_LATE: Final = 3.3
# Longer than anybody waits.
_SILENCE_SECONDS: Final = 60.0

_SENT: Final = {"sqs.SendMessage", "sqs.SendMessageBatch"}
_OVERTAKEN_SECONDS: Final = 2

_THROTTLED: Final = {
    "dynamodb": Error(400, "ProvisionedThroughputExceededException"),
    "s3": Error(503, "SlowDown"),
}


@dataclass(frozen=True)
class Point:
    """One call of a request: the ``number``-th (from 0) of its name."""

    name: str
    number: int

    @property
    def service(self) -> str:
        """The service that is called."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Fault:
    """One kind of fault. ``make`` gives the trouble for a call, or None when such calls do not know it."""

    name: str
    make: Callable[[Point], Trouble | None]
    once: bool = False
    """Whether it befalls one call alone: the SDK asks again by itself."""
    nothing_behind: bool = False
    """Whether nothing gets through to AWS from this call on."""

    def concerns(self, point: Point) -> bool:
        """Whether such a call can have this fault."""
        return self.make(point) is not None

    def befall(self, proxy: AwsProxy, point: Point, *, mark: str | None) -> Disturbance:
        """Let it happen at a call of the requests that name ``mark``; it :meth:`concerns` the call."""
        trouble = self.make(point)
        if trouble is None:
            raise ValueError(f"{point.name} does not know the fault {self.name}.")
        return proxy.disturb(
            point.name,
            trouble,
            times=1 if self.once or self.nothing_behind else None,
            skip=point.number,
            mark=mark,
            then=CutBefore() if self.nothing_behind else None,
        )


def _late(point: Point) -> Trouble:
    return Delay(_LATE_SECONDS.get(point.name) or _LATE_SECONDS.get(point.service) or _LATE)


FAULTS: Final = (
    Fault("throttled", lambda point: _THROTTLED.get(point.service, Error(400, "ThrottlingException"))),
    Fault("failed", lambda _: Error(500, "InternalServerError")),
    # Done, but answered too late: the SDK does it once more.
    Fault("late", _late, once=True),
    # Done, and the answer lost: the same, at once.
    Fault("cut once", lambda _: CutAfter(), once=True),
    # The function might as well have died here: before the call, and after it.
    Fault("cut before", lambda _: CutBefore(), nothing_behind=True),
    Fault("cut after", lambda _: CutAfter(), nothing_behind=True),
    Fault("in part", lambda point: Partly() if point.name in BATCHES else None),
    # At least once, and in no order: what queues and buses promise.
    Fault("twice", lambda point: Twice() if point.name in {"events.PutEvents", *_SENT} else None),
    Fault("overtaken", lambda point: Overtaken(_OVERTAKEN_SECONDS) if point.name in _SENT else None),
    Fault("silent", lambda point: Delay(_SILENCE_SECONDS) if point.service in {"s3", "secretsmanager"} else None),
)
"""Columns of the table."""
