"""A template of an enrollment profile, as an administrator would upload it."""

from typing import Any


def template() -> dict[str, Any]:
    """Return one with Wi-Fi beside what has to be there, in which the identity is used as well."""
    return {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": "org.example.enroll",
        "PayloadUUID": "TOP",
        "PayloadDisplayName": "Ours",
        "ConsentText": {"default": "Do you?"},
        "PayloadContent": [
            {
                "PayloadType": "com.apple.security.scep",
                "PayloadVersion": 1,
                "PayloadIdentifier": "org.example.scep",
                "PayloadUUID": "SCEP",
                "PayloadContent": {
                    "URL": "https://elsewhere.example.org/scep",
                    "Challenge": "old",
                    "Keysize": 4096,
                    "Key Type": "RSA",
                    "Key Usage": 5,
                    "Subject": [[["O", "Example"]]],
                },
            },
            {
                "PayloadType": "com.apple.mdm",
                "PayloadVersion": 1,
                "PayloadIdentifier": "org.example.mdm",
                "PayloadUUID": "MDM",
                "AccessRights": 3,
                "IdentityCertificateUUID": "SCEP",
                "ServerURL": "https://elsewhere.example.org/mdm",
                "Topic": "com.apple.mgmt.External.old",
                "ServerCapabilities": ["com.apple.mdm.per-user-connections"],
                "CheckOutWhenRemoved": True,
            },
            {
                "PayloadType": "com.apple.wifi.managed",
                "PayloadVersion": 1,
                "PayloadIdentifier": "org.example.wifi",
                "PayloadUUID": "WIFI",
                "SSID_STR": "Example",
                "PayloadCertificateUUID": "SCEP",
                "EAPClientConfiguration": {"TLSIdentities": ["SCEP"]},
            },
        ],
    }
