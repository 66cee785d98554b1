"""How a Mac proves to the server who logs in as a network user (Apple: UserAuthenticate).

The digest is HTTP's (RFC 2617, section 3.2.2), computed without a request: its URI is ``/``, its method that of the
check-in.
"""

import hashlib
import re
from typing import Final

from local.device.errors import ProtocolViolation

_PARAMETERS: Final = re.compile(r'(\w+)=(?:"([^"]*)"|([^",\s]+))')
_URI: Final = "/"


def respond(challenge: str, *, user: str, password: str, client_nonce: str, method: str = "PUT") -> str:
    """Return the ``DigestResponse`` to a ``DigestChallenge``. Raises ProtocolViolation for one that is none."""
    scheme, _, rest = challenge.partition(" ")
    parameters = {name: quoted or token for name, quoted, token in _PARAMETERS.findall(rest)}
    realm, nonce = parameters.get("realm"), parameters.get("nonce")
    if scheme != "Digest" or not realm or not nonce:
        raise ProtocolViolation("DigestChallenge", f"{challenge!r} has no realm or no nonce.")
    if parameters.get("algorithm", "MD5") != "MD5":
        raise ProtocolViolation("DigestChallenge", f"{parameters['algorithm']} is unknown.")
    secret = _md5(f"{user}:{realm}:{password}")
    request = _md5(f"{method}:{_URI}")
    answer = f'Digest username="{user}",realm="{realm}",nonce="{nonce}",uri="{_URI}"'
    if "auth" in re.split(r"[,\s]+", parameters.get("qop", "")):
        digest = _md5(f"{secret}:{nonce}:00000001:{client_nonce}:auth:{request}")
        return f'{answer},qop=auth,nc=00000001,cnonce="{client_nonce}",response="{digest}"'
    return f'{answer},response="{_md5(f"{secret}:{nonce}:{request}")}"'


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
