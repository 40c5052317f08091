"""Files that are whole or not there.

data -> atomic_write -> path;   path (plain or .gz) -> read_lines -> numbered lines
source file, build -> derived_folder -> what is made from the file, made once
"""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from mem1.errors import DataError


def atomic_write(path: Path, data: str | bytes) -> None:
    """Write a file so that a crash leaves either the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, numbered from 1, blank ones passed over; `.gz` is unpacked.

    Raises: DataError if it's missing or can't be read to its end.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (looked at {path.absolute()})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of change (ns): what tells a file from what it was."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def derived_folder(
    source: Path,
    *,
    kind: str,
    version: str,
    build: Callable[[Path], None],
    base: Path | None = None,
) -> Path:
    """The cache folder of what is made from a file; made at the first time, whole or not at all.

    It's found again as long as the file's path, size and time of change stay as they are. What
    `build` needs of other such folders may go once this one is there.

    Args: `kind`, what is made; `version`, of the making: another one makes it anew; `build`, fills
    an empty folder; `base`, where caches are, default `$MEM1_CACHE` or `~/.cache/mem1`.
    """
    state = file_state(source)
    identity = "/".join(map(str, (version, source.resolve(), *state)))
    name = f"{source.name.split('.')[0]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    base = base or Path(os.environ.get("MEM1_CACHE") or Path.home() / ".cache" / "mem1")
    folder = base / kind / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        try:
            build(partial)
        except FileNotFoundError:
            # Another process was faster, and has cleared up.
            if folder.is_dir():
                return folder
            raise
        if file_state(source) != state:
            raise DataError(f"{source}: changed while it was read: run it again")
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            partial.rename(folder)
        except OSError:
            # Another process was faster: what it made is as good as ours.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
