"""The payload bucket: what is too large for an item or an event, sealed for its own key."""

from typing import TYPE_CHECKING

from mdmlib.store.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client


class PayloadStore:
    """Sealed objects in the payload bucket."""

    def __init__(self, client: "Callable[[], S3Client]", *, bucket: str, sealer: Sealer) -> None:
        self._client = client
        self._bucket = bucket
        self._sealer = sealer

    def put(self, key: str, payload: bytes) -> str:
        """Store ``payload`` and return its reference, the key. The same key again overwrites."""
        sealed = self._sealer.seal(payload, place=f"s3/{key}")
        self._client().put_object(Bucket=self._bucket, Key=key, Body=sealed)
        return key

    def get(self, reference: str) -> bytes:
        """Return what :meth:`put` stored. Raises botocore's ``NoSuchKey`` when its lifetime is over."""
        sealed = self._client().get_object(Bucket=self._bucket, Key=reference)["Body"].read()
        return self._sealer.open(sealed, place=f"s3/{reference}")

    def delete(self, reference: str) -> None:
        """Delete what :meth:`put` stored, if it is there."""
        self._client().delete_object(Bucket=self._bucket, Key=reference)
