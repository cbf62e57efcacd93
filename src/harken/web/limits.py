"""Rate limits, in memory: token buckets by caller. A restart forgets them, which costs an attacker a restart."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from harken.store.names import name_key
from harken.web.errors import ApiError

MOST_KEYS = 10_000


class Buckets:
    """`burst` at once, then `rate` a second, for each key. The least recently used keys are forgotten first."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._levels: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, key: object) -> None:
        """Takes one, or raises `ApiError` slow_down with the seconds to wait."""
        now = self.clock()
        level, at = self._levels.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        allowed = level >= 1
        self._levels[key] = (level - 1 if allowed else level, now)
        if len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
        if not allowed:
            wait = max(1, int((1 - level) / self.rate + 0.999))
            raise ApiError("slow_down", "Too many requests.", f"Wait {wait} s.", retry_after=wait)


class Limits:
    """Requests by caller; logins by address, by name and address, and by name alone, so that neither a name nor an address
    can be hammered, from however many addresses.

    A browser that an account was logged into from before has a bucket of its own: guesses from elsewhere do not shut
    its owner out, whatever address a proxy gives them.
    """

    def __init__(self, *, calls: float = 100, call_burst: float = 400, logins: float = 1 / 6, login_burst: float = 10,
                 name_logins: float = 1 / 60, name_burst: float = 30) -> None:
        self.calls = Buckets(calls, call_burst)
        self.addresses, self.names = Buckets(logins * 10, login_burst * 10), Buckets(logins, login_burst)
        self.anywhere, self.devices = Buckets(name_logins, name_burst), Buckets(logins, login_burst)

    def login(self, address: str, name: str, device: str | None = None) -> None:
        """One try. `device` is given where it is known to be that account's."""
        if device is not None:
            self.devices.take((device, name_key(name)))
            return
        self.addresses.take(address)
        if name:
            self.names.take((address, name_key(name)))
            self.anywhere.take(name_key(name))
