"""Addresses of checkpoints: mirrors that were asked for come first, and no secret of an address is shown."""

import re

import pytest

from engine.errors import ConfigInvalid, NotFound
from engine.weights.sources import SOURCES, addresses, check_address, shown

GFPGAN = SOURCES["gfpgan"]


@pytest.mark.parametrize(
    ("mirror", "address"),
    [
        ("https://m.example", "https://m.example/GFPGANv1.4.pth"),
        ("https://m.example/files/", "https://m.example/files/GFPGANv1.4.pth"),
        ("https://m.example/v1.4", "https://m.example/v1.4/GFPGANv1.4.pth"),
        ("https://m.example/my.pth", "https://m.example/my.pth"),
        ("https://m.example/get?id=7", "https://m.example/get?id=7"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/GFPGANv1.4.pth"),
        ("http://[::1]:8000/", "http://[::1]:8000/GFPGANv1.4.pth"),
    ],
)
def test_mirror_is_a_folder_or_a_file(mirror: str, address: str) -> None:
    assert addresses(GFPGAN, [mirror])[0] == address


def test_own_mirrors_come_before_configured_ones_and_the_authors_last() -> None:
    found = addresses(GFPGAN, ["https://own.example/"], ["https://all.example/", "https://own.example/"])
    assert found[:2] == ["https://own.example/GFPGANv1.4.pth", "https://all.example/GFPGANv1.4.pth"]
    assert found[2:] == list(GFPGAN.addresses)


def test_configured_address_of_another_file_is_passed_over() -> None:
    assert addresses(GFPGAN, configured=["https://all.example/wav2lip.pth"]) == list(GFPGAN.addresses)


def test_no_address_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(NotFound) as failure:
        addresses(SOURCES["wav2lip"])
    assert failure.value.code == "weights_no_address" and "--mirror" in failure.value.message


def test_built_in_sources_are_safe_and_complete() -> None:
    for source in SOURCES.values():
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert "commercial" in source.terms
        for address in source.addresses:
            check_address(address)
            assert address.startswith("https://") and address.endswith("/" + source.file_name)


def test_secrets_of_an_address_are_not_shown() -> None:
    assert shown("https://user:word@m.example/a.pth?token=secret#part") == "https://m.example/a.pth"
    with pytest.raises(ConfigInvalid) as failure:
        check_address("http://user:word@m.example/a.pth?token=secret")
    assert "secret" not in failure.value.message and "word" not in failure.value.message
