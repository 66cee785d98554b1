"""Plans that need no blueprint: inventory, FileVault, lock, profiles and certificates; and what is escrowed."""

import json
import plistlib
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from local.emulator import Emulator
from mdmlib.apple import cms_envelope
from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.services.inventory import InventoryStore
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.workflows import Works

KEY = "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF"
OTHER = "1111-2222-3333-4444-5555-6666"
WHO = {"who": "arn:aws:iam::1:user/ada", "why": "its user forgot the password"}


@pytest.fixture
def works(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Works:
    return Works(Fleet(aws, settings, sealer, clock))


@pytest.fixture
def mac(works: Works) -> FleetDevice:
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber="C02D1")
    device.token_update()
    works.work()
    return device


def start(works: Works, kind: str, **options: Any) -> None:
    assert not works.builtin.start(kind, ["D1"], options).refused
    works.work()


def take(device: FleetDevice, request_type: str) -> dict[str, Any]:
    command = device.command("Idle")
    assert command is not None
    assert command["Command"]["RequestType"] == request_type
    return command


def answer(works: Works, device: FleetDevice, command: dict[str, Any], **fields: Any) -> None:
    device.command("Acknowledged", command["CommandUUID"], **fields)
    works.work()


def envelope(works: Works, key: str) -> bytes:
    certificate = x509.load_der_x509_certificate(works.filevault.identity().certificate)
    return cms_envelope.seal(key.encode(), recipient=certificate, cipher=cms_envelope.AES_256)


@cache
def ours() -> bytes:
    authority = new_certificate_authority("Ours", now=datetime(2026, 1, 1, tzinfo=UTC))
    return authority.certificate.public_bytes(Encoding.DER)


def tell(works: Works, device: FleetDevice, *, version: str, apps: dict[str, str], encrypted: bool) -> None:
    start(works, "inventory")
    answers: dict[str, Any] = {
        "DeviceInformation": {"QueryResponses": {"OSVersion": version, "Model": "Z1", "IsAppleSilicon": True}},
        "SecurityInfo": {"SecurityInfo": {"FDE_Enabled": encrypted, "SystemIntegrityProtectionEnabled": True}},
        "InstalledApplicationList": {
            "InstalledApplicationList": [
                {"Identifier": name, "ShortVersion": short, "Name": name.title()} for name, short in apps.items()
            ]
        },
        "CertificateList": {
            "CertificateList": [
                {"CommonName": "Ours", "IsIdentity": False, "Data": ours()},
                {"CommonName": "broken", "IsIdentity": True, "Data": b"x"},
            ]
        },
    }
    for kind, fields in answers.items():
        answer(works, device, take(device, kind), **fields)


def test_inventory_is_kept_searched_and_its_changes_are_told(works: Works, mac: FleetDevice) -> None:
    with pytest.raises(NotFoundError):
        works.inventory.get("D1")
    tell(works, mac, version="26.1", apps={"a": "1", "b": "1"}, encrypted=False)
    assert works.plan(mac, "inventory").state == "done"
    known = works.inventory.get("D1").known
    assert {name: known.keys[name] for name in ("os_version", "fde_enabled", "sip_enabled", "apple_silicon")} == {
        "os_version": "26.1",
        "fde_enabled": False,
        "sip_enabled": True,
        "apple_silicon": True,
    }
    assert {one["common_name"] for one in known.certificates.values()} == {"Ours", "broken"}
    assert works.inventory.changes("D1", limit=100) == []

    works.fleet.clock.advance(days=1)
    tell(works, mac, version="26.1", apps={"a": "2", "c": "1"}, encrypted=True)

    changes = {
        name: change for _, changed in works.inventory.changes("D1", limit=100) for name, change in changed.items()
    }
    assert changes == {
        "fde_enabled": [False, True],
        "app a": ["1", "2"],
        "app b": ["1", None],
        "app c": [None, "1"],
    }

    def found(**filters: str) -> list[str]:
        page = works.inventory.search(filters, limit=10, after="")
        assert (page.position, page.examined) == (None, 1)
        return [one.enrollment_id for one in page.found]

    assert found(app="c") == found(app="a@2", fde_enabled="True") == found(certificate="Ours") == ["D1"]
    assert found(app="b") == found(app="a@1") == found(os_version="15") == found(certificate="theirs") == []
    with pytest.raises(BadRequestError, match="nothing to search for"):
        found(colour="red")


