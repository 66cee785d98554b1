"""TLS with a client's certificate: Apple knows an MDM server by its push certificate."""

import os
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from mdmlib.apple.certificates import PushIdentity


def tls_context(identity: PushIdentity, *, trust_anchor: str) -> ssl.SSLContext:
    """Return a context that shows ``identity`` and trusts ``trust_anchor`` (PEM; empty: the system's roots)."""
    context = ssl.create_default_context(cadata=trust_anchor or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # ssl reads certificates from files only: for that moment the key lies there under a password that does not.
    password = os.urandom(24).hex().encode()
    key = load_pem_private_key(identity.private_key_pem, None, unsafe_skip_rsa_key_validation=True)
    with TemporaryDirectory() as folder:
        chain = Path(folder, "identity.pem")
        chain.write_bytes(
            identity.certificate_pem
            + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        )
        context.load_cert_chain(chain, password=password)
    return context
