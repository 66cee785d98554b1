"""NanoMDM's SQL database (MySQL, PostgreSQL): the messages that it has stored of devices and their users."""

import plistlib
from base64 import b64decode
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from picomdm.errors import SetupError
from picomdm.migration import Found, LeftBehind, Message, MigratedEnrollment

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_MISSING: Final = "Reading NanoMDM's database takes more packages: pip install 'picomdm[migrate]'."
_DEVICES: Final = """
SELECT d.id, d.authenticate, d.token_update, d.unlock_token, d.bootstrap_token_b64, e.enabled
FROM devices d LEFT JOIN enrollments e ON e.id = d.id
ORDER BY d.id
"""
_USERS: Final = """
SELECT u.id, u.device_id, u.token_update, e.enabled
FROM users u LEFT JOIN enrollments e ON e.user_id = u.id
ORDER BY u.id
"""
_CERTIFICATES: Final = "SELECT id, sha256 FROM cert_auth_associations ORDER BY created_at"


def read_nanomdm(database_url: str) -> Iterator[Found]:
    """Yield the enabled enrollments of a NanoMDM database: devices first, then their users.

    Raises :class:`~picomdm.errors.SetupError` when the database cannot be read; its message has no password.
    """
    try:
        from sqlalchemy import create_engine, text  # noqa: PLC0415 - not everybody installs it
        from sqlalchemy.exc import ArgumentError, SQLAlchemyError  # noqa: PLC0415
    except ImportError as error:
        raise SetupError(_MISSING, code="packages_missing") from error
    try:
        engine = create_engine(database_url)
    except ImportError as error:
        raise SetupError(f"{_MISSING} ({error})", code="packages_missing") from None
    except (ArgumentError, ValueError):
        # No cause: it quotes the URL, with its password.
        raise SetupError(
            "This is no URL of a database, such as mysql+pymysql://user:password@host/nanomdm or "
            "postgresql+psycopg://user:password@host/nanomdm.",
            code="database_unreadable",
        ) from None
    try:
        with engine.connect() as connection:
            certificates = {str(row[0]): str(row[1]).lower() for row in connection.execute(text(_CERTIFICATES))}
            yield from _devices(connection, certificates)
            yield from _users(connection)
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__)
        raise SetupError(f"NanoMDM's database cannot be read: {cause}.", code="database_unreadable") from None
    finally:
        engine.dispose()


def _devices(connection: "Connection", certificates: dict[str, str]) -> Iterator[Found]:
    from sqlalchemy import text  # noqa: PLC0415 - see above

    for id_, authenticate, token_update, unlock_token, bootstrap_token, enabled in connection.execute(text(_DEVICES)):
        if not enabled:
            yield LeftBehind(id_, "It is disabled: it checked out, or did not finish to enroll.")
            continue
        if not token_update:
            yield LeftBehind(id_, "It has no TokenUpdate.")
            continue
        try:
            update = _with_unlock_token(_bytes(token_update), unlock_token)
            identity = _identity(_bytes(authenticate))
        except (ValueError, plistlib.InvalidFileException):
            yield LeftBehind(id_, "Its stored messages are no property lists.")
            continue
        messages = [Message("Authenticate", _bytes(authenticate)), Message("TokenUpdate", update)]
        if bootstrap_token:
            token = {"MessageType": "SetBootstrapToken", "BootstrapToken": b64decode(bootstrap_token), **identity}
            messages.append(Message("SetBootstrapToken", plistlib.dumps(token)))
        yield MigratedEnrollment(id_, messages, certificate_hash=certificates.get(id_))


def _users(connection: "Connection") -> Iterator[Found]:
    from sqlalchemy import text  # noqa: PLC0415 - see above

    for id_, device_id, token_update, enabled in connection.execute(text(_USERS)):
        if not enabled or not token_update:
            yield LeftBehind(id_, "The user's channel is disabled, or never had a TokenUpdate.")
            continue
        yield MigratedEnrollment(id_, [Message("TokenUpdate", _bytes(token_update))], parent=device_id)


def _with_unlock_token(token_update: bytes, unlock_token: bytes | None) -> bytes:
    """Return the message with the unlock token of an earlier one: a device sends it once."""
    if not unlock_token:
        return token_update
    document = plistlib.loads(token_update)
    if document.get("UnlockToken"):
        return token_update
    return plistlib.dumps(document | {"UnlockToken": bytes(unlock_token)})


def _identity(authenticate: bytes) -> dict[str, Any]:
    document = plistlib.loads(authenticate)
    return {name: document[name] for name in ("UDID", "EnrollmentID") if name in document}


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
