"""Our client against a strict APNs in another process, on its good days and its bad ones."""

import socket
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.apns.process import ApnsControl, ApnsSimulator
from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.apns import ApnsClient, Notification, Outcome, Verdict, send_together
from mdmlib.services.push_queue import MAX_MAGIC_BYTES

TOPIC = "com.apple.mgmt.External.0f5a3f0e-0000-4000-8000-000000000001"
TOKEN = "5d" * 32
MAGIC = "7C1F0F0B-6BE5-4D9C-8C7A-000000000001"


class WallClock:
    """The wall clock of a process that can be frozen."""

    def __init__(self) -> None:
        self.frozen_for = 0.0

    def __call__(self) -> float:
        return time.time() + self.frozen_for


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApnsSimulator]:
    simulator = ApnsSimulator.start(tmp_path_factory.mktemp("apns"))
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def identity(simulator: ApnsSimulator) -> PushIdentity:
    return PushIdentity.decode(simulator.control.issue(TOPIC))


@pytest.fixture
def apns(simulator: ApnsSimulator) -> Iterator[ApnsControl]:
    """The simulator with one device; whatever a test did, no rule may have been broken."""
    simulator.control.reset()
    simulator.control.register(TOKEN, topic=TOPIC, magic=MAGIC)
    yield simulator.control
    assert simulator.control.violations() == []


@pytest.fixture
def wall_clock() -> WallClock:
    return WallClock()


@pytest.fixture
def connect(simulator: ApnsSimulator, apns: ApnsControl, wall_clock: WallClock) -> Iterator[Callable[..., ApnsClient]]:
    """Make a client for an identity; ``options`` are the client's."""
    with ExitStack() as clients:

        def connect(identity: PushIdentity, **options: Any) -> ApnsClient:
            defaults: dict[str, Any] = {
                "url": simulator.url,
                "trust_anchor": simulator.trust_anchor,
                "wall_clock": wall_clock,
            }
            client = ApnsClient(identity, **(defaults | options))
            clients.callback(client.close)
            return client

        yield connect


@pytest.fixture
def client(connect: Callable[..., ApnsClient], identity: PushIdentity) -> ApnsClient:
    return connect(identity)


@pytest.fixture
def impatient(connect: Callable[..., ApnsClient], identity: PushIdentity) -> ApnsClient:
    """A client that waits 0.4 s for an answer."""
    return connect(identity, answer_seconds=0.4)


def notification(token: str = TOKEN, magic: str = MAGIC) -> Notification:
    return Notification(token, magic, str(uuid.uuid4()), int(time.time()) + 3600)


def notifications(count: int) -> list[Notification]:
    return [notification() for _ in range(count)]


def verdicts(outcomes: list[Outcome]) -> Counter[Verdict]:
    return Counter(outcome.verdict for outcome in outcomes)


def times_taken(apns: ApnsControl) -> Counter[int]:
    """How often a notification was taken: ``Counter({1: 100})`` when each of 100 was taken once."""
    return Counter(Counter(push["apns_id"] for push in apns.pushes()).values())


def test_a_push_wakes_the_device_and_says_all_that_apple_asks_for(client: ApnsClient, apns: ApnsControl) -> None:
    sent = notification()

    assert client.send([sent]) == [Outcome(Verdict.ACCEPTED, status=200)]

    woken = apns.wait(TOKEN)
    assert woken
    assert woken["apns_id"] == sent.apns_id
    assert apns.pushes()[-1] | {"number": 0, "connection": 0} == {
        "number": 0,
        "connection": 0,
        "token": TOKEN,
        "topic": TOPIC,
        "apns_id": sent.apns_id,
        "expiration": str(sent.expiration),
        "priority": "10",
        "status": 200,
        "reason": None,
    }


def test_upper_case_in_tokens_and_ids_is_not_what_apns_sees(client: ApnsClient, apns: ApnsControl) -> None:
    outcome = client.send([Notification(TOKEN.upper(), MAGIC, str(uuid.uuid4()).upper(), 0)])

    assert verdicts(outcome) == {Verdict.ACCEPTED: 1}


def test_a_magic_of_any_characters_reaches_the_device(client: ApnsClient, apns: ApnsControl) -> None:
    apns.register("ab12", topic=TOPIC, magic='Zauber "ß" \\ 🪄')

    client.send([notification("ab12", 'Zauber "ß" \\ 🪄')])

    assert apns.device("ab12")["pushes"] == 1


