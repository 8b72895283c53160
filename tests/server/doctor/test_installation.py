"""What is wrong with the installation is named, with the command that mends it."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from server.doctor import installation


def write(tmp_path, *lines):
    file = tmp_path / "requirements.txt"
    file.write_text("\n".join(lines))
    return file


def test_an_old_python_is_a_problem():
    assert installation.python((3, 10, 9)).verdict == "problem"
    assert installation.python((3, 11, 0)).verdict == "ok"


def test_the_versions_that_were_tested_are_fine(tmp_path):
    file = write(tmp_path, "# numpy==0.1", f"numpy=={version('numpy')}  # numbers", f"aiohttp=={version('aiohttp')}")
    assert installation.packages(file).verdict == "ok"


def test_another_version_is_a_warning_that_names_both(tmp_path):
    found = installation.packages(write(tmp_path, "numpy==0.0.1"))
    assert found.verdict == "warning"
    assert f"numpy {version('numpy')} instead of 0.0.1" in found.said and "pip install" in found.change


def test_a_missing_package_is_a_problem(tmp_path):
    found = installation.packages(write(tmp_path, "numpy==0.0.1", "no-such-package-of-ours==1.0"))
    assert found.verdict == "problem" and "no-such-package-of-ours" in found.said


def test_a_package_for_a_part_of_the_work_is_a_warning_that_says_for_what(tmp_path, monkeypatch):
    monkeypatch.setitem(installation.SELDOM, "no-such-package-of-ours", "singing")
    found = installation.packages(write(tmp_path, "no-such-package-of-ours==1.0"))
    assert found.verdict == "warning" and "singing" in found.said


def test_the_real_files_are_found():
    for file in (installation.REQUIRED, *installation.ALONE):
        assert (installation._REPOSITORY / file).is_file()


@pytest.mark.parametrize(("free", "verdict"), [(50 << 20, "problem"), (1 << 30, "warning"), (50 << 30, "ok")])
def test_little_room_is_told(tmp_path, monkeypatch, free, verdict):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _folder: usage)
    assert installation.disk(tmp_path / "not" / "there").verdict == verdict


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(installation.os, "access", lambda *_: False)
    found = installation.disk(tmp_path)
    assert found.verdict == "problem" and "--data-dir" in found.change
