"""Which avatars there are: shipped ones first, made ones after them, each name once, and new ones without a restart."""

from __future__ import annotations

import shutil

import pytest

from engine.avatar.bundle import write_avatar
from engine.config import Config
from engine.errors import NotFound
from engine.metrics import EngineMetrics
from server.library import Library
from server.stage import Stage
from tests.fakes import tiny_avatar


@pytest.fixture
def folders(tmp_path):
    """A folder of shipped avatars with ``ada`` and ``zoe``, and one of made ones with ``bob`` and another ``zoe``."""
    for folder, names in (("shipped", ("ada", "zoe")), ("made", ("bob", "zoe"))):
        for name in names:
            write_avatar(tmp_path / folder / name, tiny_avatar(name=name))
    return tmp_path / "shipped", tmp_path / "made"


def test_shipped_avatars_come_first_and_keep_their_names(folders):
    library = Library(*folders)
    assert list(library.cards) == ["ada", "zoe", "bob"]
    assert [library.is_made(name) for name in library.cards] == [False, False, True]
    assert library.folder("zoe") == folders[0] / "zoe"
    assert library.folder("bob") == folders[1] / "bob"
    assert library.made_count == 1


def test_a_name_is_free_only_when_nothing_has_it_not_even_something_broken(folders):
    library = Library(*folders)
    (folders[1] / "broken").mkdir()
    taken = ("ada", "bob", "broken", "..", "a/b", "", "Ada", ".new-1")
    assert [name for name in (*taken, "carl") if library.is_free(name)] == ["carl"]


def test_no_name_leads_out_of_the_folders(folders):
    library = Library(*folders)
    for name in ("../shipped/ada", "..", "", "/etc", "ada/../ada"):
        with pytest.raises(NotFound):
            library.folder(name)


def test_what_was_made_can_be_dropped_and_what_was_shipped_cannot(folders):
    library = Library(*folders)
    library.drop("bob")
    library.drop("ada")
    assert list(library.cards) == ["ada", "zoe"]


def test_one_folder_for_both_makes_all_of_them_shipped(folders):
    assert not Library(folders[0], folders[0]).made_count


@pytest.mark.may_block_loop
async def test_a_session_shows_what_was_made_after_the_start_and_a_deleted_one_is_unknown(folders, tmp_path):
    data = tmp_path / "data"
    stage = await Stage.open(Config(avatars_dir=folders[0], data_dir=data, render_threads=1), EngineMetrics())
    try:
        write_avatar(data / "avatars" / "carl", tiny_avatar(name="carl"))
        stage.library.add("carl")
        session, _ = await stage.create_session("carl")
        assert session.avatar.name == "carl"
        assert (await stage.poster("carl")).jpeg
        stage.forget("carl")
        shutil.rmtree(data / "avatars" / "carl")
        with pytest.raises(NotFound):
            await stage.create_session("carl")
        with pytest.raises(NotFound):
            await stage.poster("carl")
        assert stage.default == "ada", "never one that was made here, while there are others"
    finally:
        await stage.aclose()
