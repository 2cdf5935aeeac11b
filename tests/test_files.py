"""A file is written whole, or not at all."""

from __future__ import annotations

import os
import threading

import pytest

from agentlab._support.system import write_whole


def test_it_replaces_what_was_there(tmp_path):
    """The new content, and nothing beside it."""
    file = tmp_path / "a.txt"
    write_whole(file, b"old")
    write_whole(file, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"new")]


def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch):
    """And no half of a file."""
    file = tmp_path / "a.txt"
    write_whole(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(file, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_who_reads_an_open_file_reads_the_old_content(tmp_path):
    """The new content takes the old one's place; it is not written over it."""
    file = tmp_path / "a.txt"
    write_whole(file, b"old")
    with file.open("rb") as reader:
        write_whole(file, b"new")
        assert reader.read() == b"old"


def test_two_may_write_one_file_at_the_same_time(tmp_path, monkeypatch):
    """Each file is whole: the one who is the last to end has the word."""
    file, fsync = tmp_path / "a.txt", os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        rival = threading.Thread(target=write_whole, args=(file, b"a rival's"))
        rival.start()
        rival.join()
        assert file.read_bytes() == b"a rival's"

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(file, b"mine")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.txt", b"mine")]
