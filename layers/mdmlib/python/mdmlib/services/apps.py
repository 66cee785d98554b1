"""Apps: packages that devices install by manifests made here, and manifests that administrators have made.

A package comes into the bucket by a presigned URL, or, while it is small, in a request. Then it is looked into, a part
at a time: what is no package is refused, and the hashes of its chunks go into the manifest. Only then it takes the
place of the former one of its name. Devices fetch ``/repo/<name>``, which leads to a fresh presigned URL each time: one
that stood in a manifest would be over before the device comes.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist, UpdateError

from mdmlib.apple import package, plist
from mdmlib.apple.package import CHUNK_BYTES, PackageFacts
from mdmlib.errors import BadRequestError, ConflictError, MalformedBodyError, NotFoundError
from mdmlib.observability import logger
from mdmlib.settings import Settings
from mdmlib.store.app_objects import PREFIX, AppObjects
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import App, AppUpload

if TYPE_CHECKING:
    from mdmlib.services.workflow_queue import WorkflowQueue

COLLECTION: Final = "app"
UPLOADS: Final = "app_upload"

MAX_BYTES: Final = 5 * 1024**3
"""Of one PUT to S3."""

MAX_INLINE_BYTES: Final = 4 * 1024 * 1024
"""What comes in a request itself; larger packages go to the bucket directly."""

_CHUNKS_AT_ONCE: Final = 20
"""200 MiB, a few seconds: what one message of the workflow queue reads."""

_KEPT: Final = timedelta(days=2)
_MAX_MANIFEST: Final = 200 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_PACKAGE: Final = ".pkg"
_MANIFEST: Final = ".plist"


@dataclass(frozen=True)
class Download:
    """What ``/repo/<name>`` leads to: a document, or another URL."""

    manifest: bytes | None = None
    url: str | None = None


class Apps:
    """The apps of this deployment."""

    def __init__(
        self,
        *,
        objects: AppObjects,
        workflow_queue: "Callable[[], WorkflowQueue]",
        settings: Settings,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        on_change: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """``on_change`` is told the name of each app that is put in place."""
        self._on_change = on_change
        self._objects = objects
        self._workflow_queue = workflow_queue
        self._settings = settings
        self._now = now
        self._new_id = new_id

    # Uploads

    def begin_upload(self, name: str, size: int) -> tuple[AppUpload, str]:
        """Return an upload and the URL that takes the package. Raises :class:`~mdmlib.errors.BadRequestError`."""
        _check_package_name(name)
        if not 0 < size <= MAX_BYTES:
            raise BadRequestError("A package has at most 5 GiB.", code="invalid_field", field="size")
        upload = self._new_upload(name, size)
        upload.save()
        return upload, self._objects.upload_url(_key(upload), size)

    def finish_upload(self, upload_id: str) -> AppUpload:
        """Look into what was uploaded; the rest is done by the workflow function.

        Raises :class:`~mdmlib.errors.ConflictError` when nothing was, or not all, and
        :class:`~mdmlib.errors.BadRequestError` for what is no package.
        """
        upload = self.upload(upload_id)
        if upload.state == "uploading":
            try:
                size = self._objects.size(_key(upload))
            except NotFoundError as error:
                raise ConflictError("Nothing was uploaded yet.", code="not_uploaded") from error
            if size != upload.size:
                raise ConflictError(
                    f"{size} bytes were uploaded, and {int(upload.size)} were said to be.", code="not_uploaded"
                )
            self._look_into(upload)
        if upload.state == "hashing":
            self._workflow_queue().hash_app(upload.name)
        return upload

    def store(self, name: str, content: bytes) -> AppUpload:
        """Store a small package at once. Raises :class:`~mdmlib.errors.BadRequestError` for what is none."""
        _check_package_name(name)
        upload = self._new_upload(name, len(content))
        facts = package.read_package(lambda offset, length: content[offset : offset + length])
        self._objects.put(_key(upload), content)
        upload.facts, upload.state = asdict(facts), "hashing"
        upload.sha256s = [
            hashlib.sha256(content[start : start + CHUNK_BYTES]).hexdigest()
            for start in range(0, len(content), CHUNK_BYTES)
        ]
        upload.save()
        self._put_in_place(upload)
        return upload

    def store_manifest(self, name: str, content: bytes) -> None:
        """Store a manifest that an administrator has made. Raises :class:`~mdmlib.errors.BadRequestError`."""
        _check_name(name)
        if len(content) > _MAX_MANIFEST:
            raise BadRequestError("A manifest has at most 200 KiB.", code="invalid_field", field="app_manifest")
        try:
            items = plist.loads(content).get("items")
        except MalformedBodyError as error:
            raise MalformedBodyError(f"The manifest cannot be read: {error.message}", field="app_manifest") from error
        if not isinstance(items, list) or not items:
            raise BadRequestError("The manifest has no items.", code="invalid_field", field="app_manifest")
        former = _item(name)
        at = int(self._now().timestamp())
        App(COLLECTION, name, kind="manifest", manifest=content, size=len(content), uploaded_at=at).save()
        self._drop(former)
        self._on_change(name)

    def upload(self, upload_id: str) -> AppUpload:
        """Return an upload. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            if 0 < len(upload_id) <= 64:  # noqa: PLR2004 - longer than any
                return AppUpload.get(UPLOADS, upload_id, consistent_read=True)
        except DoesNotExist:
            pass
        raise NotFoundError("There is no such upload, or it was begun two days ago.", code="unknown_upload")

    def hash_on(self, upload_id: str) -> None:
        """Hash the next chunks of an upload, and ask for those behind them; once more does no harm."""
        try:
            upload = self.upload(upload_id)
        except NotFoundError:
            return
        if upload.state != "hashing":
            return
        done = list(upload.sha256s or ())
        hashed = list(done)
        while len(hashed) * CHUNK_BYTES < upload.size and len(hashed) < len(done) + _CHUNKS_AT_ONCE:
            chunk = self._objects.read(_key(upload), len(hashed) * CHUNK_BYTES, CHUNK_BYTES)
            hashed.append(hashlib.sha256(chunk).hexdigest())
        upload.sha256s = hashed
        if len(hashed) * CHUNK_BYTES >= upload.size:
            self._put_in_place(upload)
            return
        try:
            upload.update([AppUpload.sha256s.set(hashed)], AppUpload.state == "hashing")
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return
        self._workflow_queue().hash_app(upload.name)

    # Apps

    def get(self, name: str) -> App:
        """Return an app. Raises :class:`~mdmlib.errors.NotFoundError`."""
        item = _item(name)
        if item is None:
            raise NotFoundError(f"There is no app {name[:200]}.", code="unknown_app")
        return item

    def list(self) -> Iterator[App]:
        """Yield all apps, by name."""
        yield from App.query(COLLECTION, consistent_read=True)

    def delete(self, name: str) -> None:
        """Forget an app. Devices keep it; those that are about to fetch it find nothing."""
        former = _item(name)
        if former is not None:
            former.delete()
            self._drop(former)

    def has_package(self, name: str) -> bool:
        """Say whether there is something that can be installed under a name."""
        return _item(name) is not None

    def manifest_of(self, app: App) -> bytes:
        """Return an app's manifest."""
        if app.kind == "manifest":
            return bytes(app.manifest)
        return package.manifest(facts_of(app), url=self.url(app.name), sha256s=app.sha256s or ())

    def manifest_url(self, app: App) -> str:
        """Return where devices find an app's manifest."""
        return self.url(app.name if app.kind == "manifest" else f"{app.name.removesuffix(_PACKAGE)}{_MANIFEST}")

    def url(self, name: str) -> str:
        """Return where devices find a file."""
        return f"{self._settings.device_url}/repo/{name}"

    def download(self, name: str) -> Download:
        """Return what ``/repo/<name>`` leads to. Raises :class:`~mdmlib.errors.NotFoundError`."""
        item = _item(name)
        if item is not None and item.kind == "package":
            return Download(url=self._objects.download_url(item.object_key))
        if item is None and name.endswith(_MANIFEST):
            item = _item(f"{name.removesuffix(_MANIFEST)}{_PACKAGE}")
        if item is None:
            raise NotFoundError(f"There is no file {name[:200]}.", code="unknown_app")
        return Download(manifest=self.manifest_of(item))

    def _new_upload(self, name: str, size: int) -> AppUpload:
        now = self._now()
        return AppUpload(
            UPLOADS,
            self._new_id(),
            app=name,
            size=size,
            state="uploading",
            created_at=int(now.timestamp()),
            ttl=int((now + _KEPT).timestamp()),
        )

    def _look_into(self, upload: AppUpload) -> None:
        try:
            facts = package.read_package(lambda offset, length: self._objects.read(_key(upload), offset, length))
        except BadRequestError as error:
            upload.update([AppUpload.state.set("refused"), AppUpload.reason.set(error.message)])
            self._objects.delete(_key(upload))
            raise
        upload.update([AppUpload.state.set("hashing"), AppUpload.facts.set(asdict(facts))])

    def _put_in_place(self, upload: AppUpload) -> None:
        """Let an upload take the place of the former package of its name, which is deleted."""
        former = _item(upload.app)
        App(
            COLLECTION,
            upload.app,
            kind="package",
            object_key=_key(upload),
            size=upload.size,
            facts=upload.facts,
            sha256s=upload.sha256s,
            uploaded_at=int(self._now().timestamp()),
        ).save()
        # Before the upload is over: whoever ends in between comes again.
        self._on_change(upload.app)
        upload.update([AppUpload.state.set("ready"), AppUpload.sha256s.set(upload.sha256s)])
        if former is not None and former.object_key != _key(upload):
            self._drop(former)
        logger.info("App in place", app=upload.app, bytes=int(upload.size))

    def _drop(self, former: App | None) -> None:
        if former is not None and former.object_key is not None:
            self._objects.delete(former.object_key)


def facts_of(app: App) -> PackageFacts:
    """Return what a package says of itself."""
    facts: dict[str, Any] = app.facts or {}
    return PackageFacts(**facts)


def _item(name: str) -> App | None:
    try:
        return App.get(COLLECTION, name, consistent_read=True) if _NAME.fullmatch(name) else None
    except DoesNotExist:
        return None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            "The name of a file is letters, digits and . _ + -, at most 200.", code="invalid_field", field="name"
        )


def _check_package_name(name: str) -> None:
    _check_name(name)
    if not name.endswith(_PACKAGE):
        raise BadRequestError("The name of a package ends in .pkg.", code="invalid_field", field="name")


def _key(upload: AppUpload) -> str:
    return f"{PREFIX}{upload.name}/{upload.app}"