def test_a_search_reaches_the_end_of_the_fleet_page_by_page_although_devices_tell_anew_meanwhile(works: Works) -> None:
    store = InventoryStore(sealer=works.fleet.sealer, now=works.fleet.clock, examined=7)

    def take(number: int, version: str) -> None:
        record = FleetDevice(works.fleet, f"D{number:03}").record
        store.take(record, "DeviceInformation", {"QueryResponses": {"OSVersion": version}})

    for number in range(60):
        works.fleet.device(f"D{number:03}")
        take(number, "26.1" if number % 4 else "15.7")
    found: list[str] = []
    examined, after = 0, ""
    while True:
        page = store.search({"os_version": "15.7"}, limit=3, after=after)
        assert (len(page.found) <= 3, page.examined <= 7) == (True, True)
        found += [one.enrollment_id for one in page.found]
        examined += page.examined
        if page.position is None:
            break
        after = page.position
        works.fleet.clock.advance(seconds=1)
        take(examined % 60, "15.7" if not examined % 60 % 4 else "26.1")

    assert set(found) == {f"D{number:03}" for number in range(0, 60, 4)}
    assert examined >= 60


def test_filevault_is_turned_on_awaited_and_its_key_escrowed(works: Works, mac: FleetDevice) -> None:
    start(works, "filevault_enable")
    answer(works, mac, take(mac, "ProfileList"), ProfileList=[])
    installed = take(mac, "InstallProfile")
    payloads = plistlib.loads(installed["Command"]["Payload"])["PayloadContent"]
    assert [one["PayloadType"] for one in payloads] == [
        "com.apple.security.FDERecoveryKeyEscrow",
        "com.apple.MCX.FileVault2",
        "com.apple.security.pkcs1",
    ]
    assert payloads[2]["PayloadContent"] == works.filevault.identity().certificate
    answer(works, mac, installed)
    answer(works, mac, take(mac, "SecurityInfo"), SecurityInfo={"FDE_Enabled": False})
    assert works.steps(mac, "filevault_enable")["escrow the recovery key"] == "waiting"

    works.fleet.clock.advance(minutes=2)
    works.plans.resume("D1", "filevault_enable", works.plan(mac, "filevault_enable").item.run)
    told = {"FDE_Enabled": True, "FDE_PersonalRecoveryKeyCMS": envelope(works, KEY)}
    answer(works, mac, take(mac, "SecurityInfo"), SecurityInfo=told)

    assert works.plan(mac, "filevault_enable").state == "done"
    assert works.inventory.get("D1").known.keys["prk_escrowed"] is True
    assert works.topics("mdm.SecretRevealed") == []
    revealed = works.escrow.reveal("C02D1", "filevault_key", **WHO)
    assert (revealed.value, KEY in repr(revealed)) == (KEY, False)
    (event,) = works.topics("mdm.SecretRevealed")
    assert event["escrow_event"] == {"owner": "C02D1", "enrollment_id": "D1", "kind": "filevault_key", **WHO}


def test_a_key_is_rotated_by_the_one_that_is_escrowed_and_both_are_kept(works: Works, mac: FleetDevice) -> None:
    start(works, "filevault_rotate")
    (step,) = works.plan(mac, "filevault_rotate").document.steps
    assert (step.state, step.reason) == ("failed", "No recovery key of this Mac is escrowed.")
    works.escrow.put_once(mac.record, "filevault_key", lambda: KEY, name="first")

    start(works, "filevault_rotate")
    command = take(mac, "RotateFileVaultKey")
    assert command["Command"]["FileVaultUnlock"] == {"Password": KEY}
    works.fleet.clock.advance(seconds=1)
    answer(works, mac, command, RotateResult={"EncryptedNewRecoveryKey": envelope(works, OTHER)})

    assert works.plan(mac, "filevault_rotate").state == "done"
    assert works.escrow.reveal("C02D1", "filevault_key", **WHO).value == OTHER
    assert len(works.escrow.list("C02D1")) == 2
    assert [event["escrow_event"]["who"] for event in works.topics("mdm.SecretRevealed")] == [
        "the plan filevault_rotate",
        WHO["who"],
    ]


