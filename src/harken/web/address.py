"""The address under which others reach a server: what they can open, not what it listens on."""

from __future__ import annotations

import ipaddress
import socket

EVERYWHERE = ("", "0.0.0.0", "::")


def lan_address() -> str | None:
    """This machine's address in its network, as a router outside would be reached; None without a network. Sends nothing."""
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):  # RFC 5737, 3849: nobody's
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((outside, 9))
                found = str(probe.getsockname()[0])
            except OSError:
                continue
        if not ipaddress.ip_address(found).is_loopback:
            return found
    return None


def public_address(host: str, port: int, names: tuple[str, ...] = ()) -> str:
    """The address to give away: a public name's behind a proxy with TLS, else of the network, else as it listens."""
    if names:
        return f"https://{names[0]}"
    shown = (lan_address() or host) if host in EVERYWHERE else host
    if shown in ("127.0.0.1", "::1"):
        shown = "localhost"
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
