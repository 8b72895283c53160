"""Folders of weights are complete or absent, and say what is wrong with them when they are not."""

import errno
import os
import time
from datetime import date
from pathlib import Path

import pytest

from engine.errors import DiskFull, InvalidInput, NotFound, WeightsInvalid
from engine.weights.folder import (
    atomic_folder,
    check_name,
    check_space,
    find,
    list_weights,
    read_card,
    remove,
)

CARD = f'''kind = "wav2lip"
variant = "wav2lip-96"
size = 96
colour = "bgr"
activation = "sigmoid"
window_offset = -3
parameters = 36298035
source_file = "wav2lip.pth"
source_sha256 = "{"ab" * 32}"
added = "2026-11-21"
licence = "research"
'''


def fill(folder: Path, mark: str = "new") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.toml").write_text(CARD)
    (folder / "model.safetensors").write_text(mark)


def mark(weights_dir: Path, name: str = "w") -> str:
    return (weights_dir / name / "model.safetensors").read_text()


def test_folder_takes_its_name_when_the_block_ends_well(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "weights", "w") as folder:
        fill(folder)
        assert list_weights(tmp_path / "weights") == {}
    card = read_card(tmp_path / "weights" / "w")
    assert (card.name, card.size, card.window_offset, card.added) == ("w", 96, -3, date(2026, 11, 21))
    assert os.listdir(tmp_path / "weights") == ["w"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_stays_when_the_block_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), atomic_folder(tmp_path, "w") as folder:
        fill(folder)
        raise failure
    assert os.listdir(tmp_path) == []


def test_taken_name_is_refused_and_the_old_folder_untouched(tmp_path: Path) -> None:
    fill(tmp_path / "w", "old")
    with pytest.raises(InvalidInput, match="--force"), atomic_folder(tmp_path, "w"):
        pass
    assert mark(tmp_path) == "old"


def test_replaced_folder_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    fill(tmp_path / "w", "old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path, "w", force=True) as folder:
        fill(folder)
        raise RuntimeError
    assert mark(tmp_path) == "old"
    with atomic_folder(tmp_path, "w", force=True) as folder:
        fill(folder)
        assert mark(tmp_path) == "old"
    assert mark(tmp_path) == "new"
    assert os.listdir(tmp_path) == ["w"]


def test_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput), atomic_folder(tmp_path, "w") as folder:
        fill(folder)
        fill(tmp_path / "w", "theirs")
    assert mark(tmp_path) == "theirs"


def test_old_folder_comes_back_when_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "w", "old")
    usual = Path.rename

    def rename(self: Path, goal: Path) -> Path:
        if self.name == "w" and self.parent != tmp_path:
            raise OSError(errno.EACCES, "no")
        return usual(self, goal)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(InvalidInput, match="Cannot write"), atomic_folder(tmp_path, "w", force=True) as folder:
        fill(folder)
    assert mark(tmp_path) == "old"


def test_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(DiskFull), atomic_folder(tmp_path, "w"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_program_left_is_put_right(tmp_path: Path) -> None:
    fill(tmp_path / ".new-my-w-0badcafe" / "old", "old")
    fill(tmp_path / ".new-my-w-0badcafe" / "my-w", "new")
    fill(tmp_path / ".new-busy-0badcafe" / "busy", "still being written")
    fill(tmp_path / ".removed-gone-0badcafe")
    long_ago = time.time() - 7200
    for folder in (".new-my-w-0badcafe", ".removed-gone-0badcafe"):
        for path in [tmp_path / folder, *(tmp_path / folder).rglob("*")]:
            os.utime(path, (long_ago, long_ago))
    with atomic_folder(tmp_path, "other") as folder:
        fill(folder)
    assert sorted(os.listdir(tmp_path)) == [".new-busy-0badcafe", "my-w", "other"]
    assert mark(tmp_path, "my-w") == "old"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "A", "ä", "-x", "a b", "x" * 65, "builtin", "auto"])
def test_unusable_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)
    with pytest.raises(InvalidInput):
        find(tmp_path, name)


def test_missing_weights_are_an_error_that_names_those_that_are_there(tmp_path: Path) -> None:
    fill(tmp_path / "mine")
    with pytest.raises(NotFound, match="mine"):
        find(tmp_path, "yours")
    with pytest.raises(NotFound, match="none yet"):
        find(tmp_path / "nowhere", "yours")


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ('kind = "wav2lip"', 'kind = "other"'),
        ("size = 96", 'size = "96"'),
        ("size = 96", "size = true"),
        ("size = 96", ""),
        ("size = 96", "size = -1"),
        ('colour = "bgr"', 'colour = "cmyk"'),
        ("window_offset = -3", "window_offset = 1000"),
        ("window_offset = -3", "window_offset = nan"),
        ('activation = "sigmoid"', "activation = 1"),
        (f'source_sha256 = "{"ab" * 32}"', 'source_sha256 = "ab"'),
        ('added = "2026-11-21"', 'added = "yesterday"'),
        ('variant = "wav2lip-96"', "variant = "),
    ],
)
def test_bad_card_is_a_typed_error_that_names_the_line(tmp_path: Path, line: str, bad: str) -> None:
    fill(tmp_path / "w")
    (tmp_path / "w" / "weights.toml").write_text(CARD.replace(line, bad))
    with pytest.raises(WeightsInvalid) as failure:
        read_card(tmp_path / "w")
    assert failure.value.code == "weights_card_invalid"
    assert (line.split()[0] in failure.value.message or "TOML" in failure.value.message) and "--force" in str(
        failure.value
    )
    assert isinstance(list_weights(tmp_path)["w"], WeightsInvalid)


def test_card_without_parameters_is_incomplete(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    (tmp_path / "w" / "model.safetensors").unlink()
    with pytest.raises(WeightsInvalid, match="missing"):
        read_card(tmp_path / "w")


def test_card_that_is_no_text_is_a_typed_error(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    (tmp_path / "w" / "weights.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsInvalid):
        read_card(tmp_path / "w")


def test_removed_weights_are_gone(tmp_path: Path) -> None:
    fill(tmp_path / "w")
    assert remove(tmp_path, "w") == len(CARD) + len("new")
    assert os.listdir(tmp_path) == []
    with pytest.raises(NotFound):
        remove(tmp_path, "w")


def test_room_is_checked_where_the_folder_will_lie(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(DiskFull, match="MB free"):
        check_space(tmp_path / "not" / "yet" / "there", 1 << 60)


def test_voices_are_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "singer").mkdir()
    (tmp_path / "singer" / "weights.toml").write_text('kind = "so-vits"\n', "utf-8")
    assert list_weights(tmp_path) == {}
