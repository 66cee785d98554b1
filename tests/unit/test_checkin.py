"""Check-in messages, decoded."""

import plistlib
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.checkin import (
    MAX_DATA_BYTES,
    MAX_TEXT_LENGTH,
    Authenticate,
    CheckinMessage,
    CheckOut,
    DeclarativeManagement,
    GetBootstrapToken,
    GetToken,
    NewerMessage,
    ReturnToService,
    SetBootstrapToken,
    TokenUpdate,
    UserAuthenticate,
    decode_checkin,
)
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError, MalformedBodyError
from tests.unit.plists import VALUES, message, plist

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
TOPIC = "com.apple.mgmt.External.3a7c95f2-c214-4b53-a585-a553c2623e04"


def token_update(**fields: Any) -> dict[str, Any]:
    return {
        "MessageType": "TokenUpdate",
        "UDID": UDID,
        "Topic": TOPIC,
        "PushMagic": "magic",
        "Token": b"token",
        **fields,
    }


def decode(fields: dict[str, Any]) -> CheckinMessage:
    return decode_checkin(plistlib.dumps(fields))


def refused(fields: dict[str, Any]) -> BadRequestError:
    with pytest.raises(BadRequestError) as error:
        decode(fields)
    return error.value


def test_an_authenticate_describes_its_device() -> None:
    body = message("Authenticate")

    authenticate = decode_checkin(body)

    assert isinstance(authenticate, Authenticate)
    assert authenticate.enrollment_id.value == UDID
    assert authenticate.topic == TOPIC
    assert authenticate.serial_number == "C04W00D3HTD0"
    assert (authenticate.model, authenticate.model_name) == ("MacBookPro14,3", "MacBook Pro")
    assert authenticate.product_name == "MacBookPro14,3"
    assert (authenticate.os_version, authenticate.build_version) == ("10.13.6", "17G65")
    assert authenticate.device_name == "HostName"
    assert (authenticate.imei, authenticate.meid) == (None, None)
    assert authenticate.fields["Challenge"] == b"apple"
    assert authenticate.body == body


def test_an_authenticate_needs_only_a_topic() -> None:
    authenticate = decode({"MessageType": "Authenticate", "UDID": UDID, "Topic": TOPIC, "SerialNumber": ""})

    assert isinstance(authenticate, Authenticate)
    assert authenticate.serial_number is None


def test_a_token_update_says_how_to_push() -> None:
    token_update = decode_checkin(message("TokenUpdate"))

    assert isinstance(token_update, TokenUpdate)
    assert token_update.push_magic == "728F8670-4934-4A30-BADF-7B43C261FC14"
    assert token_update.push_token == b64decode("c3FyHWhjG3tmSA55LFFIQg==")
    assert token_update.unlock_token is None
    assert token_update.awaiting_configuration is False


def test_what_a_token_update_does_not_carry_is_none() -> None:
    absent = decode(token_update())
    empty = decode(token_update(UnlockToken=b"", UserLongName=""))

    for update in (absent, empty):
        assert isinstance(update, TokenUpdate)
        assert update.unlock_token is None
        assert update.user_long_name is None
    assert isinstance(absent, TokenUpdate)
    assert absent.awaiting_configuration is None


def test_a_token_of_any_length_is_taken() -> None:
    for token in (b"t", b"fakeToken", bytes(100)):
        update = decode(token_update(Token=token))
        assert isinstance(update, TokenUpdate)
        assert update.push_token == token


def test_a_user_channel_names_its_user() -> None:
    update = decode(token_update(UserID="U1", UserShortName="anna", UserLongName="Anna Berg", UnlockToken=b"unlock"))

    assert isinstance(update, TokenUpdate)
    assert update.enrollment_id.value == f"{UDID}:U1"
    assert update.enrollment_id.type is EnrollmentType.USER
    assert (update.user_short_name, update.user_long_name) == ("anna", "Anna Berg")
    assert update.unlock_token == b"unlock"


def test_a_check_out_is_read() -> None:
    assert isinstance(decode_checkin(message("CheckOut")), CheckOut)


@pytest.mark.parametrize(
    ("fields", "token"), [({"BootstrapToken": b"bt"}, b"bt"), ({"BootstrapToken": b""}, b""), ({}, b"")]
)
def test_a_bootstrap_token_that_is_missing_or_empty_is_to_be_forgotten(fields: dict[str, Any], token: bytes) -> None:
    decoded = decode({"MessageType": "SetBootstrapToken", "UDID": UDID, **fields})

    assert isinstance(decoded, SetBootstrapToken)
    assert decoded.bootstrap_token == token


