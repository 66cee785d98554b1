"""HTTP as a device speaks it: whom it trusts, what it reports, and the answers that get lost."""

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx

from local.device.errors import NoAnswer, ServerRefused

USER_AGENT: Final = "MDM/1.0"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and what came back. ``status`` is 0 when nothing did; then ``failure`` says why."""

    device: str
    """The serial number of the device."""
    what: str
    """What it was about, in Apple's words: ``GetCACaps``, ``TokenUpdate``, ``Idle``, ``DeviceInformation NotNow``."""
    method: str
    path: str
    """Path and query, percent-encoded as sent."""
    request_headers: Mapping[str, str]
    request_body: bytes = field(repr=False)
    status: int
    response_headers: Mapping[str, str]
    """Names in lower case."""
    response_body: bytes = field(repr=False)
    milliseconds: float
    failure: str | None = None


Observer = Callable[[Exchange], None]


class Wire:
    """A device's connection to the world.

    ``trust`` is a PEM file with the roots of the servers, None the system's. Safe to use from several threads.
    """

    def __init__(
        self,
        device: str,
        *,
        trust: Path | None = None,
        observer: Observer | None = None,
        retry_delays: Sequence[float] = (),
        sleep: Callable[[float], object] = time.sleep,
        timeout: float = 30.0,
    ) -> None:
        self._device = device
        self._observer = observer
        self._retry_delays = tuple(retry_delays)
        self._sleep = sleep
        self._losses: list[str | None] = []
        self._losses_lock = threading.Lock()
        tls = ssl.create_default_context(cafile=str(trust) if trust else None)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        # A redirect would leave the address that the profile names, and an environment's proxy the machine.
        self._client = httpx.Client(verify=tls, timeout=timeout, trust_env=False, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def lose_answers(self, times: int = 1, *, what: str | None = None) -> None:
        """Lose the next answers: the server gets the request and acts on it, the device learns nothing.

        ``what`` loses only answers to that, as :attr:`Exchange.what` calls it.
        """
        with self._losses_lock:
            self._losses.extend([what] * times)

    def send(
        self,
        method: str,
        url: str,
        *,
        what: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> httpx.Response:
        """Send a request and return its answer, whatever its status.

        ``patient`` sends it again, as it was, after each of the delays when the answer is lost or a 5xx, as a device
        does with what must not get lost. Raises :class:`~local.device.errors.NoAnswer`.
        """
        for delay in self._retry_delays if patient else ():
            try:
                response = self._send_once(method, url, what, body, headers or {})
            except NoAnswer:
                pass
            else:
                if not ServerRefused(what, response.status_code).passing:
                    return response
            self._sleep(delay)
        return self._send_once(method, url, what, body, headers or {})

    def _send_once(self, method: str, url: str, what: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        # Without content httpx would claim nothing; a device's GET has no Content-Length either.
        request = self._client.build_request(
            method, url, content=body or None, headers={"User-Agent": USER_AGENT, **headers}
        )
        begun = time.perf_counter()
        response: httpx.Response | None = None
        failure: str | None = None
        try:
            response = self._client.send(request)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            failure = f"{type(error).__name__}: {error}"
        elapsed = (time.perf_counter() - begun) * 1000
        if response is not None and self._is_lost(what):
            failure = "the answer was lost"
        if self._observer:
            self._observer(
                Exchange(
                    device=self._device,
                    what=what,
                    method=method,
                    path=request.url.raw_path.decode("ascii"),
                    request_headers=dict(request.headers),
                    request_body=body,
                    status=response.status_code if response is not None else 0,
                    response_headers=dict(response.headers) if response is not None else {},
                    response_body=response.content if response is not None else b"",
                    milliseconds=elapsed,
                    failure=failure,
                )
            )
        if failure or response is None:
            raise NoAnswer(f"{what}: {failure}")
        return response

    def _is_lost(self, what: str) -> bool:
        with self._losses_lock:
            for index, lost in enumerate(self._losses):
                if lost in {None, what}:
                    del self._losses[index]
                    return True
        return False


def must_be_ok(response: httpx.Response, what: str) -> httpx.Response:
    """Return the response when its status is exactly 200. Raises :class:`~local.device.errors.ServerRefused`."""
    if response.status_code != HTTPStatus.OK:
        raise ServerRefused(what, response.status_code, response.content)
    return response
