import gc
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engine.avatar import pictures as pictures_module
from engine.avatar.bundle import load_avatar
from engine.avatar.pictures import RESIDENT, PictureFiles, Resident, beside, memory_bytes
from engine.errors import AvatarInvalid
from tests.fakes import TINY_FRAMES, TINY_SIDE

SIZE = (TINY_SIDE, TINY_SIDE)


@pytest.fixture
def video(avatars_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(avatars_dir / "tiny", tmp_path / "tiny")) / "idle.mp4"


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(tmp_path / "kept")


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept").glob("*.bgr"))


def resident_pages(address: int) -> int:
    """Kilobytes of the mapping at an address that this process holds."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            start, end = (int(part, 16) for part in line.split(" ")[0].split("-"))
            found = start <= address < end
        elif found and line.startswith("Rss:"):
            return int(line.split()[1])
    raise AssertionError("no such mapping")


def test_mapped_pictures_are_bit_for_bit_those_decoded_into_memory(video, files):
    plain, mapped = load_avatar(video.parent), load_avatar(video.parent, files)
    assert np.array_equal(plain.frames, mapped.frames) and mapped.frames.shape == plain.frames.shape
    assert all(np.array_equal(mapped.picture(i), plain.picture(i)) for i in range(mapped.picture_count))
    assert len(list(mapped.frames)) == TINY_FRAMES and np.array_equal(mapped.frames[-1], plain.frames[-1])
    assert mapped.memory_bytes == 0 and plain.memory_bytes == plain.frames.nbytes


def test_mapped_pictures_are_read_only(video, files):
    with pytest.raises(ValueError):
        files.open(video, SIZE, TINY_FRAMES)[0][0, 0, 0] = 0


def test_a_second_start_does_not_decode(video, files, tmp_path, monkeypatch):
    first = files.open(video, SIZE, TINY_FRAMES)
    monkeypatch.setattr(pictures_module, "read_loop", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(PictureFiles(tmp_path / "kept").open(video, SIZE, TINY_FRAMES), first)
    assert [path.stat().st_mode & 0o077 for path in kept(tmp_path)] == [0], "nobody else may look at them"


def test_a_changed_video_is_another_file(video, files, tmp_path):
    files.open(video, SIZE, TINY_FRAMES)
    video.write_bytes(video.read_bytes() + b"\0\0\0\x08free")
    files.open(video, SIZE, TINY_FRAMES)
    assert len(kept(tmp_path)) == 2


def test_a_truncated_file_is_made_again(video, files, tmp_path):
    whole = np.array(files.open(video, SIZE, TINY_FRAMES))
    os.truncate(kept(tmp_path)[0], 5000)
    assert np.array_equal(files.open(video, SIZE, TINY_FRAMES), whole)


def test_a_video_that_does_not_fit_leaves_nothing(video, files, tmp_path):
    for size, count, code in ((SIZE, TINY_FRAMES + 1, "avatar_length"), ((64, 64), TINY_FRAMES, "avatar_size")):
        with pytest.raises(AvatarInvalid) as caught:
            files.open(video, size, count)
        assert caught.value.code == code
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [".lock"]


def test_two_that_start_together_decode_once(video, files, monkeypatch):
    decoded, read = [], pictures_module.read_loop
    monkeypatch.setattr(pictures_module, "read_loop", lambda *args: decoded.append(args) or read(*args))
    threads = [threading.Thread(target=files.open, args=(video, SIZE, TINY_FRAMES)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 1


def test_without_room_pictures_are_in_memory_and_the_log_says_why(video, tmp_path, caplog):
    pictures = PictureFiles(tmp_path / "kept", limit_bytes=1000).open(video, SIZE, TINY_FRAMES)
    assert memory_bytes(pictures) == pictures.nbytes and not pictures.flags.writeable
    assert "stay in memory" in caplog.text and not kept(tmp_path)


def test_what_was_unused_for_longest_makes_room(video, tmp_path):
    one = 7 * pictures_module.mmap.PAGESIZE * TINY_FRAMES
    files = PictureFiles(tmp_path / "kept", limit_bytes=2 * one + 1000)
    for age_s in (300, 200, 100):
        video.write_bytes(video.read_bytes() + b"\0\0\0\x08free")
        shown = files.open(video, SIZE, TINY_FRAMES)
        newest = max(kept(tmp_path), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (time.time() - age_s, time.time() - age_s))
        if age_s == 300:
            oldest, first = newest, shown
    assert len(kept(tmp_path)) == 2 and oldest not in kept(tmp_path)
    assert first.sum() == shown.sum(), "whoever shows it goes on"


def test_pages_of_pictures_shown_long_ago_are_given_back(video, files, monkeypatch):
    monkeypatch.setattr(RESIDENT, "limit_bytes", 4 * 28_672)
    pictures = files.open(video, SIZE, TINY_FRAMES)
    total = [pictures[index].sum() for index in range(TINY_FRAMES)]
    assert RESIDENT.bytes <= 4 * 28_672
    held = resident_pages(pictures.__array_interface__["data"][0])
    # The system maps the pages around one that is asked for, too: up to sixteen.
    assert held <= 4 * 28 + 64 < TINY_FRAMES * 28
    assert [pictures[index].sum() for index in range(TINY_FRAMES)] == total
    before = RESIDENT.bytes
    del pictures
    gc.collect()
    assert RESIDENT.bytes < before


def test_a_picture_that_is_shown_again_counts_once_and_stays():
    class Mapping:
        def __init__(self):
            self.serial, self.stride, self.given_back = 1, 10, []
            self.reference = lambda: self

        def give_back(self, index):
            self.given_back.append(index)

    mapping, resident = Mapping(), Resident(30)
    for index in (0, 1, 2, 0, 3, 0, 4):
        resident.touch(mapping, index)
    assert mapping.given_back == [1, 2] and resident.bytes == 30


def test_crops_are_kept_as_their_pictures_are(video, files, tmp_path):
    crops = np.arange(6 * 8 * 8 * 3, dtype=np.uint8).reshape(6, 8, 8, 3)
    mapped = beside(files.open(video, SIZE, TINY_FRAMES), crops)
    assert np.array_equal(mapped, crops) and memory_bytes(mapped) == 0 and np.array_equal(mapped[4], crops[4])
    assert beside(np.zeros((6, 8, 8, 3), np.uint8), crops) is crops
    assert len(list((tmp_path / "kept").iterdir())) == 2, "a nameless file: nothing to clean up"
