"""The admin function: push certificates, enrollment links, webhooks and enrollments."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.apns.portal import Authority
from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests import admin_api
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet
from tests.gateway import Answer, Gateway

REPOSITORY = Path(__file__).parents[2]
OTHER_TOPIC = "com.apple.mgmt.External.99999999-8888-7777-6666-555555555555"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("Authority of push certificates")


@pytest.fixture(scope="module")
def push_certificate(authority: Authority) -> bytes:
    return authority.issue_push(TOPIC)


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(admin_api.handle)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC)))


def upload(gateway: Gateway, pem: bytes) -> Answer:
    """Upload as ``curl -T`` does: with no content type."""
    return gateway.request("PUT", "/v1/pushcert", pem)


def test_the_version_is_the_packages(gateway: Gateway) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    answer = gateway.get("/version")

    assert (answer.status, answer.document["version"]) == (200, project["version"])
    assert set(answer.document) >= {"version", "branch", "revision", "go_version", "build_date", "build_user"}


# Push certificates


def test_a_push_certificate_is_stored_and_shown_in_nanomdms_form(gateway: Gateway, push_certificate: bytes) -> None:
    stored = upload(gateway, push_certificate)
    shown = gateway.get("/v1/pushcert", topic=TOPIC)

    assert stored.status == shown.status == 200
    assert stored.headers["content-type"] == "application/json"
    not_after = stored.document["not_after"]
    assert stored.body.decode() == f'{{\n\t"topic": "{TOPIC}",\n\t"not_after": "{not_after}"\n}}\n'
    assert shown.body == stored.body
    assert datetime.fromisoformat(not_after) > datetime.now(UTC)


def test_the_key_may_stand_before_the_certificate(gateway: Gateway, push_certificate: bytes) -> None:
    certificate, key = push_certificate.split(b"-----END CERTIFICATE-----\n")

    assert upload(gateway, key + certificate + b"-----END CERTIFICATE-----\n").status == 200


def test_a_topic_can_be_forgotten_when_its_certificate_has_ended(gateway: Gateway, push_certificate: bytes) -> None:
    upload(gateway, push_certificate)

    refused = gateway.request("DELETE", f"/v2/push-certificates/{TOPIC}")
    tables.PushCertificate("push_certificate", TOPIC).update([tables.PushCertificate.not_after.set(1)])
    deleted = [gateway.request("DELETE", f"/v2/push-certificates/{TOPIC}").status for _ in range(2)]

    assert (refused.status, refused.document["code"]) == (409, "certificate_in_use")
    assert deleted == [204, 204]
    assert gateway.get("/v2/push-certificates").document["push_certificates"] == []


def test_all_push_certificates_are_listed_without_their_keys(
    gateway: Gateway, authority: Authority, push_certificate: bytes
) -> None:
    upload(gateway, push_certificate)
    upload(gateway, authority.issue_push(OTHER_TOPIC))
    listed = gateway.get("/v2/push-certificates")

    assert [entry["topic"] for entry in listed.document["push_certificates"]] == [TOPIC, OTHER_TOPIC]
    assert all(set(entry) == {"topic", "not_after"} for entry in listed.document["push_certificates"])


def test_what_is_wrong_with_a_push_certificate_is_told(
    gateway: Gateway, authority: Authority, push_certificate: bytes
) -> None:
    other_key = authority.issue_push(TOPIC).split(b"-----END CERTIFICATE-----\n")[1]
    without_key = push_certificate.split(b"-----BEGIN PRIVATE KEY-----")[0]
    answers = {
        "nothing": upload(gateway, b""),
        "no key": upload(gateway, without_key),
        "another's key": upload(gateway, without_key + other_key),
        "no topic": upload(gateway, authority.issue_server()),
    }

    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 400)
    assert answers["no key"].document["code"] == "private_key_missing"
    assert answers["another's key"].document["code"] == "private_key_of_another_certificate"
    assert all(answer.document["error"] for answer in answers.values())
    assert gateway.get("/v1/pushcert", topic=TOPIC).status == 404


def test_a_push_certificate_is_asked_for_by_its_topic(gateway: Gateway) -> None:
    without = gateway.get("/v1/pushcert")
    unknown = gateway.get("/v1/pushcert", topic=OTHER_TOPIC)

    assert (without.status, without.document["error"]) == (400, "missing required query parameter: topic")
    assert (unknown.status, unknown.document["code"]) == (404, "push_certificate_not_found")


def test_no_private_key_reaches_the_log_or_the_table(
    gateway: Gateway, push_certificate: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(gateway, push_certificate)
    upload(gateway, push_certificate.replace(b"MII", b"XXX"))
    item = tables.PushCertificate.get("push_certificate", TOPIC)

    assert "PRIVATE KEY" not in capsys.readouterr().out
    assert b"PRIVATE KEY" not in item.private_key


# Enrollment links


def make_link(gateway: Gateway, **fields: Any) -> Answer:
    return gateway.post("/v2/enrollment-links", fields)


def test_a_link_is_refused_while_there_is_no_push_certificate(gateway: Gateway) -> None:
    answer = make_link(gateway)

    assert (answer.status, answer.document["code"]) == (409, "push_certificate_not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert gateway.get("/v2/enrollment-links").document["enrollment_links"] == []


def test_a_link_tells_its_url_once(gateway: Gateway, environment: Settings, push_certificate: bytes) -> None:
    upload(gateway, push_certificate)
    made = make_link(gateway, expires_in=3600, max_uses=3, note="Ada's laptop")
    listed = gateway.get("/v2/enrollment-links")

    assert made.status == 201
    assert made.headers["cache-control"] == "no-store"
    url = made.document["url"]
    assert url.startswith(f"{environment.device_url}/mdm/enroll/")
    assert made.document["topic"] == TOPIC
    assert (made.document["uses"], made.document["max_uses"], made.document["note"]) == (0, 3, "Ada's laptop")
    lifetime = _instant(made.document["expires_at"]) - _instant(made.document["created_at"])
    assert lifetime.total_seconds() == 3600
    assert listed.document["enrollment_links"] == [
        {name: value for name, value in made.document.items() if name != "url"}
    ]
    assert url.rsplit("/", 1)[1] not in listed.body.decode()


def test_the_first_link_makes_the_ca(gateway: Gateway, push_certificate: bytes) -> None:
    upload(gateway, push_certificate)
    assert list(tables.CertificateAuthority.query("ca")) == []
    make_link(gateway)

    assert [authority.name for authority in tables.CertificateAuthority.query("ca")] == ["scep"]


def test_a_revoked_link_is_listed_as_such(gateway: Gateway, push_certificate: bytes) -> None:
    upload(gateway, push_certificate)
    link = make_link(gateway).document["id"]

    assert gateway.delete(f"/v2/enrollment-links/{link}").status == 204
    assert gateway.delete(f"/v2/enrollment-links/{link}").status == 204
    assert gateway.get("/v2/enrollment-links").document["enrollment_links"][0]["revoked"] is True


def test_revoking_what_is_no_link_is_404(gateway: Gateway) -> None:
    answer = gateway.delete("/v2/enrollment-links/0123")

    assert (answer.status, answer.document["code"]) == (404, "link_not_found")


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"max_use": 1}, "unknown_field", "max_use"),
        ({"max_uses": 0}, "invalid_field", "max_uses"),
        ({"max_uses": True}, "invalid_field", "max_uses"),
        ({"max_uses": 1.5}, "invalid_field", "max_uses"),
        ({"expires_in": 59}, "invalid_field", "expires_in"),
        ({"expires_in": "soon"}, "invalid_field", "expires_in"),
        ({"note": "x" * 1_001}, "invalid_field", "note"),
        ({"note": ["x"]}, "invalid_field", "note"),
        ({"topic": OTHER_TOPIC}, "bad_request", "topic"),
    ],
)
def test_a_field_of_a_link_that_is_wrong_is_named(
    gateway: Gateway, push_certificate: bytes, fields: dict[str, Any], code: str, field: str
) -> None:
    upload(gateway, push_certificate)
    answer = make_link(gateway, **fields)

    assert (answer.status, answer.document["code"], answer.document["field"]) == (400, code, field)
    assert answer.document["detail"]


# Webhooks


def test_a_webhook_lives_until_it_is_deleted(gateway: Gateway, environment: Settings, aws: Emulator) -> None:
    made = gateway.post(
        "/v2/webhooks", {"url": "https://example.org/hook", "topics": ["mdm.Connect"], "hmac_key": "hunter2"}
    )
    subscription = made.document["id"]
    listed = gateway.get("/v2/webhooks")

    assert made.status == 201
    assert (made.document["topics"], made.document["signed"]) == (["mdm.Connect"], True)
    assert listed.document["webhooks"] == [made.document]
    assert "hunter2" not in (made.body + listed.body).decode()
    assert _rules(aws, environment) == [f"{environment.stack_name}-webhook-{subscription}"]

    assert gateway.delete(f"/v2/webhooks/{subscription}").status == 204
    assert gateway.get("/v2/webhooks").document["webhooks"] == []
    assert _rules(aws, environment) == []
    assert gateway.delete(f"/v2/webhooks/{subscription}").status == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "http://example.org"}, "url"),
        ({"url": 7}, "url"),
        ({"url": "https://example.org", "topics": "mdm Connect"}, "topics"),
        ({"url": "https://example.org", "topics": [1]}, "topics"),
        ({"url": "https://example.org", "topics": {"mdm.Connect": True}}, "topics"),
        ({"url": "https://example.org", "secret": "x"}, "secret"),
    ],
)
def test_a_field_of_a_webhook_that_is_wrong_is_named(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    answer = gateway.post("/v2/webhooks", fields)

    assert (answer.status, answer.document["field"]) == (400, field)


# Enrollments


def test_an_enrollment_shows_what_is_known_and_no_secret(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device("A5EF1BA1")
    device.token_update(b"a push token", UnlockToken=b"an unlock token", AwaitingConfiguration=True)
    answer = gateway.get(f"/v2/enrollments/{device}")
    shown = answer.document

    assert answer.status == 200
    assert (shown["id"], shown["type"], shown["parent_id"]) == ("A5EF1BA1", "Device", None)
    assert (shown["state"], shown["enabled"], shown["blocked"]) == ("enrolled", True, False)
    assert (shown["serial_number"], shown["os_version"]) == ("C02XXXX", "15.1")
    assert shown["push"] == {"topic": TOPIC, "token_known": True, "failure": None, "failed_at": None}
    assert shown["identity"]["sha256"] == device.certificate.hash
    assert (shown["identity"]["renewal_attempts"], shown["identity"]["renewal_queued_at"]) == (0, None)
    assert shown["token_update_tally"] == 2
    assert shown["awaiting_configuration"] is True
    assert _instant(shown["enrolled_at"]) <= datetime.now(UTC)
    for secret in (b"a push token", b"an unlock token", b"magic"):
        assert secret not in answer.body
        assert secret.hex().encode() not in answer.body


def test_the_ids_of_user_channels_come_through_the_path(gateway: Gateway, fleet: Fleet) -> None:
    user = fleet.device("A5EF1BA1").user("FF00")
    user.token_update(UserShortName="ada", UserLongName="Ada Lovelace")
    shown = gateway.get(f"/v2/enrollments/{user}").document

    assert (shown["id"], shown["parent_id"], shown["type"]) == ("A5EF1BA1:FF00", "A5EF1BA1", "User")
    assert (shown["user_short_name"], shown["user_long_name"]) == ("ada", "Ada Lovelace")


@pytest.mark.parametrize("enrollment_id", ["nobody", "x" * 3_000, "command#1", "cert#ab"])
def test_what_is_no_enrollment_is_404(gateway: Gateway, enrollment_id: str) -> None:
    answer = gateway.request("GET", f"/v2/enrollments/{enrollment_id}")

    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")


def test_enrollments_are_listed_across_all_shards_page_by_page(gateway: Gateway, fleet: Fleet) -> None:
    udids = {f"DEVICE-{number}" for number in range(40)}
    for udid in udids:
        fleet.device(udid)
    assert len({tables.shard_of(udid) for udid in udids}) > 8

    pages = [page["enrollments"] for page in _pages(gateway, "/v2/enrollments", limit="7")]

    assert [len(page) for page in pages] == [7, 7, 7, 7, 7, 5]
    assert {entry["id"] for page in pages for entry in page} == udids


def test_one_page_is_enough_when_all_fit(gateway: Gateway, fleet: Fleet) -> None:
    fleet.device("A")

    document = gateway.get("/v2/enrollments").document
    assert [entry["id"] for entry in document["enrollments"]] == ["A"]
    assert document["next_cursor"] is None
    assert set(document["enrollments"][0]) < set(gateway.get("/v2/enrollments/A").document)


def test_enrollments_are_filtered_by_type_and_state(gateway: Gateway, fleet: Fleet) -> None:
    gone = fleet.device("GONE")
    gone.check_out()
    here = fleet.device("HERE")
    user = here.user("USER")
    user.token_update(UserShortName="ada")

    assert _ids(gateway) == ["GONE", "HERE", "HERE:USER"]
    assert _ids(gateway, type="Device") == ["GONE", "HERE"]
    assert _ids(gateway, type="Device,User", state="enrolled") == ["HERE", "HERE:USER"]
    assert _ids(gateway, state="checked_out") == ["GONE"]


def test_a_user_channel_ends_with_its_device_also_in_lists(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device("DEVICE")
    user = device.user("USER")
    user.token_update(UserShortName="ada")
    assert _enabled(gateway) == {"DEVICE": True, "DEVICE:USER": True}
    device.check_out()

    assert _enabled(gateway) == {"DEVICE": False, "DEVICE:USER": False}
    assert gateway.get("/v2/enrollments/DEVICE:USER").document["enabled"] is False


def test_enrollments_are_found_by_serial_number_and_by_parent(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device("DEVICE")
    device.authenticate(SerialNumber="C02SERIAL")
    device.token_update()
    user = device.user("USER")
    user.token_update(UserShortName="ada")
    fleet.device("OTHER")

    assert _ids(gateway, serial_number="C02SERIAL", type="Device") == ["DEVICE"]
    assert _ids(gateway, serial_number="nothing") == []
    assert _ids(gateway, parent_id="DEVICE") == ["DEVICE:USER"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"type": "Toaster"}, "type"),
        ({"state": "on"}, "state"),
        ({"serial": "C02"}, "serial"),
        ({"cursor": "enpr"}, "cursor"),
        ({"cursor": "!"}, "cursor"),
    ],
)
def test_a_filter_that_is_wrong_is_named(gateway: Gateway, query: dict[str, str], field: str) -> None:
    answer = gateway.get("/v2/enrollments", **query)

    assert (answer.status, answer.document["field"]) == (400, field)


def test_deleted_enrollments_are_nowhere(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device("DEVICE")
    device.record.update([tables.Enrollment.state.set("deleted")])

    assert _ids(gateway) == []
    assert gateway.get("/v2/enrollments/DEVICE").status == 404


def test_reading_changes_nothing(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device("DEVICE")
    before = device.record.attribute_values
    for path in ("/v2/enrollments", "/v2/enrollments/DEVICE"):
        gateway.get(path)

    assert device.record.attribute_values == before


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _pages(gateway: Gateway, path: str, **query: str) -> Any:
    while True:
        document = gateway.get(path, **query).document
        yield document
        if document["next_cursor"] is None:
            return
        query["cursor"] = document["next_cursor"]


def _ids(gateway: Gateway, **query: str) -> list[str]:
    return sorted(entry["id"] for page in _pages(gateway, "/v2/enrollments", **query) for entry in page["enrollments"])


def _enabled(gateway: Gateway) -> dict[str, bool]:
    entries = gateway.get("/v2/enrollments").document["enrollments"]
    return {entry["id"]: entry["enabled"] for entry in entries}


def _rules(aws: Emulator, settings: Settings) -> list[str]:
    rules = aws.events.list_rules(EventBusName=settings.event_bus)["Rules"]
    return [rule["Name"] for rule in rules if "-webhook-" in rule["Name"]]
