"""Google Drive as Colab mounts it."""

import os
from pathlib import Path


class MessageError(Exception):
    """What Colab's page answers where the user refuses."""


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    place = Path(mountpoint)
    if (place / "My Drive").is_dir() and not force_remount:
        print(
            f"Drive already mounted at {place}; to attempt to forcibly remount, "
            f'call drive.mount("{place}", force_remount=True).'
        )
        return
    if place.is_dir() and any(place.iterdir()):
        raise ValueError("Mountpoint must not already contain files")
    if not place.parent.exists():
        raise ValueError("Mountpoint must be in a directory that exists")
    if not os.environ.get("COLAB_DRIVE"):
        raise MessageError("Error: credential propagation was unsuccessful")
    place.mkdir(exist_ok=True)
    for name in ("MyDrive", "My Drive"):
        (place / name).symlink_to(os.environ["COLAB_DRIVE"])
    print(f"Mounted at {place}")
