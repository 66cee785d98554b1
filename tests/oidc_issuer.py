"""An OpenID Connect issuer on this machine: it says where its keys are, and makes tokens of them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.scep_client import rsa_key

AUDIENCE = "picomdm"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class OidcIssuer(ThreadingHTTPServer):
    """Answers for its discovery document and its keys; remembers how often it was asked for each path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.keys: dict[str, Key] = {"rsa-1": rsa_key("issuer"), "ec-1": ec.generate_private_key(ec.SECP256R1())}
        self.metadata: dict[str, Any] = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        }
        self.more_keys: list[Any] = []
        self.asked: list[str] = []
        self.is_down = False

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        with cls() as issuer:
            thread = Thread(target=issuer.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            yield issuer
            issuer.shutdown()
            thread.join()

    @property
    def documents(self) -> Mapping[str, Any]:
        return {
            "/.well-known/openid-configuration": self.metadata,
            "/keys": {"keys": [*(_jwk(name, key) for name, key in self.keys.items()), *self.more_keys]},
        }

    def token(
        self, *, at: float, key: str = "rsa-1", algorithm: str | None = None, signing_key: Any = None, **claims: Any
    ) -> str:
        """Return a token of an hour from ``at`` (epoch seconds); a claim of None is left away."""
        told = {"iss": self.url, "aud": AUDIENCE, "sub": "42", "email": "ada@example.org", "exp": int(at) + 3600}
        content = {name: value for name, value in (told | claims).items() if value is not None}
        algorithm = algorithm or ("RS256" if isinstance(self.keys.get(key), rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(content, signing_key or self.keys[key], algorithm=algorithm, headers={"kid": key})


def _jwk(name: str, key: Key) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        described = RSAAlgorithm.to_jwk(public, as_dict=True)
    else:
        described = ECAlgorithm.to_jwk(public, as_dict=True)
    return {**described, "kid": name, "use": "sig"}


class _Handler(BaseHTTPRequestHandler):
    server: OidcIssuer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        document = self.server.documents.get(self.path)
        body = json.dumps(document).encode()
        self.send_response(503 if self.server.is_down else 200 if document else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
