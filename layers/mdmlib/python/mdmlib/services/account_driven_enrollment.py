"""Account-driven enrollment: a person signs in with a Managed Apple Account, and the device enrolls for them.

1. The device asks the account's domain for ``/.well-known/com.apple.remotemanagement``, which leads here, and is told
   where to enroll.
2. It posts its MachineInfo there and is sent away with 401, to sign the person in: with ``apple-as-web`` at a page that
   ends with a redirect to ``apple-remotemanagement-user-login://authentication-results?access-token=…``, with
   ``apple-oauth2`` at an authorization server, as a public client.
3. It posts the same again with the access token, and gets a profile that names the account.

Apple's pages: "Implementing the simple authentication account-driven enrollment flow" and "… OAuth 2 …".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.device_certificate import SignedContent
from mdmlib.apple.enrollment_profile import EnrollmentMode, ManagedAccount
from mdmlib.apple.error_code import WELL_KNOWN_FAILED
from mdmlib.apple.machine_info import MachineInfo
from mdmlib.errors import (
    BadRequestError,
    DeviceInstructedError,
    ForbiddenError,
    NotFoundError,
    SignInRequiredError,
)
from mdmlib.observability import logger
from mdmlib.services.https_url import check_https_url
from mdmlib.store.tables import AccountDrivenEnrollment as Item
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.services.access_tokens import AccessTokens
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.settings import Settings

WEB: Final = "apple-as-web"
OAUTH2: Final = "apple-oauth2"
METHODS: Final = (WEB, OAUTH2)

MODEL_FAMILIES: Final = ("AppleTV", "Mac", "RealityDevice", "Watch", "iPad", "iPhone")

REDIRECT_URL: Final = "apple-remotemanagement-user-login:/oauth2/redirection"
"""Of ``apple-oauth2``: what has to be registered for the client at the authorization server."""

_PATHS: Final[Mapping[EnrollmentMode, str]] = {EnrollmentMode.USER: "byod", EnrollmentMode.DEVICE: "adde"}
_VERSIONS: Final[Mapping[EnrollmentMode, str]] = {
    EnrollmentMode.USER: "mdm-byod",
    EnrollmentMode.DEVICE: "mdm-adde",
}
_COLLECTION: Final = "account_driven"
_NAME: Final = "default"
_KEEP: Final = timedelta(minutes=1)
_MAX_ACCOUNT: Final = 254
_BEARER: Final = "bearer "


@dataclass(frozen=True, kw_only=True)
class SignInOptions:
    """Who may enroll by signing in, and how they sign in."""

    issuer: str
    audiences: Sequence[str]
    """Of the tokens: a token for somebody else's server is none for this one."""
    method: str
    sign_in_url: str | None = None
    """Of ``apple-as-web``: the page where a person signs in."""
    client_id: str | None = None
    """Of ``apple-oauth2``, with ``scope``."""
    scope: str | None = None
    account_claim: str = "email"
    """The claim that names the Managed Apple Account."""
    domains: Sequence[str] = ()
    """Of accounts that may enroll; none: all."""
    mode: EnrollmentMode = EnrollmentMode.USER
    mode_by_model_family: Mapping[str, EnrollmentMode] = field(default_factory=dict)
    """Where it is another one for a model family, such as ``Mac``."""

    jwks_url: str = ""
    authorization_url: str | None = None
    token_url: str | None = None
    """These three are what the issuer says of itself."""

    def modes(self) -> frozenset[EnrollmentMode]:
        """Return how devices may enroll."""
        return frozenset({self.mode, *self.mode_by_model_family.values()})


