"""A file is written whole, or not at all."""

from __future__ import annotations

import os

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
