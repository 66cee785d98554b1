"""A simulated OpenID Connect issuer, at which people sign in to enroll their devices.

``python -m local.oidc --certificate C --key K --user ada@example.org=secret`` serves until SIGTERM or SIGINT, and
prints one line of JSON that says where everything is. What people and devices open speaks TLS; what a server asks for
(who the issuer is, its keys) is plain HTTP on this machine, for no system trusts our certificates.

============================================  =======================================================================
``/.well-known/openid-configuration``         who it is (OpenID Connect Discovery 1.0)
``/keys``                                     its public keys (RFC 7517)
``/sign-in?user-identifier=``                 Apple's simple flow: a page, and at its end the access token
``/authorize``, ``/token``                    OAuth 2: the code flow of a public client (RFC 6749), with PKCE if asked
``POST /control`` (plain HTTP)                ``{"claims": {…}}`` changes what tokens claim from now on (null: nothing),
                                              ``{"rotate": true}`` makes a new key, ``{"algorithm": "ES256"}`` another
============================================  =======================================================================
"""

import argparse
import base64
import hashlib
import html
import json
import secrets
import signal
import ssl
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CALLBACK: Final = "apple-remotemanagement-user-login"
REDIRECT_URL: Final = f"{CALLBACK}:/oauth2/redirection"
"""What is registered for the client: as servers tell devices."""

_LIFETIME: Final = 3600
_CURVE_BYTES: Final = 32

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Answer = tuple[HTTPStatus, str, bytes, Mapping[str, str]]


@dataclass
class Issuer:
    """People, keys, and what is under way."""

    users: Mapping[str, str] = field(repr=False)
    client_id: str
    audience: str
    url: str = ""
    secure_url: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    algorithm: str = "RS256"
    claims: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.rotate()

    def rotate(self) -> None:
        """Sign with new keys, and know the old ones no more."""
        self.keys = {
            f"RS256-{secrets.token_hex(4)}": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            f"ES256-{secrets.token_hex(4)}": ec.generate_private_key(ec.SECP256R1()),
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """What the issuer says of itself."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.secure_url}/authorize",
            "token_endpoint": f"{self.secure_url}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }

    def access_token(self, user: str) -> str:
        """Return a JWT (RFC 7519) of who signed in."""
        now = int(time.time())
        kid, key = next((kid, key) for kid, key in self.keys.items() if kid.startswith(self.algorithm))
        claims = {
            "iss": self.url,
            "aud": self.audience,
            "sub": hashlib.sha256(user.encode()).hexdigest()[:16],
            "email": user,
            "email_verified": True,
            "iat": now,
            "exp": now + _LIFETIME,
            "jti": secrets.token_hex(8),
        } | self.claims
        header = {"alg": self.algorithm, "kid": kid, "typ": "at+jwt"}
        parts = [header, {name: value for name, value in claims.items() if value is not None}]
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_encoded(_signature(key, signed.encode()))}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.headers.get("Content-Type", "").startswith("application/json"):
            self._answer(json.loads(body))
        else:
            self._answer(dict(parse_qsl(body.decode(), keep_blank_values=True)))

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: there are secrets in paths."""

    def _answer(self, form: dict[str, Any]) -> None:
        parts = urlsplit(self.path)
        pages = _SECURE if self.server.is_secure else _PLAIN
        page = pages.get((self.command, parts.path))
        issuer = self.server.issuer
        with issuer.lock:
            status, content_type, body, headers = (
                page(issuer, dict(parse_qsl(parts.query)), form) if page else _plain(HTTPStatus.NOT_FOUND)
            )
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Cache-Control": "no-store", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, issuer: Issuer, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.issuer = issuer
        self.is_secure = tls is not None
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # socketserver's signature
        # Clients hang up, and some do not trust us.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _metadata(issuer: Issuer, _query: dict[str, str], _form: dict[str, Any]) -> Answer:
    return _json(issuer.metadata)


def _keys(issuer: Issuer, _query: dict[str, str], _form: dict[str, Any]) -> Answer:
    return _json({"keys": [_jwk(kid, key) for kid, key in issuer.keys.items()]})


def _control(issuer: Issuer, _query: dict[str, str], form: dict[str, Any]) -> Answer:
    issuer.claims = dict(form.get("claims", issuer.claims))
    issuer.algorithm = form.get("algorithm", issuer.algorithm)
    if form.get("rotate"):
        issuer.rotate()
    return _json({"claims": issuer.claims, "algorithm": issuer.algorithm})


def _show_sign_in(_issuer: Issuer, query: dict[str, str], _form: dict[str, Any]) -> Answer:
    return _form_page("/sign-in", user=query.get("user-identifier", ""), hidden={})


def _sign_in(issuer: Issuer, _query: dict[str, str], form: dict[str, Any]) -> Answer:
    user = _proven(issuer, form)
    if user is None:
        return _plain(HTTPStatus.FORBIDDEN)
    token = urlencode({"access-token": issuer.access_token(user)})
    return _to(f"{CALLBACK}://authentication-results?{token}")


def _show_authorize(issuer: Issuer, query: dict[str, str], _form: dict[str, Any]) -> Answer:
    registered = query.get("client_id") == issuer.client_id and query.get("redirect_uri") == REDIRECT_URL
    if not registered or query.get("response_type") != "code" or not query.get("state"):
        return _plain(HTTPStatus.BAD_REQUEST)
    kept: dict[str, str] = {name: query[name] for name in ("scope", "state", "code_challenge") if name in query}
    return _form_page("/authorize", user=query.get("login_hint", ""), hidden=kept)


def _authorize(issuer: Issuer, _query: dict[str, str], form: dict[str, Any]) -> Answer:
    user = _proven(issuer, form)
    if user is None:
        return _plain(HTTPStatus.FORBIDDEN)
    code = secrets.token_urlsafe(16)
    issuer.codes[code] = {"user": user, "challenge": form.get("code_challenge", "")}
    return _to(f"{REDIRECT_URL}?{urlencode({'code': code, 'state': form['state']})}")


def _token(issuer: Issuer, _query: dict[str, str], form: dict[str, Any]) -> Answer:
    user = None
    if form.get("client_id") == issuer.client_id:
        if form.get("grant_type") == "authorization_code" and form.get("redirect_uri") == REDIRECT_URL:
            # Good for one request, whatever becomes of it.
            granted = issuer.codes.pop(str(form.get("code")), None)
            if granted and _verifies(granted["challenge"], str(form.get("code_verifier", ""))):
                user = granted["user"]
        elif form.get("grant_type") == "refresh_token":
            user = issuer.refresh_tokens.pop(str(form.get("refresh_token")), None)
    if user is None:
        return _json({"error": "invalid_grant"}, HTTPStatus.BAD_REQUEST)
    refresh_token = secrets.token_urlsafe(16)
    issuer.refresh_tokens[refresh_token] = user
    return _json(
        {
            "access_token": issuer.access_token(user),
            "token_type": "Bearer",
            "expires_in": _LIFETIME,
            "refresh_token": refresh_token,
        }
    )


_PLAIN: Final = {
    ("GET", "/.well-known/openid-configuration"): _metadata,
    ("GET", "/keys"): _keys,
    ("POST", "/control"): _control,
}
_SECURE: Final = {
    ("GET", "/sign-in"): _show_sign_in,
    ("POST", "/sign-in"): _sign_in,
    ("GET", "/authorize"): _show_authorize,
    ("POST", "/authorize"): _authorize,
    ("POST", "/token"): _token,
}


def _proven(issuer: Issuer, form: dict[str, Any]) -> str | None:
    user, password = str(form.get("username", "")), str(form.get("password", ""))
    return user if password and issuer.users.get(user) == password else None


def _verifies(challenge: str, verifier: str) -> bool:
    return not challenge or _encoded(hashlib.sha256(verifier.encode()).digest()) == challenge


def _form_page(action: str, *, user: str, hidden: Mapping[str, str]) -> Answer:
    fields = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in hidden.items()
    )
    page = (
        "<!DOCTYPE html><title>Sign in</title>"
        f'<form method="post" action="{action}">{fields}'
        f'<input type="email" name="username" value="{html.escape(user)}">'
        '<input type="password" name="password"><button>Sign in</button></form>'
    )
    return HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), {}