@pytest.mark.parametrize("told", [b"x", None, "for another"])
def test_a_key_that_cannot_be_read_is_said_and_nothing_escrowed(works: Works, mac: FleetDevice, told: Any) -> None:
    works.escrow.put_once(mac.record, "filevault_key", lambda: KEY, name="first")
    if told == "for another":
        other = new_certificate_authority("Other", now=datetime(2026, 1, 1, tzinfo=UTC)).certificate
        told = cms_envelope.seal(OTHER.encode(), recipient=other, cipher=cms_envelope.AES_256)
    start(works, "filevault_rotate")

    fields = {"EncryptedNewRecoveryKey": told} if told else {}
    answer(works, mac, take(mac, "RotateFileVaultKey"), RotateResult=fields)

    assert works.plan(mac, "filevault_rotate").state == "failed"
    assert works.escrow.reveal("C02D1", "filevault_key", **WHO).value == KEY


def test_a_mac_is_locked_with_a_pin_that_is_escrowed_before(works: Works, mac: FleetDevice) -> None:
    start(works, "lock", message="Bring it back")
    command = take(mac, "DeviceLock")["Command"]

    assert re.fullmatch(r"\d{6}", command["PIN"])
    assert command["Message"] == "Bring it back"
    assert works.escrow.reveal("C02D1", "lock_pin", **WHO).value == command["PIN"]
    assert works.builtin.start("lock", ["D1"], {}).refused["D1"].code == "already_running"
    # The same step again has the same PIN.
    (step,) = works.plan(mac, "lock").document.steps
    device = works.plans.situation("D1", "lock").device
    assert works.actions["lock_device"].command(step, works.plan(mac, "lock").document, device) == command


def test_what_is_escrowed_outlives_the_enrollment_and_is_never_overwritten(works: Works, mac: FleetDevice) -> None:
    assert works.escrow.put_once(mac.record, "lock_pin", lambda: "111111", name="a") == "111111"
    assert works.escrow.put_once(mac.record, "lock_pin", lambda: "222222", name="a") == "111111"
    mac.check_out()

    assert works.escrow.reveal("C02D1", "lock_pin", **WHO).value == "111111"
    assert works.escrow.list("C02D1")[0].revealed_at is not None
    for owner, kind in (("C02D1", "filevault_key"), ("nobody", "lock_pin"), ("a#b", "lock_pin")):
        with pytest.raises(NotFoundError):
            works.escrow.reveal(owner, kind, **WHO)
    with pytest.raises(BadRequestError, match="why"):
        works.escrow.reveal("C02D1", "lock_pin", who="ada", why=" ")


def test_profiles_are_installed_and_removed_by_their_names(works: Works, mac: FleetDevice) -> None:
    works.names.put("wifi", plistlib.dumps({"PayloadIdentifier": "p.wifi", "PayloadUUID": "U1"}))
    works.names.put("vpn", plistlib.dumps({"PayloadIdentifier": "p.vpn", "PayloadUUID": "U1"}))
    works.nanocmd.start("io.micromdm.wf.profile.v1", ["D1"], "wifi, -vpn")
    works.work()

    listed = [{"PayloadIdentifier": "p.vpn", "PayloadUUID": "U1"}]
    answer(works, mac, take(mac, "ProfileList"), ProfileList=listed)
    install = take(mac, "InstallProfile")
    remove = mac.command("Acknowledged", install["CommandUUID"])
    assert remove is not None
    assert remove["Command"] == {"RequestType": "RemoveProfile", "Identifier": "p.vpn"}


@pytest.mark.parametrize(("days_left", "sent"), [(10, False), (400, True)])
def test_a_profile_is_installed_again_whose_certificate_ends_soon(
    works: Works, mac: FleetDevice, days_left: int, *, sent: bool
) -> None:
    works.names.put("scep", plistlib.dumps({"PayloadIdentifier": "p.scep", "PayloadUUID": "U1"}))
    authority = new_certificate_authority("Wi-Fi", now=works.fleet.clock() - timedelta(days=3_500)).certificate
    data = authority.public_bytes(Encoding.DER)
    start(works, "certificate_profile", profile="scep", common_name_prefix="Wi", days_left=days_left)

    told = [{"CommonName": "Wi-Fi CA", "IsIdentity": True, "Data": data}, {"CommonName": "X", "Data": data}]
    answer(works, mac, take(mac, "CertificateList"), CertificateList=told)

    assert (mac.command("Idle") is not None) is sent


