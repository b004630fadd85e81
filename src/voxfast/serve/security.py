"""Who may come in: keys, hosts, origins, and how often. The same gate stands before every door."""

import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from voxfast.errors import InvalidOptionError
from voxfast.serve.dialect import Problem

__all__ = [
    "KEY_HEADERS",
    "LOCAL_HOSTS",
    "Policy",
    "RateLimit",
    "bearer_keys",
    "query_of",
    "read_keys",
]

_KEY_PARAMETERS = frozenset({"api_key", "key", "token", "access_token"})
KEY_HEADERS = frozenset({"authorization", "x-api-key", "sec-websocket-protocol", "cookie"})
_KEY_PROTOCOL = "openai-insecure-api-key."
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LEAST_KEY = 16
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")


@dataclass(frozen=True)
class Policy:
    """Who may come in.

    Attributes:
        keys: SHA-256 of each key; empty: no key is needed.
        hosts: names that requests may be addressed to, in lower case; None: any. It keeps web
            pages out that make a name of their own point to this machine (DNS rebinding).
        origins: of web pages, beside those of the server itself.
    """

    keys: tuple[bytes, ...] = ()
    hosts: frozenset[str] | None = LOCAL_HOSTS
    origins: frozenset[str] = frozenset()

    def check_host(self, host: str | None) -> None:
        """Raise Problem unless a request may be addressed to this host."""
        match = _HOST.fullmatch(host or "")
        if match is None:
            raise Problem("the Host header is missing or malformed", "invalid_host", 400)
        if self.hosts is not None and match[1].strip("[]").lower() not in self.hosts:
            raise Problem(
                f"this server does not answer to the name {match[1]:.100}; "
                "voxfast serve --allow-host NAME adds one",
                "host_not_allowed",
                421,
                "permission_error",
            )

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Raise Problem unless a web page of this origin may ask; programs have none."""
        if origin is None or origin in self.origins:
            return
        try:
            parts = urlsplit(origin)
        except ValueError:
            parts = urlsplit("")
        is_own = parts.scheme in ("http", "https") and parts.netloc.lower() == (host or "").lower()
        if not is_own:
            raise Problem(
                "pages of this origin may not ask; voxfast serve --allow-origin ORIGIN lets them",
                "origin_not_allowed",
                403,
                "permission_error",
            )

    def check_key(self, given: Iterable[str]) -> str | None:
        """The name of the key, for limits and the log; None if none is needed.

        Raises:
            Problem: if one is needed, and none of the given ones is right.
        """
        if not self.keys:
            return None
        found = None
        is_empty = True
        for key in given:
            is_empty = False
            digest = _digest(key)
            for known in self.keys:  # all of them: the time tells nothing
                if hmac.compare_digest(digest, known):
                    found = known
        if found is None:
            raise Problem(
                "a key is needed, as Authorization: Bearer KEY, X-API-Key or ?api_key="
                if is_empty
                else "the key is not one of this server",
                "missing_api_key" if is_empty else "invalid_api_key",
                401,
                "authentication_error",
            )
        return found.hex()[:8]


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line; empty lines and those that begin with # are none.

    Raises:
        InvalidOptionError: if it cannot be read, has none, or one that is easy to guess.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InvalidOptionError(f"the file of keys {path} cannot be read: {error}") from None
    keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
    for number, key in enumerate(keys, 1):
        if len(key) < LEAST_KEY or not key.isascii() or " " in key:
            raise InvalidOptionError(
                f"key {number} in {path} must have {LEAST_KEY} ASCII characters or more, and no "
                "space; make one with: openssl rand -hex 24"
            )
    if not keys:
        raise InvalidOptionError(f"there is no key in {path}: write one a line")
    return tuple(map(_digest, keys))


def bearer_keys(headers: Mapping[str, str], query: str) -> list[str]:
    """The keys that a request brings.

    Args:
        headers: by lower-case name.
        query: the part of the URL behind ``?``.
    """
    keys = []
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token"):
        keys.append(key.strip())
    keys.append(headers.get("x-api-key", ""))
    protocols = [part.strip() for part in headers.get("sec-websocket-protocol", "").split(",")]
    for name, following in zip(protocols, [*protocols[1:], ""], strict=True):
        if name.startswith(_KEY_PROTOCOL):
            keys.append(name.removeprefix(_KEY_PROTOCOL))
        elif name.lower() in ("token", "bearer"):
            keys.append(following)
    keys += [value for name, value in parse_qsl(query) if name in _KEY_PARAMETERS]
    return [key for key in keys if key]


def query_of(query: str) -> dict[str, tuple[str, ...]]:
    """The values of each parameter of a query, but for keys, which go no further than the gate."""
    values: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _KEY_PARAMETERS:
            values[name] = (*values.get(name, ()), value)
    return values


class RateLimit:
    """Counts requests by the minute.

    Args:
        most: requests per minute of one name; 0: any number.
    """

    MOST_NAMES = 100_000

    def __init__(self, most: int) -> None:
        self._most = most
        self._minute = 0
        self._counts: dict[str, int] = {}

    def check(self, name: str, now: float | None = None) -> None:
        """Count a request; raise Problem if there were too many.

        Args:
            name: of the key, or the client's address.
            now: seconds of a clock; None: the system's.
        """
        if not self._most:
            return
        now = time.monotonic() if now is None else now
        if int(now // 60) != self._minute or len(self._counts) > self.MOST_NAMES:
            self._minute, self._counts = int(now // 60), {}
        self._counts[name] = count = self._counts.get(name, 0) + 1
        if count > self._most:
            raise Problem(
                f"more than {self._most} requests in a minute; wait for the next one",
                "rate_limit_exceeded",
                429,
                "rate_limit_error",
                retry_after=60 - int(now % 60),
            )


def _digest(key: Any) -> bytes:
    return hashlib.sha256(str(key).encode("utf-8", "replace")).digest()
