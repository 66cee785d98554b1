"""How a device spends its days: it waits for pushes, and connects."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from local.device.channel import Channel
from local.device.command import NOT_NOW
from local.device.errors import DeviceError, ProtocolViolation, Unenrolled, Violations
from local.device.push import PushService

_POLL_SECONDS: Final = 0.5
"""How long a thread waits for a push before it looks whether it shall stop."""


class Listener(Protocol):
    """A device that can be woken."""

    violations: Violations
    failures: list[DeviceError]

    @property
    def is_enrolled(self) -> bool:
        """Whether it is managed, as far as it knows."""


def serve(
    device: Listener, channel: Channel, push: PushService, stop: threading.Event, *, deferred_delay: float
) -> None:
    """Connect whenever a push comes, and after a NotNow, until ``stop`` or until the device is not enrolled any more.

    What fails is kept in ``failures``: a device says nothing and waits for the next push.
    """
    connect_at: float | None = None
    while not stop.is_set() and device.is_enrolled:
        try:
            woken = push.wait(channel.push_token, seconds=_POLL_SECONDS)
            if not woken and (connect_at is None or time.monotonic() < connect_at):
                continue
            connect_at = None
            with device.violations.noting():
                handled = channel.connect()
            if any(one.status == NOT_NOW for one in handled):
                connect_at = time.monotonic() + deferred_delay
        except Unenrolled:
            return
        except ProtocolViolation:
            continue
        except DeviceError as error:
            if not stop.is_set():
                device.failures.append(error)
                stop.wait(_POLL_SECONDS)


@contextmanager
def listening(
    device: Listener, channels: Sequence[Channel], push: PushService, *, deferred_delay: float
) -> Iterator[None]:
    """Serve in threads of its own, one for each channel."""
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=serve,
            args=(device, channel, push, stop),
            kwargs={"deferred_delay": deferred_delay},
            daemon=True,
        )
        for channel in channels
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
