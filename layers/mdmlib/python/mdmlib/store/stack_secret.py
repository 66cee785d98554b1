"""The stack's one secret in Secrets Manager, read once per environment and kept for at most five minutes."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from mdmlib.store.sealing import MasterKeys

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

_KEEP: Final = timedelta(minutes=5)
_LOOK_AGAIN_AFTER: Final = timedelta(seconds=30)


class StackSecret:
    """A cached view of the secret; also a :class:`~mdmlib.store.sealing.KeySource`."""

    def __init__(
        self, client: "Callable[[], SecretsManagerClient]", *, secret_id: str, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._secret_id = secret_id
        self._now = now
        self._keys: MasterKeys | None = None
        self._read_at = datetime.min.replace(tzinfo=now().tzinfo)

    def keys(self, *, fresh: bool = False) -> MasterKeys:
        """Return the master keys, reading the secret when the copy is five minutes old.

        ``fresh`` reads it again, but not more often than every 30 seconds: a forged value that names an unknown key
        must not become a call to Secrets Manager each.
        """
        age = self._now() - self._read_at
        if self._keys is None or age > _KEEP or (fresh and age > _LOOK_AGAIN_AFTER):
            document = self._client().get_secret_value(SecretId=self._secret_id)["SecretString"]
            self._keys = MasterKeys.from_secret(document)
            self._read_at = self._now()
        return self._keys
