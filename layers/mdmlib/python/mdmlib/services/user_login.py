"""How far the login of a network user has come: challenged, let in, or turned away."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from mdmlib.errors import IdentityError
from mdmlib.services.admission import is_auth_token

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer
    from mdmlib.store.tables import EnrollmentSecret


@dataclass(frozen=True, kw_only=True)
class UserLogin:
    """The state of a user channel's last UserAuthenticate, as it is kept (sealed) beside the channel's record."""

    nonce: str | None = None
    """Of the challenge; None: it was answered wrongly and is of no more use."""
    expires_at: int = 0
    """Until when (epoch seconds) the challenge may be answered."""
    token_hash: str | None = None
    """SHA-256 (hex) of the AuthToken; None: nobody is let in."""

    @classmethod
    def of(cls, item: "EnrollmentSecret", sealer: "Sealer") -> Self:
        """Read the state that is kept."""
        return cls(**json.loads(sealer.open(item.value, place=f"{item.enrollment_id}/{item.item}")))

    def to_json(self) -> bytes:
        """Return what is sealed and kept."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def check(self, fields: Mapping[str, Any]) -> str:
        """Hold a message of the user against it; return the hash of the token that all of them have to carry.

        Raises :class:`~mdmlib.errors.IdentityError`.
        """
        if self.token_hash is None or not is_auth_token(fields, self.token_hash):
            raise IdentityError("The message's AuthToken is not the user's.", code="auth_token_wrong")
        return self.token_hash
