"""Which checkpoints can be fetched by name, where they lie, how they are recognised, and on which terms.

Place in the flow: ``python -m engine weights get NAME`` -> terms shown and accepted -> addresses -> download.

Invariants:
    * only addresses at which the authors themselves publish a file are built in;
    * a known SHA-256 is that of the file which was published, as several independent projects have pinned it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from engine.errors import ConfigInvalid, NotFound

_FILE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_WAV2LIP_TERMS = """\
Wav2Lip's weights were trained on the BBC's LRS2 recordings. Their authors allow research, academic and personal
use only; any commercial use needs an agreement with them. The same holds for weights that were tuned from theirs.
Terms: https://github.com/Rudrabha/Wav2Lip#license-and-citation"""

_GFPGAN_TERMS = """\
GFPGAN comes under Apache-2.0, except for parts that have terms of their own: its generator builds on NVIDIA's
StyleGAN2, whose licence allows non-commercial use only, and it uses DFDNet under CC BY-NC-SA 4.0.
Ask a lawyer before you use it commercially. Terms: https://github.com/TencentARC/GFPGAN/blob/master/LICENSE"""

_CONSENT = "Whoever is shown must have agreed to it, and people must be able to tell that a picture was made."


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that can be fetched by name.

    Attributes:
        name: what people ask for, and the name the weights get.
        kind: "wav2lip" or "gfpgan".
        title: what it is, in a few words.
        file_name: of the official file; mirrors are expected to keep it.
        size_bytes: about how large it is.
        sha256: of the official file.
        addresses: direct addresses at which the authors publish it; may be empty.
        page: where people find it.
        terms: terms of use for people, in our words, several lines.
    """

    name: str
    kind: str
    title: str
    file_name: str
    size_bytes: int
    sha256: str
    addresses: tuple[str, ...]
    page: str
    terms: str


_GFPGAN_RELEASE = "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/"
_WAV2LIP_PAGE = "https://github.com/Rudrabha/Wav2Lip#getting-the-weights"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "wav2lip", "wav2lip", "Wav2Lip 96, the most accurate lips", "wav2lip.pth", 435_807_851,
            "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
            # The authors hand it out through pages of Google Drive, which are made for browsers.
            (), _WAV2LIP_PAGE, f"{_WAV2LIP_TERMS}\n{_CONSENT}",
        ),
        Source(
            "wav2lip-gan", "wav2lip", "Wav2Lip 96, sharper, a little less accurate", "wav2lip_gan.pth", 435_801_865,
            "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
            (), _WAV2LIP_PAGE, f"{_WAV2LIP_TERMS}\n{_CONSENT}",
        ),
        Source(
            "gfpgan", "gfpgan", "GFPGAN 1.4, restores faces", "GFPGANv1.4.pth", 348_632_874,
            "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
            (_GFPGAN_RELEASE + "GFPGANv1.4.pth",),
            "https://github.com/TencentARC/GFPGAN#european_castle-model-zoo", f"{_GFPGAN_TERMS}\n{_CONSENT}",
        ),
        Source(
            "gfpgan-1.3", "gfpgan", "GFPGAN 1.3, restores faces more softly", "GFPGANv1.3.pth", 348_632_874,
            "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
            (_GFPGAN_RELEASE + "GFPGANv1.3.pth",),
            "https://github.com/TencentARC/GFPGAN#european_castle-model-zoo", f"{_GFPGAN_TERMS}\n{_CONSENT}",
        ),
    )
}  # fmt: skip


def addresses(source: Source, own: Sequence[str] = (), configured: Sequence[str] = ()) -> list[str]:
    """Where to try to fetch a file, in order: mirrors asked for, configured mirrors, the authors' addresses.

    Args:
        source: the checkpoint.
        own: ``--mirror``: a folder's address, to which the file name is added, or the address of a file.
        configured: mirrors for all weights; an address of another file is passed over.

    Raises:
        ConfigInvalid: ``mirror_invalid`` for an address that cannot be used.
        NotFound: ``weights_no_address`` when there is none; says how to come by the file.
    """
    found = [_address(mirror, source.file_name) for mirror in own]
    for mirror in configured:
        address = _address(mirror, source.file_name)
        if _file_of(address) == source.file_name:
            found.append(address)
    found += source.addresses
    if not found:
        raise NotFound(
            "weights_no_address",
            f"{source.title}: its authors hand it out on a page for people. Get it with your browser from "
            f"{source.page} and add it: python -m engine weights add FILE --name {source.name}. Or name a mirror that "
            f"has {source.file_name}: --mirror https://HOST/FOLDER/",
        )
    return list(dict.fromkeys(found))


def check_address(url: str) -> None:
    """Refuses what is not https, but for http to this machine itself.

    Raises:
        ConfigInvalid: ``mirror_invalid``.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("https", "http"):
        raise ConfigInvalid("mirror_invalid", f"{url!r} is no address of a mirror; it begins with https://.")
    if parts.username is not None:
        raise ConfigInvalid("mirror_invalid", f"{shown(url)}: a mirror's address cannot hold a user name.")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ConfigInvalid("mirror_invalid", f"{shown(url)}: a mirror must be https; only this machine may be http.")


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine itself."""
    return urlsplit(url).hostname in _LOOPBACK


def shown(url: str) -> str:
    """An address without user name, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _address(mirror: str, file_name: str) -> str:
    check_address(mirror)
    if urlsplit(mirror).query or _file_of(mirror).endswith(_FILE_SUFFIXES):
        return mirror
    return f"{mirror.rstrip('/')}/{file_name}"


def _file_of(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])
