"""A disk that goes away and comes back, as Google Drive does in Colab."""

import builtins
import ctypes
import errno
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

MOUNTS = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
CALLS = ["open", "stat", "lstat", "mkdir", "listdir", "scandir", "truncate"]
CALLS += ["rename", "replace", "unlink", "rmdir"]
WRITING = {"mkdir", "rename", "replace", "unlink", "rmdir", "truncate"}


class Mounted:
    """Goes away for real: the program behind a FUSE mount over it has ended."""

    def __init__(self, root: Path, _):
        self.root, self._away = root, False
        root.mkdir()

    def lose(self) -> None:
        try:
            handle = os.open("/dev/fuse", os.O_RDWR)
        except OSError:
            pytest.skip("no FUSE here")
        options = f"fd={handle},rootmode=40000,user_id=0,group_id=0".encode()
        failed = MOUNTS.mount(b"drive", os.fsencode(self.root), b"fuse", 0, options)
        os.close(handle)
        if failed:
            pytest.skip("no right to mount a file system here")
        self._away = True

    def back(self) -> None:
        if self._away:
            MOUNTS.umount2(os.fsencode(self.root), 2)
            self._away = False


class Patched:
    """Every call on a path below it fails with an error of choice, as often as is asked for."""

    def __init__(self, root: Path, monkeypatch):
        self.root, self.number, self.times, self.writing = root, None, 0, False
        root.mkdir()
        for module, name in [(io, "open"), (builtins, "open"), *((os, name) for name in CALLS)]:
            monkeypatch.setattr(module, name, self._faulty(getattr(module, name), name))

    def _faulty(self, call, name):
        def called(*arguments, **options):
            places = [os.fspath(one) for one in arguments[:2] if isinstance(one, str | Path)]
            mode = str(arguments[1] if len(arguments) > 1 else options.get("mode", "r"))
            writes = name in WRITING or (name == "open" and set(mode) & set("wa+x"))
            there = any(os.path.abspath(one).startswith(f"{self.root}") for one in places)  # noqa: PTH100
            if self.times and there and (writes or not self.writing):
                self.times -= 1
                raise OSError(self.number, os.strerror(self.number), places[0])
            return call(*arguments, **options)

        return called

    def lose(self, number: int = errno.ENOTCONN, times: float = float("inf"), writing: bool = False) -> None:
        """writing: reading goes on"""
        self.number, self.times, self.writing = number, times, writing

    def back(self) -> None:
        self.times = 0


def small(folder: Path, size: str):
    """A file system of so many bytes, mounted at `folder` until the generator goes on."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
