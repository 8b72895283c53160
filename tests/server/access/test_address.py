"""Where a request comes from."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request

from server.access.address import caller, is_local, is_loopback

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/16"))


class _From:
    """The part of a connection that knows who is at its other end."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self.address, 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return False


def request(remote: str = "127.0.0.1", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/", {"Host": "localhost:8080", **named}, transport=_From(remote))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("me.localhost", True),
        ("0.0.0.0", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_names(name, expected):
    assert is_loopback(name) is expected


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
def test_a_request_to_a_loopback_name_is_local(host):
    assert is_local(request(Host=host))


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "face.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"X_Forwarded_For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
    ],
)
def test_what_came_by_another_name_or_through_a_proxy_is_not_local(headers):
    assert not is_local(request(**headers))


def test_nobody_but_a_named_proxy_says_who_asks():
    assert caller(request("203.0.113.9", X_Forwarded_For="198.51.100.1"), PROXIES) == "203.0.113.9"
    assert caller(request("10.0.0.1", X_Forwarded_For="198.51.100.1"), PROXIES) == "198.51.100.1"


def test_what_a_caller_wrote_into_the_header_before_the_proxy_is_not_believed():
    forged = request("10.0.0.1", X_Forwarded_For="1.2.3.4, 198.51.100.1")
    assert caller(forged, PROXIES) == "198.51.100.1"
    through_two = request("10.0.0.1", X_Forwarded_For="1.2.3.4, 198.51.100.1, 10.0.0.2")
    assert caller(through_two, PROXIES) == "198.51.100.1"


def test_one_customer_with_many_addresses_is_one_caller():
    assert caller(request("2001:db8:1:2:3::4"), ()) == caller(request("2001:db8:1:2:ffff::1"), ())
    assert caller(request("2001:db8:1:3::4"), ()) != caller(request("2001:db8:1:2::4"), ())
    assert caller(request("::ffff:203.0.113.9"), ()) == "203.0.113.9"
    assert caller(request("::1"), ()) == "::/64"


def test_nonsense_in_the_header_is_counted_as_it_is_and_bounded():
    assert len(caller(request("10.0.0.1", X_Forwarded_For="x" * 5000), PROXIES)) == 64
