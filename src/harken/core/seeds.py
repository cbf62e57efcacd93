"""Random draws as functions of what they are for: all that exact resuming needs."""

from __future__ import annotations

import hashlib

MOST_SEED = 2**63 - 1
"""What torch takes."""


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from what the draw is for: `derive_seed(config.seed, "rollout", step)`."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