def test_a_bootstrap_token_is_asked_for() -> None:
    assert isinstance(decode({"MessageType": "GetBootstrapToken", "UDID": UDID}), GetBootstrapToken)


PAIRING = {"PhoneUDID": "P1", "SecurityToken": "S1", "WatchUDID": "W1"}


def test_a_token_is_asked_for_with_what_its_service_needs() -> None:
    maid = decode({"MessageType": "GetToken", "UDID": UDID, "TokenServiceType": "com.apple.maid"})
    watch = decode(
        {
            "MessageType": "GetToken",
            "UDID": UDID,
            "TokenServiceType": "com.apple.watch.pairing",
            "TokenParameters": PAIRING,
        }
    )

    assert isinstance(maid, GetToken)
    assert (maid.service_type, maid.parameters) == ("com.apple.maid", {})
    assert isinstance(watch, GetToken)
    assert watch.parameters == PAIRING
    assert "S1" not in repr(watch)


@pytest.mark.parametrize("missing", PAIRING)
def test_a_watch_pairing_token_needs_all_its_parameters(missing: str) -> None:
    parameters = {key: value for key, value in PAIRING.items() if key != missing}
    fields = {"MessageType": "GetToken", "UDID": UDID, "TokenServiceType": "com.apple.watch.pairing"}

    assert refused({**fields, "TokenParameters": parameters}).field == missing
    assert refused({**fields, "TokenParameters": {**PAIRING, missing: ""}}).field == missing
    assert refused(fields).field == "PhoneUDID"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "TokenServiceType"),
        ({"TokenServiceType": ""}, "TokenServiceType"),
        ({"TokenServiceType": "s", "TokenParameters": ["PhoneUDID"]}, "TokenParameters"),
        ({"TokenServiceType": "s", "TokenParameters": {str(number): "x" for number in range(33)}}, "TokenParameters"),
        ({"TokenServiceType": "s", "TokenParameters": {"PhoneUDID": 1}}, "PhoneUDID"),
        ({"TokenServiceType": "s", "TokenParameters": {"PhoneUDID": "x" * 513}}, "PhoneUDID"),
    ],
)
def test_a_token_of_no_service_or_with_strange_parameters_is_refused(fields: dict[str, Any], field: str) -> None:
    assert refused({"MessageType": "GetToken", "UDID": UDID, **fields}).field == field


def test_a_device_asks_whether_to_return_to_service() -> None:
    assert isinstance(decode({"MessageType": "ReturnToService", "UDID": UDID}), ReturnToService)


def test_declarations_are_asked_for_by_endpoint_and_reported_on_with_data() -> None:
    tokens = decode({"MessageType": "DeclarativeManagement", "UDID": UDID, "Endpoint": "tokens"})
    status = decode(
        {"MessageType": "DeclarativeManagement", "UDID": UDID, "Endpoint": "status", "Data": b"x" * 1_000_000}
    )

    assert isinstance(tokens, DeclarativeManagement)
    assert (tokens.endpoint, tokens.data) == ("tokens", b"")
    assert isinstance(status, DeclarativeManagement)
    assert len(status.data) == 1_000_000


@pytest.mark.parametrize(
    ("fields", "field"),
    [({}, "Endpoint"), ({"Endpoint": 1}, "Endpoint"), ({"Endpoint": "status", "Data": "text"}, "Data")],
)
def test_declarative_management_with_no_endpoint_or_data_of_another_type_is_refused(
    fields: dict[str, Any], field: str
) -> None:
    assert refused({"MessageType": "DeclarativeManagement", "UDID": UDID, **fields}).field == field


@pytest.mark.parametrize("response", [None, "Digest username=anna"])
def test_a_user_authenticates_in_two_steps(response: str | None) -> None:
    fields = {"DigestResponse": response} if response else {}

    decoded = decode({"MessageType": "UserAuthenticate", "UDID": UDID, "UserID": "U1", **fields})

    assert isinstance(decoded, UserAuthenticate)
    assert decoded.digest_response == response


def test_a_binary_message_is_read() -> None:
    body = plistlib.dumps(plistlib.loads(message("TokenUpdate")), fmt=plistlib.FMT_BINARY)

    decoded = decode_checkin(body)

    assert isinstance(decoded, TokenUpdate)
    assert decoded.body == body


