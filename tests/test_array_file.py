"""Files of arrays: whole, one thread at a time, and nothing that runs code."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.array_file import open_arrays


def test_arrays_come_as_they_were_written(tmp_path):
    np.savez(tmp_path / "some.npz", one=np.arange(6).reshape(2, 3), two=np.float32(1.5))
    with open_arrays(tmp_path / "some.npz") as arrays:
        assert arrays["one"].tolist() == [[0, 1, 2], [3, 4, 5]] and float(arrays["two"]) == 1.5


def test_a_second_thread_waits_until_the_first_has_read(tmp_path):
    np.savez(tmp_path / "some.npz", one=np.arange(3))
    read = threading.Event()

    def reading() -> None:
        with open_arrays(tmp_path / "some.npz") as arrays:
            assert len(arrays["one"]) == 3
        read.set()

    second = threading.Thread(target=reading, daemon=True)
    with open_arrays(tmp_path / "some.npz") as arrays:
        second.start()
        assert not read.wait(0.2)
        assert len(arrays["one"]) == 3
    assert read.wait(20)
    second.join()


def test_a_damaged_file_keeps_nobody_else_waiting(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "good.npz", one=np.arange(3))
    with pytest.raises((OSError, ValueError)), open_arrays(tmp_path / "bad.npz"):
        pass
    with open_arrays(tmp_path / "good.npz") as arrays:
        assert len(arrays["one"]) == 3


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", one=np.array([object()], dtype=object))
    with open_arrays(tmp_path / "objects.npz") as arrays, pytest.raises(ValueError, match="pickle"):
        arrays["one"]
