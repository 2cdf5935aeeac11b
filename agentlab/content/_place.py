"""The right of one process alone to write a journal's file, with room for when a disk is full."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import filelock

from agentlab.errors import ConfigError

SPARE_BYTES = 1 << 20


class Claim:
    """The right to write a journal's file, until it is released; the system ends it with a process.

    Attributes:
        file: The one file that `where` names, links followed.

    Raises:
        ConfigError: If another process has it, or it is no whole journal; then it stays as it is.
        OSError, ValueError: If there can be no such file.
    """

    def __init__(self, where: str | Path):
        self.file = Path(os.path.realpath(where))
        self._spare = Path(f"{self.file}.spare")
        self._lock = filelock.FileLock(f"{self.file}.lock", timeout=0)
        if self.file.exists() and not self.file.is_file():
            raise ConfigError(f"journal {where} is no file; give a file's path")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise ConfigError(
                f"another process writes {where}; wait until it has ended, or choose another folder"
            ) from None
        try:
            _refuse_damage(self.file)
            self.give_room()  # what a process that was killed has kept; a link is not followed
            with self._spare.open("xb") as spare:
                spare.write(b"\1" * SPARE_BYTES)  # real bytes, because a hole keeps no room
        except BaseException:
            self.release()
            raise

    def give_room(self) -> None:
        """Let what is in flight have the spare room."""
        self._spare.unlink(missing_ok=True)

    def release(self) -> None:
        """Let another process have the file."""
        self.give_room()
        self._lock.release()


def how_to_save(file: Path) -> str:
    """Say how the answers in a damaged journal are saved."""
    old, new = shlex.quote(str(file)), shlex.quote(f"{file}.saved")
    return (
        f"save the answers that were paid for with: sqlite3 {old} .recover | sqlite3 {new}, and go "
        f"on with --journal {new}"
    )


def _refuse_damage(file: Path) -> None:
    """Read all of it before anything is written, so that it can still be saved."""
    if not file.exists() or file.stat().st_size == 0:
        return
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        why = " ".join(found.split())
        raise ConfigError(f"journal {file} is damaged: {why}; {how_to_save(file)}")