def test_a_command_plan_begins_when_a_device_enrolls(works: Works) -> None:
    works.names.put("wifi", plistlib.dumps({"PayloadIdentifier": "p.wifi", "PayloadUUID": "U1"}))
    urls = ["https://a.example.org/a.plist", "https://a.example.org/b.plist"]
    works.names.put_command_plan("all", {"profile_names": ["wifi"], "manifest_urls": urls, "device_configured": True})
    works.events.put("e", {"event": "Enrollment", "workflow": "io.micromdm.wf.cmdplan.v1", "context": "${plan:all}"})
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1")
    device.token_update(AwaitingConfiguration=True)
    works.work(times=2)

    answer(works, device, take(device, "ProfileList"), ProfileList=[])
    done: list[Any] = []
    command = device.command("Idle")
    while command is not None:
        done.append(command["Command"].get("ManifestURL") or command["Command"]["RequestType"])
        device.command("Acknowledged", command["CommandUUID"])
        works.work()
        command = device.command("Idle")
    assert done == ["InstallProfile", *urls, "DeviceConfigured"]


INVENTORY = "io.micromdm.wf.inventory.v1"


def finish(works: Works, device: FleetDevice) -> list[str]:
    """Let a device do all that waits; return what it did."""
    done = []
    command = device.command("Idle")
    while command is not None:
        done.append(command["Command"]["RequestType"])
        command = device.command("Acknowledged", command["CommandUUID"])
    works.work()
    return done


def test_inventory_is_taken_again_when_a_device_asks_for_commands_and_has_told_nothing_for_a_day(
    works: Works, mac: FleetDevice
) -> None:
    mac.command("Idle")
    works.work()
    assert works.bus_rules.enabled() == []
    works.events.put("daily", {"event": "IdleNotStartedSince", "workflow": INVENTORY, "event_context": "86400"})
    assert works.bus_rules.enabled() == ["idle"]

    def idle() -> list[str]:
        works.fleet.clock.advance(minutes=1)
        assert mac.command("Idle") is None
        works.work(times=2)
        return finish(works, mac)

    asked = ["DeviceInformation", "SecurityInfo", "InstalledApplicationList", "CertificateList"]
    assert idle() == asked
    assert idle() == []
    works.fleet.clock.advance(hours=24)
    assert idle() == asked
    assert works.plan(mac, "inventory").item.cause == "event"
    works.events.delete("daily")
    assert works.bus_rules.enabled() == []
    works.fleet.clock.advance(hours=24)
    assert idle() == []


def test_a_workflow_of_idle_devices_begins_once_each_time_that_they_ask(works: Works, mac: FleetDevice) -> None:
    works.events.put("always", {"event": "Idle", "workflow": "io.micromdm.wf.devinfolog.v1"})
    user = mac.user()
    user.token_update(UserShortName="ada")
    user.idle()
    mac.idle()
    works.fleet.clock.advance(minutes=1)
    heard = works.messages()
    for message in heard:
        works.workflow.receive(message)

    # The device is woken, and asks for the command: that begins no other plan, however late it is heard of.
    assert finish(works, mac) == ["DeviceInformation"]
    works.work(times=2)
    assert mac.idle() is None
    works.work()
    assert mac.idle() is None
    works.fleet.clock.advance(hours=1)
    assert mac.idle() is None
    works.work()
    assert finish(works, mac) == ["DeviceInformation"]


def test_workflows_begin_when_devices_check_in_and_those_before_their_enrollment_wake_them_then(works: Works) -> None:
    works.events.put("first", {"event": "Authenticate", "workflow": INVENTORY})
    works.events.put("each", {"event": "TokenUpdate", "workflow": "io.micromdm.wf.devinfolog.v1"})
    assert works.bus_rules.enabled() == ["checkins"]
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1")
    works.work(times=2)
    assert works.plan(device, "inventory").state == "running"
    device.token_update()
    works.work(times=2)

    assert sorted(finish(works, device)) == sorted(
        ["DeviceInformation", "SecurityInfo", "InstalledApplicationList", "CertificateList", "DeviceInformation"]
    )
    works.fleet.clock.advance(minutes=1)
    device.token_update(b"another")
    works.work(times=2)
    assert finish(works, device) == ["DeviceInformation"]
    for name in ("first", "each"):
        works.events.delete(name)
    assert works.bus_rules.enabled() == []


