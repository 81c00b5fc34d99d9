"""SHA-256 of files, folders and records: what was saved, so that a later change is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """The digest of every file in a folder and in those below it, by its path from there."""
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record as JSON, whatever the order of its entries."""
    return text_digest(json.dumps(record, sort_keys=True))


def bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size


def digest_of(path: Path) -> str:
    """The digest of a file, or of a folder: of its files' paths and digests."""
    return record_digest(folder_digests(path)) if path.is_dir() else file_digest(path)
