"""Images as files named by their content."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from battery_sorting.core.errors import LedgerError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free space or set images.path to another disk",
    errno.EDQUOT: "the disk quota is used up; free space or set images.path to another disk",
    errno.EFBIG: "the file size limit is reached; raise it (ulimit -f) or set images.path to another disk",
    errno.EROFS: "the file system is read-only; set images.path to a writable folder",
    errno.EACCES: "permission denied; make the folder writable or set images.path to another one",
}


class ImageStore:
    """Folder of images, content addressed: ``ab/abcdef….jpg`` where ``abcdef…`` is the SHA-256 of the file.

    Args:
        folder: Is created when missing.
        fsync: Force each new file to the disk before it gets its name. Slower, but survives a power cut.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self.folder = Path(folder)
        self._fsync = fsync

    def put(self, data: bytes, suffix: str = ".jpg") -> str:
        """File the bytes and return their SHA-256 in hex. Content that is there already is not written again.

        Raises:
            LedgerError: The file can't be written; no part of it is left behind.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256, suffix)
        if target.exists():
            return sha256
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(target, data)
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "check the disk and the setting images.path")
            raise LedgerError(f"{target}: can't write the image ({error.strerror}): {remedy}") from error
        return sha256

    def path(self, sha256: str, suffix: str = ".jpg") -> Path:
        """Where the image of this SHA-256 is or would be."""
        return self.folder / sha256[:2] / f"{sha256}{suffix}"

    def _write(self, target: Path, data: bytes) -> None:
        """Write beside the target and rename, so that a name never stands for half an image."""
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