def test_the_longest_magic_that_is_queued_fits_into_a_payload(client: ApnsClient, apns: ApnsControl) -> None:
    magic = "\x01" * MAX_MAGIC_BYTES
    apns.register("ab13", topic=TOPIC, magic=magic)

    assert verdicts(client.send([notification("ab13", magic)])) == {Verdict.ACCEPTED: 1}


def test_nothing_to_send_opens_no_connection(client: ApnsClient, apns: ApnsControl) -> None:
    before = apns.status()["connections_made"]

    assert client.send([]) == []
    assert apns.status()["connections_made"] == before


def test_outcomes_are_in_the_order_of_the_notifications(client: ApnsClient, apns: ApnsControl) -> None:
    apns.register("0001", topic=TOPIC, magic="gone")
    apns.unregister("0001", timestamp=1_700_000_000_123)
    apns.register("0002", topic="com.apple.mgmt.External.another", magic="other")
    tokens = [TOKEN, "0001", "0002", "0003", TOKEN] * 200

    outcomes = client.send([notification(token) for token in tokens])

    assert [outcome.reason for outcome in outcomes] == [
        {TOKEN: "", "0001": "Unregistered", "0002": "DeviceTokenNotForTopic", "0003": "BadDeviceToken"}[token]
        for token in tokens
    ]
    assert verdicts(outcomes) == {Verdict.ACCEPTED: 400, Verdict.TOKEN_REFUSED: 600}


def test_a_dead_token_comes_with_the_time_since_when(client: ApnsClient, apns: ApnsControl) -> None:
    apns.register("0001", topic=TOPIC, magic="gone")
    apns.unregister("0001", timestamp=1_700_000_000_123)

    (outcome,) = client.send([notification("0001")])

    assert outcome == Outcome(
        Verdict.TOKEN_REFUSED, "Unregistered", 410, datetime(2023, 11, 14, 22, 13, 20, 123000, UTC)
    )


@pytest.mark.parametrize(("status", "reason"), [(429, "TooManyRequests"), (503, "ServiceUnavailable")])
def test_a_busy_apns_is_tried_again_when_it_says(
    client: ApnsClient, apns: ApnsControl, status: int, reason: str
) -> None:
    apns.behave(answer_status=status, answer_reason=reason, answer_times=1, retry_after=7)

    outcomes = client.send(notifications(2))

    assert outcomes == [
        Outcome(Verdict.PASSING, reason, status, retry_after=7),
        Outcome(Verdict.ACCEPTED, status=200),
    ]


def test_an_error_without_an_explanation_is_told_by_its_status(client: ApnsClient, apns: ApnsControl) -> None:
    apns.behave(answer_status=500, answer_reason="", answer_times=1)

    assert client.send(notifications(1)) == [Outcome(Verdict.PASSING, "status 500", 500)]


def test_a_time_that_no_calendar_has_is_none(client: ApnsClient, apns: ApnsControl) -> None:
    apns.register("0001", topic=TOPIC, magic="gone")
    apns.unregister("0001", timestamp=10**30)

    assert client.send([notification("0001")]) == [Outcome(Verdict.TOKEN_REFUSED, "Unregistered", 410)]


def test_a_topic_that_gets_no_answer_holds_up_no_other(
    simulator: ApnsSimulator, impatient: ApnsClient, connect: Callable[..., ApnsClient], apns: ApnsControl
) -> None:
    topic = "com.apple.mgmt.External.0f5a3f0e-0000-4000-8000-000000000002"
    apns.register("07", topic=topic, magic=MAGIC)
    other = connect(PushIdentity.decode(apns.issue(topic)))
    impatient.send(notifications(1))
    apns.disturb("freeze")  # the connection that is there; the other client makes its own
    apns.behave(max_connections=1000)

    first, second = send_together([(impatient, notifications(3)), (other, [notification("07") for _ in range(50)])])

    assert verdicts(second) == {Verdict.ACCEPTED: 50}
    assert verdicts(first) == {Verdict.ACCEPTED: 3}, "over another connection, after the other topic's were answered"
    topics = [push["topic"] for push in apns.pushes()]
    assert topics == [TOPIC, *[topic] * 50, *[TOPIC] * 3]