def _to(url: str) -> Answer:
    return HTTPStatus.PERMANENT_REDIRECT, "text/plain", b"", {"Location": url}


def _plain(status: HTTPStatus) -> Answer:
    return status, "text/plain", status.phrase.encode(), {}


def _json(document: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return status, "application/json", json.dumps(document).encode(), {}


def _jwk(kid: str, key: Key) -> dict[str, str]:
    common = {"kid": kid, "use": "sig", "alg": kid.partition("-")[0]}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return common | {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    point = key.public_key().public_numbers()
    return common | {
        "kty": "EC",
        "crv": "P-256",
        "x": _number(point.x, _CURVE_BYTES),
        "y": _number(point.y, _CURVE_BYTES),
    }


def _signature(key: Key, signed: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    # RFC 7518, section 3.4: the two numbers side by side, no DER.
    both = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return b"".join(number.to_bytes(_CURVE_BYTES, "big") for number in both)


def _number(number: int, size: int | None = None) -> str:
    return _encoded(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m local.oidc", description="A simulated OpenID Connect issuer.")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM chain of the TLS certificate")
    parser.add_argument("--key", type=Path, required=True, help="its key")
    parser.add_argument("--user", action="append", default=[], metavar="NAME=PASSWORD", help="who can sign in")
    parser.add_argument("--client-id", default="devices", help="of the OAuth 2 client that devices are")
    parser.add_argument("--audience", default="picomdm", help="whom access tokens are for")
    arguments = parser.parse_args(argv)
    users = dict(entry.split("=", 1) for entry in arguments.user)
    issuer = Issuer(users=users, client_id=arguments.client_id, audience=arguments.audience)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(arguments.certificate, arguments.key)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    plain, secure = _Server(issuer), _Server(issuer, tls=tls)
    issuer.url = f"http://127.0.0.1:{plain.server_port}"
    issuer.secure_url = f"https://127.0.0.1:{secure.server_port}"
    told = {
        "issuer": issuer.url,
        "sign_in": f"{issuer.secure_url}/sign-in",
        "control": f"{issuer.url}/control",
        "client_id": issuer.client_id,
        "audience": issuer.audience,
    }
    print(json.dumps(told), flush=True)
    stop.wait()
    for server in (plain, secure):
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
