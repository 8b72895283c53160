"""A download arrives whole and right, is continued where that is safe, and fails with a typed error otherwise."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import Busy, ConfigInvalid, DiskFull, DownloadFailed
from engine.weights import download as module
from engine.weights.download import download
from engine.weights.folder import exclusive
from tests.weights.mirror import Behaviour, Mirror

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as running:
        running.files["w.pth"] = Behaviour(CONTENT)
        yield running


def fetch(tmp_path: Path, *addresses: str, **options):
    options = {"pause": lambda seconds: None, **options}
    return download(list(addresses), tmp_path / "w.pth", **options)


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock"))


def test_whole_file_arrives_with_its_digest_and_progress(mirror: Mirror, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = fetch(tmp_path, mirror.url + "w.pth", progress=lambda *now: seen.append(now))
    assert result.path.read_bytes() == CONTENT
    assert result.sha256 == SHA256
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert left(tmp_path) == ["w.pth"]


def test_broken_transfer_is_continued_where_it_broke(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [100_000, 50_000]
    pauses: list[float] = []
    fetch(tmp_path, mirror.url + "w.pth", pause=pauses.append)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert [asked for _, asked in mirror.requests] == ["", "bytes=100000-", "bytes=150000-"]
    # Every attempt brought something, so none waits longer than the one before.
    assert pauses == [1.0, 1.0]


def test_later_run_continues_what_an_earlier_one_left(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed) as failure:
        fetch(tmp_path, mirror.url + "w.pth")
    assert "kept; the same command continues" in failure.value.message
    mirror.requests.clear()
    assert fetch(tmp_path, mirror.url + "w.pth").sha256 == SHA256
    assert mirror.requests == [("/w.pth", "bytes=200000-")]


def test_file_that_changed_meanwhile_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch(tmp_path, mirror.url + "w.pth")
    other = os.urandom(250_000)
    mirror.files["w.pth"] = Behaviour(other, etag='"v2"')
    assert fetch(tmp_path, mirror.url + "w.pth").path.read_bytes() == other


def test_server_without_ranges_restarts_cleanly(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000]
    mirror.files["w.pth"].ranges = False
    assert fetch(tmp_path, mirror.url + "w.pth").path.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_validator_or_digest_nothing_is_continued(mirror: Mirror, tmp_path: Path, etag: str) -> None:
    mirror.files["w.pth"].breaks_at = [200_000]
    mirror.files["w.pth"].etag = etag
    assert fetch(tmp_path, mirror.url + "w.pth").path.read_bytes() == CONTENT
    assert [asked for _, asked in mirror.requests] == ["", ""]


def test_known_digest_lets_another_mirror_continue(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["a/w.pth"] = Behaviour(CONTENT, breaks_at=[200_000, 0, 0, 0])
    fetch(tmp_path, mirror.url + "a/w.pth", mirror.url + "w.pth", sha256=SHA256)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert mirror.requests[-1] == ("/w.pth", "bytes=200000-")


def test_two_files_that_do_not_fit_together_are_noticed_and_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["a/w.pth"] = Behaviour(os.urandom(len(CONTENT)), breaks_at=[200_000, 0, 0, 0])
    result = fetch(tmp_path, mirror.url + "a/w.pth", mirror.url + "w.pth", sha256=SHA256)
    assert result.path.read_bytes() == CONTENT
    assert mirror.requests[-2:] == [("/w.pth", "bytes=200000-"), ("/w.pth", "")]


def test_complete_part_only_needs_its_name(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch(tmp_path, mirror.url + "w.pth")
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    assert fetch(tmp_path, mirror.url + "w.pth", sha256=SHA256).sha256 == SHA256
    assert left(tmp_path) == ["w.pth"]


def test_part_longer_than_the_file_is_dropped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch(tmp_path, mirror.url + "w.pth")
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"more")
    assert fetch(tmp_path, mirror.url + "w.pth").path.read_bytes() == CONTENT


@pytest.mark.parametrize("note", ["", "{", "[]", '{"address": 1}', '{"address": "", "validator": "", "total": "x"}'])
def test_part_with_an_unreadable_note_is_not_trusted(mirror: Mirror, tmp_path: Path, note: str) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"who knows")
    (tmp_path / "w.pth.part.json").write_text(note)
    assert fetch(tmp_path, mirror.url + "w.pth", sha256=SHA256).path.read_bytes() == CONTENT


def test_wrong_digest_is_refused_and_nothing_stays(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as failure:
        fetch(tmp_path, mirror.url + "w.pth", sha256="0" * 64)
    assert failure.value.code == "download_mismatch"
    assert SHA256 in failure.value.message and "--sha256" in failure.value.message
    assert left(tmp_path) == []


def test_wrong_file_that_always_breaks_comes_to_an_end(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].breaks_at = [200_000, 300_000] * 20
    with pytest.raises(DownloadFailed, match="SHA-256"):
        fetch(tmp_path, mirror.url + "w.pth", sha256="0" * 64)
    assert len(mirror.requests) <= 4


@pytest.mark.parametrize(
    "bad",
    [
        Behaviour(status=404),
        Behaviour(status=403, content=b"no"),
        Behaviour(b"<!DOCTYPE html><title>Sign in</title>", headers={"Content-Type": "text/html; charset=utf-8"}),
        Behaviour(b"\n <html>quota exceeded</html>"),
        Behaviour(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        Behaviour(b""),
        Behaviour(CONTENT, headers={"Content-Encoding": "gzip"}),
        Behaviour(b"short", headers={"Content-Length": str(1 << 40)}),
        Behaviour(status=302, headers={"Location": "/bad.pth"}),
        Behaviour(status=302, headers={"Location": "http://192.0.2.1/w.pth"}),
        Behaviour(status=302, headers={"Location": "file:///etc/passwd"}),
        Behaviour(status=302, headers={"Location": "ftp://127.0.0.1/w.pth"}),
    ],
    ids=["404", "403", "html", "html-in-disguise", "lfs", "empty", "gzip", "huge", "loop", "http", "file", "ftp"],
)
def test_mirror_without_the_file_gives_way_to_the_next(mirror: Mirror, tmp_path: Path, bad: Behaviour) -> None:
    mirror.files["bad.pth"] = bad
    said: list[str] = []
    result = fetch(tmp_path, mirror.url + "bad.pth", mirror.url + "w.pth", say=said.append)
    assert result.path.read_bytes() == CONTENT
    assert result.address.endswith("/w.pth")
    assert len(said) == 1 and said[0].endswith("trying the next mirror.")
    assert left(tmp_path) == ["w.pth"]


def test_mirror_that_is_down_gives_way_to_the_next(mirror: Mirror, tmp_path: Path) -> None:
    with Mirror() as gone:
        pass
    assert fetch(tmp_path, gone.url + "w.pth", mirror.url + "w.pth").path.read_bytes() == CONTENT


def test_all_mirrors_are_named_when_none_has_it(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as failure:
        fetch(tmp_path, mirror.url + "a.pth?token=secret", mirror.url + "b.pth")
    assert failure.value.code == "download_failed"
    assert "a.pth: HTTP 404" in failure.value.message and "b.pth: HTTP 404" in failure.value.message
    assert "secret" not in failure.value.message


def test_overloaded_mirror_is_asked_again_when_it_wishes(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"] = Behaviour(status=503, headers={"Retry-After": "7"})
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        mirror.files["w.pth"] = Behaviour(CONTENT)

    assert fetch(tmp_path, mirror.url + "w.pth", pause=pause).sha256 == SHA256
    assert pauses == [7.0]


def test_pauses_grow_and_attempts_end(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"] = Behaviour(status=500)
    pauses: list[float] = []
    with pytest.raises(DownloadFailed, match="HTTP 500"):
        fetch(tmp_path, mirror.url + "w.pth", pause=pauses.append)
    assert pauses == [1.0, 2.0, 4.0]


def test_redirect_within_the_rules_is_followed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["old.pth"] = Behaviour(status=302, headers={"Location": "/w.pth"})
    assert fetch(tmp_path, mirror.url + "old.pth").path.read_bytes() == CONTENT


def test_length_that_was_not_announced_is_taken_as_it_comes(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].announce = False
    assert fetch(tmp_path, mirror.url + "w.pth", sha256=SHA256).sha256 == SHA256


def test_silent_mirror_runs_into_the_time_limit(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].pause_s = 5.0
    began = time.monotonic()
    with pytest.raises(DownloadFailed, match="no answer in time"):
        fetch(tmp_path, mirror.url + "w.pth", timeout_s=0.1)
    assert time.monotonic() - began < 4


def test_trickle_is_taken_for_dead(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STALL_S", 0.05)
    mirror.files["w.pth"].pause_s = 0.02
    with pytest.raises(DownloadFailed, match="all but stopped"):
        fetch(tmp_path, mirror.url + "w.pth")


class FullDisk(io.FileIO):
    """A file whose disk has room for a few bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_full_disk_is_a_typed_error_and_is_not_filled(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path.open

    def open_path(self: Path, mode: str = "r", *args, **kwargs):
        return FullDisk(self, "w") if mode == "wb" else usual(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_path)
    with pytest.raises(DiskFull) as failure:
        fetch(tmp_path, mirror.url + "w.pth")
    assert failure.value.code == "disk_full"
    assert left(tmp_path) == []


def test_too_little_room_is_noticed_before_the_first_byte(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"] = Behaviour(b"x", headers={"Content-Length": str((4 << 30) - 1)})
    usage = module.check_space.__globals__["shutil"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 30})())
        with pytest.raises(DiskFull, match="MB free"):
            fetch(tmp_path, mirror.url + "w.pth")
    assert left(tmp_path) == []


