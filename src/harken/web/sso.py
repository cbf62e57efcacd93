"""Single sign-on by OpenID Connect: the authorization code flow with PKCE, through Authlib.

    provider = Provider("https://accounts.example.org", "harken", "secret")
    address, ticket = provider.begin("https://studio.example.org/login/sso/back", onward="/")
    identity, onward = provider.finish(ticket, state, code, "https://studio.example.org/login/sso/back")

The ticket is a cookie of ten minutes: only the browser that began a login can finish it. State, nonce and the code verifier stay in
this process. OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3; RFC 7636.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harken.core.errors import UserError
from harken.web.errors import ApiError

MINUTES = 10
MOST_BEGUN = 10_000
SECONDS = 10
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a public key: an ID token signed with the client's own secret, or with none, is refused."""


@dataclass(frozen=True)
class Identity:
    """Who somebody is to the provider."""

    subject: str
    """The issuer and its name for them, which never changes."""
    name: str
    email: str
    """Empty unless the provider has verified it."""


@dataclass
class _Begun:
    state: str
    nonce: str
    verifier: str
    onward: str
    at: float


@dataclass
class Provider:
    """One provider of identities, and who of its people may come in."""

    issuer: str
    client_id: str
    secret: str
    domains: Sequence[str] = ()
    """Verified addresses of these domains may make an account; none: whoever the provider knows."""
    leads: Sequence[str] = ()
    """Verified addresses whose new accounts are a lead's; others are labelers."""
    _begun: dict[str, _Begun] = field(default_factory=dict)
    _known: dict[str, Any] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, back: str, onward: str) -> tuple[str, str]:
        """The provider's address to send a browser to, and the ticket that this browser must bring back."""
        from authlib.common.security import generate_token
        ticket, nonce, verifier = secrets.token_urlsafe(32), generate_token(32), generate_token(64)
        client = self._client(back)
        address, state = client.create_authorization_url(self._endpoint("authorization_endpoint"), nonce=nonce,
                                                         code_verifier=verifier)
        now = time.monotonic()
        with self._lock:
            for old in [t for t, b in self._begun.items() if b.at < now - 60 * MINUTES]:
                del self._begun[old]
            if len(self._begun) >= MOST_BEGUN:
                raise ApiError("busy", "Too many logins are under way.", "Try again in a few minutes.")
            self._begun[ticket] = _Begun(state, nonce, verifier, onward, now)
        return str(address), ticket

    def finish(self, ticket: str, state: str, code: str, back: str) -> tuple[Identity, str]:
        """Who came back, and where they were going. Raises ApiError where anything does not fit; a ticket works once."""
        with self._lock:
            begun = self._begun.pop(ticket, None)
        fresh = begun is not None and begun.at >= time.monotonic() - 60 * MINUTES
        if begun is None or not fresh or not secrets.compare_digest(begun.state, state):
            raise ApiError("bad_login", "This login was not begun here, or too long ago.", "Begin again.")
        try:
            token = self._client(back).fetch_token(self._endpoint("token_endpoint"), code=code, code_verifier=begun.verifier,
                                                   grant_type="authorization_code", timeout=SECONDS)
            claims = self._claims(token["id_token"], begun.nonce)
        except ApiError:
            raise
        except Exception as error:  # whatever the provider or its token had wrong: nobody comes in
            raise ApiError("bad_login", f"The sign-on did not succeed ({type(error).__name__}).", "Begin again.") from None
        return self._identity(claims), begun.onward

    def allows(self, identity: Identity) -> bool:
        """Whether somebody new may have an account."""
        return not self.domains or identity.email.rpartition("@")[2].lower() in {d.lower() for d in self.domains}

    def role_of(self, identity: Identity) -> str:
        return "lead" if identity.email and identity.email.lower() in {e.lower() for e in self.leads} else "labeler"

    def _client(self, back: str) -> Any:
        try:
            from authlib.integrations.requests_client import OAuth2Session
        except ModuleNotFoundError as error:
            raise UserError(f"Single sign-on needs the package {error.name}.", "pip install 'harken[sso]'") from None
        return OAuth2Session(self.client_id, self.secret, scope="openid profile email", redirect_uri=back,
                             code_challenge_method="S256")

    def _endpoint(self, name: str) -> str:
        return str(self._configuration()[name])

    def _configuration(self) -> dict[str, Any]:
        """What the provider says of itself, asked once."""
        if self._known is None:
            import requests
            address = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
            try:
                answer = requests.get(address, timeout=SECONDS)
                known = answer.json()
            except (requests.RequestException, ValueError) as error:
                raise ApiError("storage", f"The provider of sign-on did not answer ({type(error).__name__}).",
                               "Try again; tell the lead if it stays.") from None
            if known.get("issuer") != self.issuer:
                raise ApiError("bad_login", "The provider of sign-on calls itself something else.", "Tell the lead.")
            self._known = dict(known)
        return self._known

    def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        import requests
        from joserfc import jwt
        from joserfc.jwk import KeySet
        keys = KeySet.import_key_set(requests.get(self._endpoint("jwks_uri"), timeout=SECONDS).json())
        decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
        jwt.JWTClaimsRegistry(
            leeway=60,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(decoded.claims)
        return decoded.claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        email = str(claims.get("email", "")) if claims.get("email_verified") is True else ""
        name = str(claims.get("preferred_username") or claims.get("name") or email.partition("@")[0] or "labeler")
        return Identity(f"{self.issuer} {claims['sub']}", name, email)
