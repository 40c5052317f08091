"""Where a server may be reached, and that what is told is compared safely."""

import pytest

from mem1.errors import ConfigError
from mem1.serving import guard_of, is_loopback, open_port


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_all_else(host, expected):
    assert is_loopback(host) == expected


def test_a_guard_knows_who_can_reach_its_socket():
    with open_port("127.0.0.1", 0) as at:
        guard = guard_of(at, command="x", token=None)
    assert (guard.any_host, guard.token) == (False, None)
    with open_port("0.0.0.0", 0) as at:
        assert guard_of(at, command="x", token="t").any_host
        with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached by others"):
            guard_of(at, command="x", token=None)
