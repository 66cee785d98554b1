"""Packages in the payload bucket. They lie there as they were uploaded, for devices fetch them from S3 itself."""

from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

PREFIX: Final = "apps/"
URL_SECONDS: Final = 3_600
"""For so long a presigned URL is good, unless the function's role ends before: long enough to begin with."""


class AppObjects:
    """Uploads, downloads and reads of packages. Methods raise :class:`~mdmlib.errors.UnavailableError`."""

    def __init__(self, client: "Callable[[], S3Client]", *, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def upload_url(self, key: str, size: int) -> str:
        """Return a URL that takes one PUT of so many bytes."""
        return self._client().generate_presigned_url(
            "put_object",
            Params={"Bucket": self._bucket, "Key": key, "ContentLength": size},
            ExpiresIn=URL_SECONDS,
        )

    def download_url(self, key: str) -> str:
        """Return a URL that hands an object out."""
        return self._client().generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=URL_SECONDS
        )

    def put(self, key: str, content: bytes) -> None:
        """Store a small package."""
        try:
            self._client().put_object(Bucket=self._bucket, Key=key, Body=content)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The bucket does not take the package.") from error

    def size(self, key: str) -> int:
        """Return an object's size. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            return int(self._client().head_object(Bucket=self._bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound", "403"}:
                raise NotFoundError("Nothing was uploaded.", code="not_uploaded") from error
            raise UnavailableError("The bucket cannot be read.") from error
        except BotoCoreError as error:
            raise UnavailableError("The bucket cannot be read.") from error

    def read(self, key: str, offset: int, length: int) -> bytes:
        """Return a part of an object; fewer bytes at its end, none behind it."""
        if length <= 0:
            return b""
        try:
            answer = self._client().get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={offset}-{offset + length - 1}"
            )
            return answer["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in {"InvalidRange", "416"}:
                return b""
            raise UnavailableError("The bucket cannot be read.") from error
        except BotoCoreError as error:
            raise UnavailableError("The bucket cannot be read.") from error

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        try:
            self._client().delete_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The bucket cannot be written.") from error
