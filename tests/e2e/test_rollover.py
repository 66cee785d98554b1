"""One authority follows another, and certificates are revoked, at the deployed stack. Functions start anew in between:
what they know of authorities and revocations they keep for five minutes.
"""

import ssl
from collections.abc import Callable

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from local.administrator import Administrator
from local.device import ServerRefused, SimulatedDevice
from local.stack import Stack

MakeDevice = Callable[..., SimulatedDevice]
AUTHORITIES = "/v2/certificate-authorities"


KNOW_AUTHORITIES = ("enroll", "checkin", "connect")
"""Functions that keep for minutes which authorities there are, and what they revoked."""


def issuer_of(device: SimulatedDevice) -> x509.Name:
    return device.identity.certificate.issuer


def test_what_the_old_authority_issued_is_trusted_and_renewed_by_the_new_one(
    administrator: Administrator, enroll: MakeDevice, start_anew: Callable[..., None]
) -> None:
    old = enroll()
    prepared = administrator.request("POST", AUTHORITIES, document={}).json()
    start_anew(*KNOW_AUTHORITIES)

    following = old.next_authority()
    assert following.fingerprint(SHA256()).hex() == prepared["certificates"][0]["sha256"]
    assert issuer_of(enroll()) == issuer_of(old)

    path = f"{AUTHORITIES}/{prepared['name']}/activation"
    assert administrator.request("PUT", path, document={}).status_code == 200
    start_anew(*KNOW_AUTHORITIES)

    assert old.connect() == []
    old.renew_identity()
    assert issuer_of(old) == issuer_of(enroll()) == following.subject
    assert old.connect() == []


def test_a_device_whose_certificate_is_revoked_is_let_in_no_more(
    administrator: Administrator, stack: Stack, enroll: MakeDevice, start_anew: Callable[..., None]
) -> None:
    device, other = enroll(), enroll()
    document = {"enrollment_id": device.udid, "reason": "key_compromise"}
    (revoked,) = administrator.request("POST", "/v2/certificate-revocations", document=document).json()[
        "certificate_revocations"
    ]
    assert revoked["sha256"] == device.identity.certificate.fingerprint(SHA256()).hex()
    start_anew(*KNOW_AUTHORITIES)

    # 400, never 401: the device is not to un-enroll for it.
    with pytest.raises(ServerRefused, match="400"):
        device.connect()
    assert other.connect() == []

    listed = administrator.request("GET", AUTHORITIES).json()["certificate_authorities"]
    (issuing,) = [authority["name"] for authority in listed if authority["phase"] == "in_use"]
    trust = ssl.create_default_context(cafile=stack.trust_anchor)
    answer = httpx.get(f"{stack.device_url}/crl/{issuing}.crl", verify=trust, trust_env=False)
    crl = x509.load_der_x509_crl(answer.raise_for_status().content)
    assert crl.get_revoked_certificate_by_serial_number(device.identity.certificate.serial_number) is not None
    device._forget()
