"""A provider of OpenID Connect for the tests: an HTTP server in this process that knows one person at a time."""

import base64
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "harken", "hush"


class Idp:
    """What it knows and says; a test changes its fields."""

    def __init__(self):
        self.key = RSAKey.generate_key(2048, {"kid": "k1"})
        self.person = {"sub": "u-1", "preferred_username": "ada", "email": "ada@example.org", "email_verified": True}
        self.claims, self.signer, self.asked = {}, None, {}
        self.url = ""

    def token(self, form):
        asked = self.asked.pop(form["code"][0])
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"][0].encode()).digest()).rstrip(b"=").decode()
        assert challenge == asked["code_challenge"][0] and asked["code_challenge_method"] == ["S256"]
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"][0],
            **self.person,
            **self.claims,
        }
        key = self.signer or self.key
        return {"access_token": "a", "token_type": "Bearer", "id_token": jwt.encode({"alg": "RS256", "kid": "k1"}, claims, key)}


@contextmanager
def provider():
    idp = Idp()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body, status=200, **headers):
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            parts = urlsplit(self.path)
            if parts.path.endswith("openid-configuration"):
                self.answer(
                    {
                        "issuer": idp.url,
                        "authorization_endpoint": idp.url + "/authorize",
                        "token_endpoint": idp.url + "/token",
                        "jwks_uri": idp.url + "/keys",
                    }
                )
            elif parts.path == "/keys":
                self.answer({"keys": [idp.key.as_dict(private=False)]})
            elif parts.path == "/authorize":
                asked = parse_qs(parts.query)
                assert asked["client_id"] == [CLIENT] and "openid" in asked["scope"][0]
                code = f"code-{len(idp.asked)}-{time.monotonic_ns()}"
                idp.asked[code] = asked
                self.answer({}, 302, Location=f"{asked['redirect_uri'][0]}?code={code}&state={asked['state'][0]}")

        def do_POST(self):
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            given = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
            assert given == f"{CLIENT}:{SECRET}"
            self.answer(idp.token(form))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    idp.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield idp
    finally:
        server.shutdown()
        server.server_close()