def test_a_device_without_a_value_for_a_profile_is_named_before_its_plan_begins(works: Works, mac: FleetDevice) -> None:
    stored = {"PayloadIdentifier": "p.room", "PayloadUUID": "U1", "Room": "{{values.room}}"}
    works.names.put("room", plistlib.dumps(stored))
    other = FleetDevice(works.fleet, "D2")
    other.authenticate(ProductName="Mac14,2", SerialNumber="C02D2")
    other.token_update()
    works.attributes.put("C02D2", tags=[], values={"room": "12"})
    for kind, options in (("profiles", {"install": ["room"]}), ("certificate_profile", {"profile": "room"})):
        refused = works.builtin.start(kind, [str(mac), str(other)], options).refused
        assert [(id_, error.code) for id_, error in refused.items()] == [("D1", "variable_missing")]


def test_a_workflow_that_cannot_begin_any_more_stops_no_other(works: Works) -> None:
    works.names.put("wifi", plistlib.dumps({"PayloadIdentifier": "p.wifi", "PayloadUUID": "U1"}))
    works.events.put("a", {"event": "Enrollment", "workflow": "io.micromdm.wf.profile.v1", "context": "wifi"})
    works.events.put("b", {"event": "Enrollment", "workflow": INVENTORY})
    works.names.delete("wifi")
    device = works.fleet.device("D1")
    works.work(times=2)

    assert [plan.kind for plan in works.plan_list.of_enrollment(str(device))] == ["inventory"]


def test_rules_that_an_update_has_disabled_are_enabled_again(works: Works) -> None:
    works.events.put("always", {"event": "Idle", "workflow": INVENTORY})
    works.bus_rules.disable_rule(Name=f"{works.fleet.settings.stack_name}-workflow-idle", EventBusName="bus")
    works.events.keep_rules()

    assert works.bus_rules.enabled() == ["idle"]


def test_texts_of_a_profile_are_replaced_and_no_queue_tells_them(works: Works, mac: FleetDevice) -> None:
    stored = {"PayloadIdentifier": "p.scep", "PayloadUUID": "U1", "Challenge": "%CH%", "Name": "{{serial_number}}"}
    works.names.put("scep", plistlib.dumps(stored))
    context = {"profile": "scep", "text_replacements": {"%CH%": "se<cret", "%C": "no"}, "criteria": {}}
    works.nanocmd.start("io.micromdm.wf.certprof.v1", ["D1"], json.dumps(context))
    messages = works.messages()
    assert "se<cret" not in "".join(messages)
    for message in messages:
        works.workflow.receive(message)
    answer(works, mac, take(mac, "CertificateList"), CertificateList=[])

    sent = plistlib.loads(take(mac, "InstallProfile")["Command"]["Payload"])
    assert (sent["Challenge"], sent["Name"]) == ("se<cret", "C02D1")


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("certificate_profile", {"profile": "p", "text_replacements": {"a": 1}}, "options.text_replacements"),
        ("nothing", {}, "kind"),
        ("inventory", {"x": 1}, "options.x"),
        ("profiles", {}, "options.install"),
        ("profiles", {"install": "x"}, "options.install"),
        ("profiles", {"install": ["nowhere"]}, "profile"),
        ("command_plan", {"manifest_urls": ["http://x"]}, "options.manifest_urls"),
        ("certificate_profile", {}, "options.profile"),
    ],
)
def test_what_is_wrong_is_said_before_anything_begins(
    works: Works, mac: FleetDevice, kind: str, options: dict[str, Any], field: str
) -> None:
    works.profiles.put("p", plistlib.dumps({"PayloadIdentifier": "p", "PayloadUUID": "U"}))
    with pytest.raises(BadRequestError) as refused:
        works.builtin.start(kind, ["D1"], options)
    assert refused.value.field == field
