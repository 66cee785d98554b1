"""FileVault of the simulated Mac, read by PicoMDM's own code: neither shares any with the other."""

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from local.device.configuration_profile import ConfigurationProfile
from local.device.filevault import FileVault
from mdmlib.apple import filevault


@pytest.fixture(scope="module")
def reader() -> tuple[bytes, rsa.RSAPrivateKey]:
    certificate, der = filevault.new_identity(datetime(2026, 11, 20, tzinfo=UTC))
    key = load_der_private_key(der, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return certificate, key


def test_a_mac_turns_it_on_and_tells_its_key_to_whom_the_profile_names(reader: tuple[bytes, rsa.RSAPrivateKey]) -> None:
    vault = FileVault()
    assert vault.security_info()["FDE_Enabled"] is False
    vault.heed(ConfigurationProfile.decode(filevault.profile(reader[0], organization="School")))

    told = vault.security_info()

    assert told["FDE_Enabled"] is True
    assert filevault.recovery_key(told["FDE_PersonalRecoveryKeyCMS"], *reader) == vault.recovery_key


def test_only_who_knows_the_key_gets_another(reader: tuple[bytes, rsa.RSAPrivateKey]) -> None:
    vault = FileVault()
    vault.heed(ConfigurationProfile.decode(filevault.profile(reader[0], organization="School")))
    first = vault.recovery_key

    def rotated(password: str | None) -> bytes | None:
        fields: dict[str, Any] = {"KeyType": "personal", "ReplyEncryptionCertificate": reader[0]}
        return vault.rotate(fields | {"FileVaultUnlock": {"Password": password}})

    assert rotated("AAAA-AAAA-AAAA-AAAA-AAAA-AAAA") is None
    assert vault.recovery_key == first
    envelope = rotated(first)
    assert envelope is not None
    assert filevault.recovery_key(envelope, *reader) == vault.recovery_key != first
