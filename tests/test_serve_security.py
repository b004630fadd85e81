"""Keys, hosts, origins and rates, without a server."""

from pathlib import Path

import pytest

from voxfast.errors import InvalidOptionError
from voxfast.serve.dialect import Problem
from voxfast.serve.security import Policy, RateLimit, bearer_keys, read_keys
from voxfast.serve.server import Settings

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"


def keys(folder: Path, text: str) -> tuple[bytes, ...]:
    path = folder / "keys"
    path.write_text(text)
    return read_keys(path)


def refusal(policy: Policy, *given: str) -> str:
    with pytest.raises(Problem) as refused:
        policy.check_key(given)
    assert refused.value.status == 401
    return refused.value.code


def test_keys(tmp_path: Path) -> None:
    policy = Policy(keys(tmp_path, f"# two\n{KEY}\n\n  {OTHER}  \n"))
    assert refusal(policy) == "missing_api_key"
    assert refusal(policy, KEY[:-1], KEY.upper(), "", "\udcff") == "invalid_api_key"
    first, second = policy.check_key([KEY]), policy.check_key(["wrong", OTHER])
    assert first != second
    assert first is not None
    assert KEY not in first
    assert Policy().check_key([]) is None


@pytest.mark.parametrize("text", ["", "# none\n", "short\n", f"{KEY} {KEY}\n", f"{KEY}é\n"])
def test_files_of_keys_that_are_of_no_use(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidOptionError, match="key"):
        keys(tmp_path, text)
    with pytest.raises(InvalidOptionError, match="cannot be read"):
        read_keys(tmp_path / "missing")


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": f"Bearer {KEY}"}, ""),
        ({"authorization": f"Token {KEY}"}, ""),
        ({"authorization": f"bearer  {KEY} "}, ""),
        ({"x-api-key": KEY}, ""),
        ({"sec-websocket-protocol": f"realtime, openai-insecure-api-key.{KEY}"}, ""),
        ({"sec-websocket-protocol": f"token, {KEY}"}, ""),
        ({}, f"model=x&api_key={KEY}"),
        ({}, f"token={KEY}"),
    ],
)
def test_where_keys_are_found(headers: dict[str, str], query: str) -> None:
    assert bearer_keys(headers, query) == [KEY]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Basic eDp5"},
        {"authorization": "Bearer"},
        {"sec-websocket-protocol": "realtime"},
        {"sec-websocket-protocol": "token"},
    ],
)
def test_where_none_are(headers: dict[str, str]) -> None:
    assert bearer_keys(headers, "model=x&api_key=") == []


@pytest.mark.parametrize("host", ["localhost", "localhost:8910", "127.0.0.1:1", "[::1]:8910"])
def test_hosts_of_this_machine(host: str) -> None:
    Policy().check_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "localhost.evil.example", "127.0.0.1@evil", "a b", "[::1"]
)
def test_other_hosts(host: str | None) -> None:
    with pytest.raises(Problem):
        Policy().check_host(host)


def test_hosts_that_are_allowed() -> None:
    Policy(hosts=frozenset({"speech.example"})).check_host("Speech.example:443")
    Policy(hosts=None).check_host("any.example")


@pytest.mark.parametrize(
    ("origin", "host", "is_allowed"),
    [
        (None, "localhost:8910", True),  # no browser
        ("http://localhost:8910", "localhost:8910", True),
        ("https://localhost:8910", "localhost:8910", True),  # behind a proxy
        ("http://localhost:8911", "localhost:8910", False),
        ("http://evil.example", "localhost:8910", False),
        ("null", "localhost:8910", False),
        ("file://", "", False),
        ("http://[", "localhost:8910", False),
        ("https://app.example", "localhost:8910", True),
        ("https://app.example.evil", "localhost:8910", False),
    ],
)
def test_origins(origin: str | None, host: str, is_allowed: bool) -> None:
    policy = Policy(origins=frozenset({"https://app.example"}))
    if is_allowed:
        policy.check_origin(origin, host)
    else:
        with pytest.raises(Problem) as refused:
            policy.check_origin(origin, host)
        assert refused.value.status == 403


def test_rates() -> None:
    limit = RateLimit(2)
    for _ in range(2):
        limit.check("a", 10.0)
    with pytest.raises(Problem) as refused:
        limit.check("a", 20.0)
    assert refused.value.status == 429
    assert refused.value.retry_after == 40
    limit.check("b", 20.0)
    limit.check("a", 61.0)  # in the next minute
    for _ in range(1000):
        RateLimit(0).check("a")


def test_rates_keep_no_more_names_than_they_must() -> None:
    limit = RateLimit(5)
    limit.MOST_NAMES = 10
    for name in range(1000):
        limit.check(str(name), 1.0)
    assert len(limit._counts) <= 11


def test_other_machines_need_a_key(tmp_path: Path) -> None:
    assert Settings().policy().hosts is not None
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(InvalidOptionError, match="--api-key-file"):
            Settings(host=address).policy()
    assert Settings(host="0.0.0.0", allow_anonymous=True).policy().hosts is None
    (tmp_path / "keys").write_text(KEY)
    policy = Settings(
        host="0.0.0.0", api_key_file=tmp_path / "keys", allow_hosts=["A.example"]
    ).policy()
    assert policy.hosts is not None
    assert "a.example" in policy.hosts


@pytest.mark.parametrize("origin", ["*", "example.org", "https://example.org/path"])
def test_origins_that_cannot_be(origin: str) -> None:
    with pytest.raises(InvalidOptionError, match="origin"):
        Settings(allow_origins=[origin]).policy()