@pytest.mark.parametrize("message_type", ["Unheard", "authenticate", "NewInIOS30", "N" * 64])
def test_a_message_of_a_newer_release_is_read_as_one(message_type: str) -> None:
    decoded = decode({"MessageType": message_type, "UDID": UDID, "Novelty": [1]})

    assert isinstance(decoded, NewerMessage)
    assert decoded.message_type == message_type
    assert decoded.fields["Novelty"] == [1]


@pytest.mark.parametrize("message_type", [" Authenticate", "Get-Token", "m#Authenticate", "N" * 65, "2nd", "É"])
def test_a_message_type_that_could_be_no_key_is_refused(message_type: str) -> None:
    error = refused({"MessageType": message_type, "UDID": UDID})

    assert error.code == "unknown_message_type"
    assert not isinstance(error, MalformedBodyError)
    assert message_type not in error.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"UDID": UDID}, "MessageType"),
        ({"MessageType": b"Authenticate", "UDID": UDID}, "MessageType"),
        ({"MessageType": "Authenticate", "UDID": UDID}, "Topic"),
        ({"MessageType": "Authenticate", "UDID": UDID, "Topic": b"topic"}, "Topic"),
        ({"MessageType": "Authenticate", "UDID": UDID, "Topic": TOPIC, "SerialNumber": b"C04"}, "SerialNumber"),
        ({"MessageType": "Authenticate", "UDID": UDID, "Topic": TOPIC, "Model": 3}, "Model"),
        ({"MessageType": "Authenticate", "UDID": UDID, "Topic": "t" * (MAX_TEXT_LENGTH + 1)}, "Topic"),
        ({"MessageType": "Authenticate", "Topic": TOPIC}, "UDID"),
        ({"MessageType": "Authenticate", "Topic": TOPIC, "UDID": UDID.encode()}, "UDID"),
        ({"MessageType": "CheckOut", "UDID": "cert#1"}, "UDID"),
        ({"MessageType": "SetBootstrapToken", "UDID": UDID, "BootstrapToken": "text"}, "BootstrapToken"),
        ({"MessageType": "UserAuthenticate", "UDID": UDID, "DigestResponse": b"data"}, "DigestResponse"),
        (token_update(Topic=""), "Topic"),
        (token_update(PushMagic=""), "PushMagic"),
        (token_update(PushMagic=b"magic"), "PushMagic"),
        (token_update(Token=b""), "Token"),
        (token_update(Token="746f6b656e"), "Token"),
        (token_update(UnlockToken="text"), "UnlockToken"),
        (token_update(UnlockToken=bytes(MAX_DATA_BYTES + 1)), "UnlockToken"),
        (token_update(AwaitingConfiguration="yes"), "AwaitingConfiguration"),
        (token_update(AwaitingConfiguration=1), "AwaitingConfiguration"),
    ],
)
def test_what_is_missing_or_of_another_type_is_named(fields: dict[str, Any], field: str) -> None:
    assert refused(fields).field == field


def test_a_body_that_is_no_plist_is_malformed() -> None:
    for body in (b"", b"{}", b"\x30\x80", plistlib.dumps(["Authenticate"])):
        with pytest.raises(MalformedBodyError):
            decode_checkin(body)


def test_no_secret_is_in_the_text_of_a_message() -> None:
    body = plist(**token_update(Token=b"s3cret", PushMagic="s3cret", UnlockToken=b"s3cret"))
    messages = [
        decode_checkin(body),
        decode({"MessageType": "SetBootstrapToken", "UDID": UDID, "BootstrapToken": b"s3cret"}),
        decode({"MessageType": "UserAuthenticate", "UDID": UDID, "DigestResponse": "s3cret"}),
    ]

    assert not any("s3cret" in repr(decoded) for decoded in messages)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *token_update(),
                "UserID",
                "UserShortName",
                "EnrollmentID",
                "EnrollmentUserID",
                "SerialNumber",
                "UnlockToken",
            ]
        ),
        VALUES,
    ),
    st.sampled_from(["Authenticate", "TokenUpdate", "CheckOut", "SetBootstrapToken", "GetBootstrapToken"]),
)
def test_any_values_make_a_message_or_are_refused(fields: dict[str, Any], message_type: str) -> None:
    body = plistlib.dumps({**token_update(), **fields, "MessageType": message_type})
    try:
        decoded = decode_checkin(body)
    except BadRequestError:
        return
    assert decoded.message_type == message_type
    assert decoded.body == body