def test_two_processes_do_not_write_one_file(mirror: Mirror, tmp_path: Path) -> None:
    with exclusive(tmp_path / "w.pth"), pytest.raises(Busy):
        fetch(tmp_path, mirror.url + "w.pth")


@pytest.mark.parametrize(
    "address",
    ["http://example.org/w.pth", "ftp://example.org/w.pth", "example.org", "file:///w.pth", "https://a:b@example.org/",
     "https://", "http://[::1", "https://host:port/"],
)  # fmt: skip
def test_unsafe_and_malformed_addresses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigInvalid):
        fetch(tmp_path, address)


def test_note_beside_the_part_holds_no_secret_of_the_address(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth?token=secret"] = Behaviour(CONTENT, breaks_at=[200_000, 0, 0, 0])
    with pytest.raises(DownloadFailed):
        fetch(tmp_path, mirror.url + "w.pth?token=secret")
    note = (tmp_path / "w.pth.part.json").read_text()
    assert json.loads(note)["total"] == len(CONTENT) and "secret" not in note


def test_ctrl_c_keeps_what_arrived(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["w.pth"].pause_s = 0.005
    code = (
        "import signal, sys, pathlib\n"
        "from engine.weights.download import download\n"
        # Whoever is started in the background is deaf to it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "download([sys.argv[1]], pathlib.Path(sys.argv[2]), progress=lambda done, total: print(done, flush=True))\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, mirror.url + "w.pth", str(tmp_path / "w.pth")],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while int(process.stdout.readline()) < 20_000:
        pass
    process.send_signal(2)
    process.communicate(timeout=20)
    assert process.returncode != 0
    size = (tmp_path / "w.pth.part").stat().st_size
    assert 20_000 <= size < len(CONTENT)
    mirror.files["w.pth"].pause_s = 0
    assert fetch(tmp_path, mirror.url + "w.pth").sha256 == SHA256
    assert mirror.requests[-1] == ("/w.pth", f"bytes={size}-")
