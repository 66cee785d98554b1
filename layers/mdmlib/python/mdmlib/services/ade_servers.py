"""Servers of Apple Business and School Manager (ADE): their key pairs, their tokens, and who asks Apple with them.

In the portal an administrator makes a server, uploads a certificate for it, and downloads a token that is encrypted to
that certificate. Here a new key pair is *staged*: it takes the place of the present one only when a token for it
arrives. Until then everything goes on as before, and whoever asks again for the certificate gets the same one, so that
no second click spoils what was uploaded in the portal.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynamodb.exceptions import PutError, UpdateError

from mdmlib.apple.ade_key_pair import VALIDITY, AdeKeyPair
from mdmlib.apple.ade_token import AdeToken, open_token_file
from mdmlib.apple.maid_token import maid_token
from mdmlib.errors import (
    AdeTokenMissingError,
    AppleRefusedError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    UnavailableError,
)
from mdmlib.observability import logger
from mdmlib.services.ade_clients import AdeClients
from mdmlib.services.ade_server_info import AdeServerInfo, info_of
from mdmlib.services.https_url import check_https_url
from mdmlib.store.ade_servers import COLLECTION, all_servers, find_server
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import AdeProfileDefinition, AdeServer

if TYPE_CHECKING:
    from datetime import timedelta

    from pynamodb.expressions.update import Action

    from mdmlib.clients.ade import AdeClient
    from mdmlib.settings import Settings
    from mdmlib.store.sealing import Sealer

RESERVED: Final = "certificate"
"""No server's name: ``/v1/config/certificate`` is MicroMDM's, ``/v1/config/<name>`` NanoDEP's."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PUBLIC_ACCOUNT: Final = ("server_name", "server_uuid", "admin_id", "org_name", "org_id", "org_type", "org_version")
"""What is kept of Apple's answer: who the organization is, and not its telephone number."""