class TestStreams:
    def test_no_more_streams_are_opened_than_apns_allows(self, client: ApnsClient, apns: ApnsControl) -> None:
        apns.behave(max_streams=7, latency=0.01)

        assert verdicts(client.send(notifications(60))) == {Verdict.ACCEPTED: 60}
        assert apns.status()["peak_streams"] == 7

    def test_the_first_request_goes_alone_while_apns_allows_one_stream(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        apns.behave(first_streams=1, latency=0.01)

        assert verdicts(client.send(notifications(200))) == {Verdict.ACCEPTED: 200}
        assert 1 < apns.status()["peak_streams"] <= 200

    def test_an_allowance_of_no_stream_at_all_is_waited_for_but_not_for_ever(
        self, impatient: ApnsClient, apns: ApnsControl
    ) -> None:
        apns.behave(max_streams=0)

        (outcome,) = impatient.send(notifications(1))

        assert outcome == Outcome(Verdict.PASSING, "APNs takes no requests: APNs allows no request")

    def test_a_window_that_no_payload_fits_into_is_not_overrun(self, impatient: ApnsClient, apns: ApnsControl) -> None:
        apns.behave(initial_window=10)

        (outcome,) = impatient.send(notifications(1))

        assert outcome.verdict is Verdict.PASSING

    def test_more_bytes_than_the_connection_window_flow_as_it_opens(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        magic = "m" * 1000
        apns.register("abcd", topic=TOPIC, magic=magic)

        outcomes = client.send([notification("abcd", magic) for _ in range(300)])

        assert verdicts(outcomes) == {Verdict.ACCEPTED: 300}

    def test_a_refused_stream_was_not_taken_and_is_sent_again(self, client: ApnsClient, apns: ApnsControl) -> None:
        apns.behave(refuse_streams=20)

        assert verdicts(client.send(notifications(50))) == {Verdict.ACCEPTED: 50}
        assert times_taken(apns) == {1: 50}

    def test_streams_that_are_refused_every_time_are_left_for_later(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        apns.behave(refuse_streams=1000)

        assert set(client.send(notifications(10))) == {Outcome(Verdict.PASSING, "APNs did not take it")}

    def test_a_stream_that_breaks_may_have_been_taken_and_is_left_for_later(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        apns.behave(reset_streams=3)

        outcomes = client.send(notifications(50))

        assert verdicts(outcomes) == {Verdict.ACCEPTED: 47, Verdict.PASSING: 3}
        assert "reset" in outcomes[0].reason

    def test_a_request_that_is_never_answered_holds_nobody_up(self, impatient: ApnsClient, apns: ApnsControl) -> None:
        apns.behave(silent=3, latency=0.2, max_streams=10)
        outcomes = impatient.send(notifications(50))

        assert verdicts(outcomes) == {Verdict.ACCEPTED: 47, Verdict.PASSING: 3}
        assert outcomes[0].reason == "no answer in time"


class TestConnection:
    def test_one_connection_serves_all_calls(self, client: ApnsClient, apns: ApnsControl) -> None:
        before = apns.status()["connections_made"]

        for _ in range(5):
            client.send(notifications(3))

        assert apns.status()["connections_made"] == before + 1

    def test_goaway_loses_nothing_and_repeats_nothing(self, client: ApnsClient, apns: ApnsControl) -> None:
        before = apns.status()["connections_made"]
        apns.behave(goaway_after=10, latency=0.005)

        assert verdicts(client.send(notifications(95))) == {Verdict.ACCEPTED: 95}
        assert times_taken(apns) == {1: 95}
        assert apns.status()["connections_made"] == before + 10

    def test_goaway_while_nothing_is_sent_is_noticed_before_the_next_push(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        client.send(notifications(1))
        apns.disturb("goaway")

        assert verdicts(client.send(notifications(100))) == {Verdict.ACCEPTED: 100}
        assert times_taken(apns) == {1: 101}

    def test_idling_too_long_for_apns_loses_nothing(self, client: ApnsClient, apns: ApnsControl) -> None:
        apns.behave(idle_timeout=0.1)
        client.send(notifications(1))
        deadline = time.monotonic() + 10
        while apns.status()["connections"] and time.monotonic() < deadline:
            time.sleep(0.02)

        assert verdicts(client.send(notifications(3))) == {Verdict.ACCEPTED: 3}

    def test_a_connection_that_was_cut_while_unused_is_replaced(self, client: ApnsClient, apns: ApnsControl) -> None:
        client.send(notifications(1))
        apns.disturb("cut")

        assert verdicts(client.send(notifications(100))) == {Verdict.ACCEPTED: 100}

    def test_what_was_under_way_when_the_connection_broke_is_left_for_later(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        apns.behave(cut_after=5, cut_connections=1, latency=0.01)

        outcomes = client.send(notifications(400))

        counts = verdicts(outcomes)
        assert counts[Verdict.PASSING] > 0
        assert counts[Verdict.ACCEPTED] + counts[Verdict.PASSING] == 400
        assert max(times_taken(apns)) == 1

    def test_a_connection_that_a_middlebox_forgot_is_noticed_by_ping(
        self, client: ApnsClient, apns: ApnsControl, wall_clock: WallClock
    ) -> None:
        client.send(notifications(1))
        apns.disturb("freeze")
        wall_clock.frozen_for = 5

        assert verdicts(client.send(notifications(10))) == {Verdict.ACCEPTED: 10}

    def test_a_connection_that_answers_ping_is_used_on(
        self, client: ApnsClient, apns: ApnsControl, wall_clock: WallClock
    ) -> None:
        before = apns.status()["connections_made"]
        client.send(notifications(1))
        wall_clock.frozen_for = 30

        client.send(notifications(1))

        assert apns.status()["connections_made"] == before + 1

    @pytest.mark.parametrize("seconds", [61, -3600])
    def test_after_a_minute_of_wall_time_or_a_jump_of_the_clock_the_connection_is_a_new_one(
        self, client: ApnsClient, apns: ApnsControl, wall_clock: WallClock, seconds: float
    ) -> None:
        before = apns.status()["connections_made"]
        client.send(notifications(1))
        wall_clock.frozen_for = seconds

        client.send(notifications(1))

        assert apns.status()["connections_made"] == before + 2

    def test_a_connection_that_says_nothing_any_more_is_given_up(
        self, impatient: ApnsClient, apns: ApnsControl
    ) -> None:
        impatient.send(notifications(1))
        apns.disturb("freeze")

        # It is in use all the time, so nobody asks whether it lives; its requests go to the next one.
        assert verdicts(impatient.send(notifications(10))) == {Verdict.ACCEPTED: 10}

    def test_a_service_that_wants_no_connections_is_left_alone_soon(
        self, client: ApnsClient, apns: ApnsControl
    ) -> None:
        before = apns.status()["connections_made"]
        apns.behave(max_connections=0)

        assert set(client.send(notifications(2))) == {
            Outcome(Verdict.PASSING, "APNs takes no requests: TooManyConnections")
        }
        assert apns.status()["connections_made"] == before + 3

    def test_nobody_listening_is_a_passing_failure(
        self, connect: Callable[..., ApnsClient], identity: PushIdentity
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            client = connect(identity, url=f"https://127.0.0.1:{unused.getsockname()[1]}")

            assert client.send([notification()]) == [Outcome(Verdict.PASSING, "no connection: ConnectionRefusedError")]

    def test_a_server_that_is_not_trusted_hears_nothing(
        self, connect: Callable[..., ApnsClient], apns: ApnsControl, identity: PushIdentity
    ) -> None:
        (outcome,) = connect(identity, trust_anchor="").send(notifications(1))

        assert outcome.verdict is Verdict.PASSING
        assert outcome.reason.startswith("the server's certificate is not trusted")
        assert apns.pushes() == []


class TestCertificate:
    def test_a_certificate_of_another_authority_is_refused(
        self, connect: Callable[..., ApnsClient], apns: ApnsControl
    ) -> None:
        foreign = PushIdentity.decode(apns.issue(TOPIC, foreign=True))

        (outcome,) = connect(foreign).send(notifications(1))

        assert (outcome.verdict, outcome.status) == (Verdict.REFUSED, None)
        assert "UNKNOWN_CA" in outcome.reason

    def test_an_expired_certificate_is_refused(self, connect: Callable[..., ApnsClient], apns: ApnsControl) -> None:
        expired = PushIdentity.decode(apns.issue(TOPIC, days=-1))

        (outcome,) = connect(expired).send(notifications(1))

        assert outcome.verdict is Verdict.REFUSED
        assert "EXPIRED" in outcome.reason

    def test_a_revoked_certificate_is_refused(self, connect: Callable[..., ApnsClient], apns: ApnsControl) -> None:
        topic = "com.apple.mgmt.External.revoked"
        revoked = PushIdentity.decode(apns.issue(topic))
        apns.revoke(topic)

        assert connect(revoked).send(notifications(1)) == [Outcome(Verdict.REFUSED, "BadCertificate", 403)]

    def test_its_private_key_does_not_stay_on_the_disk(
        self, client: ApnsClient, apns: ApnsControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

        client.send(notifications(1))

        assert list(tmp_path.iterdir()) == []