class AccountDrivenEnrollment:
    """Leads devices through the steps, and keeps how an administrator set them."""

    def __init__(
        self,
        *,
        tokens: "AccessTokens",
        profiles: "EnrollmentProfiles",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        self._tokens = tokens
        self._profiles = profiles
        self._settings = settings
        self._now = now
        self._kept: tuple[datetime, SignInOptions | None] | None = None

    def discover(self, user_identifier: str, model_family: str) -> dict[str, Any]:
        """Return the document that tells a device where to enroll.

        Raises :class:`~mdmlib.errors.NotFoundError` where nobody enrolls like this, and
        :class:`~mdmlib.errors.DeviceInstructedError` for an account of another domain.
        """
        options = self._required_options()
        if not _is_of(user_identifier, options.domains):
            raise DeviceInstructedError(
                "The account is of another domain.",
                code=WELL_KNOWN_FAILED,
                for_people="This account cannot be used to enroll here.",
            )
        mode = options.mode_by_model_family.get(model_family, options.mode)
        base_url = f"{self._settings.device_url}/mdm/account/{_PATHS[mode]}"
        return {"Servers": [{"Version": _VERSIONS[mode], "BaseURL": base_url}]}

    def profile(self, path: str, authorization: str | None, body: bytes) -> bytes:
        """Return the enrollment profile for the person whose access token ``authorization`` is.

        ``path`` is the last part of the URL that :meth:`discover` told, ``body`` the MachineInfo, signed or not: it is
        the token that counts. Raises :class:`~mdmlib.errors.SignInRequiredError` without a token that is good,
        :class:`~mdmlib.errors.ForbiddenError` for a person who may not enroll,
        :class:`~mdmlib.errors.MalformedBodyError`, and :class:`~mdmlib.errors.NotFoundError` where nobody enrolls so.
        """
        options = self._required_options()
        mode = next((mode for mode in options.modes() if _PATHS[mode] == path), None)
        if mode is None:
            raise NotFoundError("Nobody enrolls like this.", code="enrollment_mode_not_offered")
        account = ManagedAccount(self._account(options, authorization), mode)
        device = _machine_info(body)
        logger.info("Account enrolls a device", enrollment_mode=mode.value, product=device.product)
        serial_number = device.serial_number if mode is EnrollmentMode.DEVICE else None
        return self._profiles.make(topic=self._profiles.topic(), account=account, serial_number=serial_number)

    def options(self) -> SignInOptions | None:
        """Return the options as they are stored now; None where nobody enrolls like this."""
        item = _stored()
        options = _decoded(item.options) if item else None
        self._kept = self._now(), options
        return options

    def set_options(
        self, options: SignInOptions, *, only_if: OnlyIf[SignInOptions | None] | None = None
    ) -> SignInOptions:
        """Let people enroll by signing in. The issuer is asked for its keys' place.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong, and what ``only_if`` raises.
        """
        _check_url(options.issuer, "issuer", "The issuer")
        if options.method == WEB:
            if options.sign_in_url is None:
                raise BadRequestError(f"{WEB} needs a sign_in_url.", code="missing_field", field="sign_in_url")
            _check_url(options.sign_in_url, "sign_in_url", "The sign-in page")
        elif options.client_id is None or options.scope is None:
            missing = "client_id" if options.client_id is None else "scope"
            raise BadRequestError(f"{OAUTH2} needs a {missing}.", code="missing_field", field=missing)
        issuer = self._tokens.discover(options.issuer)
        _check_url(issuer.jwks_url, "issuer", "The issuer's keys")
        if options.method == OAUTH2 and not (issuer.authorization_url and issuer.token_url):
            raise BadRequestError(
                "The issuer has no authorization_endpoint or no token_endpoint.", code="issuer_unusable", field="issuer"
            )
        complete = SignInOptions(
            **asdict(options)
            | {
                "jwks_url": issuer.jwks_url,
                "authorization_url": issuer.authorization_url,
                "token_url": issuer.token_url,
            }
        )
        item = Item(_COLLECTION, _NAME, options=asdict(complete), changed_at=int(self._now().timestamp()))
        with only_while(Item, _stored, _of_item(only_if)) as condition:
            item.save(condition=condition)
        self._kept = self._now(), complete
        return complete

    def remove(self, *, only_if: OnlyIf[SignInOptions | None] | None = None) -> None:
        """Let nobody enroll by signing in any more. Who did so stays enrolled. Raises what ``only_if`` raises."""
        with only_while(Item, _stored, _of_item(only_if)) as condition:
            Item(_COLLECTION, _NAME).delete(condition=condition)
        self._kept = self._now(), None

    def _account(self, options: SignInOptions, authorization: str | None) -> str:
        """Return the Managed Apple Account of whoever the token is of."""
        if authorization is None or not authorization.lower().startswith(_BEARER):
            raise SignInRequiredError("The person has to sign in.", www_authenticate=_challenge(options))
        try:
            claims = self._tokens.verify(
                authorization[len(_BEARER) :].strip(),
                issuer=options.issuer,
                jwks_url=options.jwks_url,
                audiences=options.audiences,
            )
        except ForbiddenError as error:
            # It may only have expired, or the issuer has changed its keys since.
            raise SignInRequiredError(error.message, code=error.code, www_authenticate=_challenge(options)) from error
        account = claims.get(options.account_claim)
        if not isinstance(account, str) or not _is_account(account):
            raise ForbiddenError(
                f"The token's claim {options.account_claim} names no account.", code="account_claim_missing"
            )
        if options.account_claim == "email" and claims.get("email_verified") is False:
            raise ForbiddenError("The person's e-mail address is not verified.", code="account_not_verified")
        if not _is_of(account, options.domains):
            raise ForbiddenError("The account is of another domain.", code="account_of_another_domain")
        return account

    def _required_options(self) -> SignInOptions:
        kept = self._kept
        options = self.options() if kept is None or self._now() - kept[0] > _KEEP else kept[1]
        if options is None:
            raise NotFoundError("Nobody enrolls by signing in here.", code="account_driven_enrollment_off")
        return options


def _stored() -> Item | None:
    try:
        return Item.get(_COLLECTION, _NAME, consistent_read=True)
    except DoesNotExist:
        return None


def _of_item(only_if: OnlyIf[SignInOptions | None] | None) -> OnlyIf[Item | None] | None:
    if only_if is None:
        return None
    return lambda item: only_if(_decoded(item.options) if item else None)


def _challenge(options: SignInOptions) -> str:
    """Return the value of WWW-Authenticate that starts the sign-in."""
    if options.method == WEB:
        return f"Bearer method={_quoted(WEB)}, url={_quoted(options.sign_in_url or '')}"
    parameters = {
        "method": OAUTH2,
        "authorization-url": options.authorization_url or "",
        "token-url": options.token_url or "",
        "redirect-url": REDIRECT_URL,
        "client-id": options.client_id or "",
        "scope": options.scope or "",
    }
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_account(text: str) -> bool:
    # A device cancels an enrollment whose profile names no account of a domain.
    return len(text) <= _MAX_ACCOUNT and text.isprintable() and all(text.rpartition("@"))


def _is_of(account: str, domains: Sequence[str]) -> bool:
    return not domains or account.rpartition("@")[2].lower() in domains


def _machine_info(body: bytes) -> MachineInfo:
    # Apple's description of the flow shows it both signed and plain.
    is_plist = body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"bplist"))
    return MachineInfo.decode(body if is_plist else SignedContent.verify(body).content)


def _check_url(url: str, name: str, what: str) -> None:
    try:
        check_https_url(url, what)
    except BadRequestError as error:
        raise BadRequestError(error.message, code="invalid_field", field=name) from error


def _decoded(stored: Mapping[str, Any]) -> SignInOptions:
    known = {name: value for name, value in stored.items() if name in SignInOptions.__dataclass_fields__}
    by_family = known.pop("mode_by_model_family", {})
    return SignInOptions(
        **known | {"mode": EnrollmentMode(known["mode"])},
        mode_by_model_family={family: EnrollmentMode(mode) for family, mode in by_family.items()},
    )