class AdeServers:
    """The servers, by the names that administrators gave them."""

    def __init__(
        self,
        *,
        make_client: "Callable[[AdeToken, str], AdeClient]",
        sealer: "Sealer",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        """``make_client`` makes the client of a token and a base URL: who lists servers imports no HTTP for it."""
        self._clients = AdeClients(make_client)
        self._sealer = sealer
        self._settings = settings
        self._now = now

    def close(self) -> None:
        """Close all connections to Apple."""
        self._clients.close()

    # Whoever asks Apple

    def names(self) -> list[str]:
        """Return the names of all servers that have a token, in order."""
        return [item.name for item in all_servers() if item.token is not None]

    def client(self, name: str) -> "AdeClient":
        """Return the client of a server. Its session is kept for as long as the token is the same.

        Raises :class:`~mdmlib.errors.NotFoundError`, and :class:`~mdmlib.errors.AdeTokenMissingError` (which is an
        :class:`~mdmlib.errors.AppleRefusedError`) for a server without a token.
        """
        return self._client_of(_item(name))

    def consumer_hash(self, name: str) -> str:
        """Return what tells a server of Apple's from any other: its token may change, this does not.

        Raises as :meth:`client` does.
        """
        item = _item(name)
        if item.consumer_hash is None:
            raise _token_missing(name)
        return str(item.consumer_hash)

    # Administrators

    def list(self) -> list[AdeServerInfo]:
        """Return all servers, ordered by name."""
        return [info_of(item) for item in all_servers()]

    def get(self, name: str) -> AdeServerInfo:
        """Return a server. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return info_of(_item(name))

    def create(self, name: str) -> AdeServerInfo:
        """Make a server, with a key pair whose certificate goes to Apple's portal. One that is there stays as it is.

        Raises :class:`~mdmlib.errors.BadRequestError` for a name that cannot be one.
        """
        if find_server(name) is None:
            self.stage(name)
        return self.get(name)

    def stage(
        self, name: str, *, common_name: str | None = None, validity: "timedelta | None" = None
    ) -> x509.Certificate:
        """Return the certificate to upload in Apple's portal: the staged one, or that of a new key pair.

        A server that is not there is made. Asking again returns the same: ``common_name`` and ``validity`` are those
        of a new one. Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        _check_name(name)
        now = self._now()
        item = find_server(name)
        staged = item.staged_certificate if item else None
        if item and staged is not None:
            certificate = x509.load_der_x509_certificate(staged)
            if certificate.not_valid_after_utc > now:
                return certificate
            # The key is what was uploaded: a token that is on its way opens with it, whatever the certificate says.
            pair = AdeKeyPair.from_der(staged, self._open(item.staged_private_key, name, "/staged")).certified_anew(
                now=now
            )
        else:
            pair = AdeKeyPair.new(common_name or f"PicoMDM {name}"[:64], now=now, validity=validity or VALIDITY)
        # Not for a server that was deleted meanwhile, of which this would be all that is there.
        is_as_it_was = (
            AdeServer.name.exists() & _same(AdeServer.staged_certificate, staged)
            if item
            else AdeServer.name.does_not_exist()
        )
        actions: list[Action] = [
            AdeServer.cls.set(AdeServer),
            AdeServer.created_at.set(AdeServer.created_at | int(now.timestamp())),
            AdeServer.staged_certificate.set(pair.certificate_der),
            AdeServer.staged_private_key.set(self._seal(pair.private_key_der, name, "/staged")),
        ]
        try:
            AdeServer(COLLECTION, name).update(actions, condition=is_as_it_was)
        except UpdateError as error:
            if not condition_failed(error):
                raise
            # Somebody else was first: theirs is the one that both are told.
            return self.stage(name, common_name=common_name, validity=validity)
        return pair.certificate

    def stage_pem(self, name: str, *, common_name: str, validity: "timedelta | None") -> str:
        """Return the certificate of :meth:`stage`, PEM."""
        return self.stage(name, common_name=common_name, validity=validity).public_bytes(Encoding.PEM).decode()

    def import_file(self, name: str, file: bytes, *, force: bool = False) -> AdeServerInfo:
        """Take the token in a file of Apple's portal, then ask Apple for the account.

        When it was made for the staged key pair, that becomes the present one. The token is kept also when Apple does
        not answer: the ``problem`` says so. Raises :class:`~mdmlib.errors.NotFoundError`,
        :class:`~mdmlib.errors.BadRequestError` for a file that cannot be used (codes ``token_for_another_key`` and
        ``token_expired`` among others), and :class:`~mdmlib.errors.ConflictError` for one that would take another
        server's place, unless ``force`` is set.
        """
        item = _item(name)
        pairs = self._pairs(item)
        if not pairs:
            raise ConflictError(
                f"The server {name!r} has no certificate that a token could have been made for; ask for one first.",
                code="certificate_missing",
            )
        another: BadRequestError | None = None
        for place, pair in pairs.items():
            try:
                token = open_token_file(file, certificate=pair.certificate, private_key=pair.private_key)
            except BadRequestError as error:
                if error.code != "token_for_another_key":
                    raise
                another = error
                continue
            return self._keep(item, token, staged=pair if place == "/staged" else None, force=force)
        raise another or _unknown(name)

    def import_document(self, name: str, document: Mapping[str, Any], *, force: bool = False) -> AdeServerInfo:
        """Take a token that somebody else has decrypted, for a server that is made if it is not there.

        Raises as :meth:`import_file` does.
        """
        token = AdeToken.from_document(document)
        self._make(name)
        return self._keep(_item(name), token, staged=None, force=force)

    def token(self, name: str) -> AdeToken:
        """Return a server's token, for who is to see it. Raises as :meth:`client` does."""
        return self._token(_item(name))

    def portal_certificate(self, name: str) -> bytes:
        """Return the certificate that Apple's portal has, or is to be given next, DER; a new one if there is none.

        Raises as :meth:`stage` does.
        """
        item = find_server(name)
        present = item and (item.staged_certificate or item.certificate)
        return bytes(present) if present else self.stage(name).public_bytes(Encoding.DER)

    def maid_token(self, name: str, *, server_uuid: str | None, token_id: str) -> tuple[bytes, str]:
        """Return a token of ``com.apple.maid`` and the UUID that it names: a server's, as Apple knows it.

        Raises as :meth:`key_pair` and :meth:`ask_account` do.
        """
        pair = self.key_pair(name)
        uuid = server_uuid or self.get(name).server_uuid or str(self.ask_account(name).get("server_uuid"))
        return maid_token(pair.private_key, server_uuid=uuid, issued_at=self._now(), token_id=token_id), uuid

    def key_pair(self, name: str) -> AdeKeyPair:
        """Return the key pair that Apple knows.

        Raises :class:`~mdmlib.errors.NotFoundError`, also for a server whose token came without it.
        """
        item = _item(name)
        if item.certificate is None or item.private_key is None:
            raise NotFoundError(
                f"Apple has no certificate of the server {name!r} yet: no token was imported for one.",
                code="certificate_missing",
            )
        return AdeKeyPair.from_der(item.certificate, self._open(item.private_key, name, ""))

    def ask_account(self, name: str) -> dict[str, Any]:
        """Ask Apple for the organization and the server, keep who they are, and return what Apple said.

        Raises as :meth:`client` and :class:`~mdmlib.clients.ade.AdeClient` do.
        """
        return self._ask_account(_item(name))

    def set_base_url(self, name: str, base_url: str | None) -> AdeServerInfo:
        """Ask for this server elsewhere; None: where all are asked for. A server that is not there is made.

        Raises :class:`~mdmlib.errors.BadRequestError` for a URL that a token may not be sent to.
        """
        if base_url:
            check_https_url(base_url, "A server")
        self._make(name)
        self._change(name, AdeServer.base_url.set(base_url) if base_url else AdeServer.base_url.remove())
        return self.get(name)

    def base_url(self, name: str) -> str:
        """Return where a server is asked for. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return self._base_url(_item(name))

    def delete(self, name: str) -> None:
        """Forget a server with its keys and its token, for good. One that is not there is no error.

        At Apple everything stays: its devices keep their profiles, and its token is good until it ends.
        """
        _check_name(name)
        for definition in AdeProfileDefinition.query(
            "ade_profile_definition", AdeProfileDefinition.name.startswith(f"{name}/"), consistent_read=True
        ):
            definition.delete()
        AdeServer(COLLECTION, name).delete()
        self._clients.forget(name)

    def _make(self, name: str) -> None:
        """Make a server that has nothing yet, unless it is there."""
        _check_name(name)
        item = AdeServer(COLLECTION, name, created_at=int(self._now().timestamp()))
        try:
            item.save(AdeServer.name.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise

    def _pairs(self, item: AdeServer) -> dict[str, AdeKeyPair]:
        """Return the key pairs that a token may be for, by what the places of their keys end in: the newer first."""
        found = {}
        if item.staged_certificate is not None:
            key = self._open(item.staged_private_key, item.name, "/staged")
            found["/staged"] = AdeKeyPair.from_der(item.staged_certificate, key)
        if item.certificate is not None:
            found[""] = AdeKeyPair.from_der(item.certificate, self._open(item.private_key, item.name, ""))
        return found

    def _keep(self, item: AdeServer, token: AdeToken, *, staged: AdeKeyPair | None, force: bool) -> AdeServerInfo:
        now, consumer = self._now(), sha256(token.consumer_key.encode()).hexdigest()
        if token.access_token_expiry <= now:
            raise BadRequestError(
                f"The token has ended on {token.access_token_expiry:%Y-%m-%d}: download a new one in Apple's portal.",
                code="token_expired",
            )
        if not force:
            self._refuse_mistakes(item, token, consumer)
        sealed = self._seal(json.dumps(token.document()).encode(), item.name, "/token")
        actions: list[Action] = [
            AdeServer.token.set(sealed),
            AdeServer.token_expires_at.set(int(token.access_token_expiry.timestamp())),
            AdeServer.token_imported_at.set(int(now.timestamp())),
            AdeServer.consumer_hash.set(consumer),
            AdeServer.account_problem.remove(),
        ]
        if consumer != item.consumer_hash:
            # Until Apple is asked, nothing is known of this one.
            actions += [AdeServer.server_uuid.remove(), AdeServer.account.remove(), AdeServer.account_asked_at.remove()]
        if staged:
            actions += [
                AdeServer.certificate.set(staged.certificate_der),
                AdeServer.private_key.set(self._seal(staged.private_key_der, item.name, "")),
                AdeServer.staged_certificate.remove(),
                AdeServer.staged_private_key.remove(),
            ]
        unchanged = _same(AdeServer.token, item.token) & _same(AdeServer.staged_certificate, item.staged_certificate)
        try:
            item.update(actions, condition=AdeServer.name.exists() & unchanged)
        except UpdateError as error:
            if not condition_failed(error):
                raise
            # It may have been us: a call whose answer was lost, and that the SDK has made once more.
            item = _item(item.name)
            if not self._is_kept(item, token, staged):
                raise ConflictError(
                    f"Somebody else has changed the server {item.name!r} at the same time; look at it, and send the "
                    "token again if it is still needed.",
                    code="changed_meanwhile",
                ) from error
        self._clients.forget(item.name)
        logger.info("ADE token imported", server=item.name, key_pair_changed=staged is not None)
        try:
            self._ask_account(item)
        except (AppleRefusedError, UnavailableError) as error:
            logger.warning("ADE account not told", server=item.name, code=error.code, reason=error.message)
        return self.get(item.name)

    def _is_kept(self, item: AdeServer, token: AdeToken, staged: AdeKeyPair | None) -> bool:
        if item.token is None or (staged is not None and item.certificate != staged.certificate_der):
            return False
        return self._token(item) == token

    def _refuse_mistakes(self, item: AdeServer, token: AdeToken, consumer: str) -> None:
        """Refuse what goes wrong when tokens are renewed: the token of another server, and a former one."""
        others = [other.name for other in all_servers() if other.name != item.name and other.consumer_hash == consumer]
        if others:
            raise ConflictError(
                f"The token is of the server that is called {others[0]!r} here. To have it twice, send force.",
                code="token_of_another_server",
            )
        if item.token is None:
            return
        if consumer != item.consumer_hash:
            raise ConflictError(
                f"The token is of another server in Apple's portal than the one that {item.name!r} was until now: "
                "devices and profiles of that one are not there. To put it in its place, send force.",
                code="mismatched_consumer_key",
            )
        known = self._token(item)
        if token.access_token_expiry < known.access_token_expiry:
            raise ConflictError(
                "A newer token of this server is here already; in Apple's portal each download ends the token before. "
                "To take the older one all the same, send force.",
                code="token_older",
            )

    def _ask_account(self, item: AdeServer) -> dict[str, Any]:
        try:
            account = self._client_of(item).account()
        except (AppleRefusedError, UnavailableError) as error:
            self._change(item.name, AdeServer.account_problem.set({"code": error.code, "detail": error.message}))
            raise
        kept = {name: account[name] for name in _PUBLIC_ACCOUNT if isinstance(account.get(name), str)}
        uuid = kept.get("server_uuid")
        self._change(
            item.name,
            AdeServer.server_uuid.set(uuid) if uuid else AdeServer.server_uuid.remove(),
            AdeServer.account.set(kept),
            AdeServer.account_asked_at.set(int(self._now().timestamp())),
            AdeServer.account_problem.remove(),
        )
        return account

    def _change(self, name: str, *actions: "Action") -> None:
        try:
            AdeServer(COLLECTION, name).update(list(actions), condition=AdeServer.name.exists())
        except UpdateError as error:
            if not condition_failed(error):
                raise
            raise _unknown(name) from error

    def _client_of(self, item: AdeServer) -> "AdeClient":
        return self._clients.of(item.name, lambda: self._token(item), sealed=item.token, base_url=self._base_url(item))

    def _base_url(self, item: AdeServer) -> str:
        return str(item.base_url or self._settings.ade_url)

    def _token(self, item: AdeServer) -> AdeToken:
        if item.token is None:
            raise _token_missing(item.name)
        return AdeToken.from_document(json.loads(self._open(item.token, item.name, "/token")))

    def _seal(self, plaintext: bytes, name: str, what: str) -> bytes:
        return self._sealer.seal(plaintext, place=f"{COLLECTION}/{name}{what}")

    def _open(self, sealed: bytes, name: str, what: str) -> bytes:
        return self._sealer.open(sealed, place=f"{COLLECTION}/{name}{what}")


def _item(name: str) -> AdeServer:
    item = find_server(name)
    if item is None:
        raise _unknown(name)
    return item


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name == RESERVED:
        raise BadRequestError(
            f"A server's name has letters, digits, dots, dashes and underscores, at most 64, and is not {RESERVED!r}.",
            code="invalid_field",
            field="name",
        )


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"There is no ADE server {name[:64]!r}.", code="ade_server_not_found")


def _token_missing(name: str) -> AdeTokenMissingError:
    return AdeTokenMissingError(
        f"The ADE server {name!r} has no token yet: upload its certificate in Apple Business or School Manager, "
        "download the server token there, and import it (picomdm ade token import)."
    )


def _same(attribute: Any, value: object) -> Any:  # noqa: ANN401 - pynamodb's attributes and conditions
    """Return the condition that an attribute is what was read."""
    return attribute.does_not_exist() if value is None else attribute == value
