"""What array files from elsewhere may not hold: objects that run code when they are read, and paths to other files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_METADATA = (".zarray", ".zmetadata", "zarr.json")
_MOST_BYTES = 1 << 28  # of metadata
_PLACES = (
    "codecs",
    "index_codecs",
    "filters",
    "compressor",
    "compressors",
    "serializer",
    "storage_transformers",
)
# Codecs that turn numbers and text into bytes and back, and do nothing else.
_COMPRESSORS = frozenset({"gzip", "zlib", "zstd", "blosc", "lz4", "bz2", "lzma"})
_CHECKSUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
_NUMBERS = frozenset(
    {"bytes", "shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype"}
)
_SHAPES = frozenset({"endian", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes"})
_CODECS = _COMPRESSORS | _CHECKSUMS | _NUMBERS | _SHAPES


class ForeignError(Exception):
    """A file holds what only a trusted file may hold; says what and where."""


def check_zarr(folder: Path) -> None:
    """That a zarr group's arrays are coded by plain codecs: a pickle among them would run code when it is read.

    Raises:
        ForeignError: another codec, or metadata that are no JSON.
    """
    for file in sorted(path for name in _METADATA for path in folder.rglob(name)):
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise ForeignError(f"{file} has {file.stat().st_size} bytes, too many for metadata.")
            found = list(_codecs(json.loads(file.read_bytes().decode())))
        except (OSError, ValueError, RecursionError) as error:
            raise ForeignError(f"{file} is no metadata of a zarr array: {error}") from error
        for name in found:
            if str(name).removeprefix("numcodecs.") not in _CODECS:
                raise ForeignError(
                    f"{file} says that an array is coded by {str(name)[:60]!r}, which may run code when it is read: "
                    "write it anew with a plain codec, such as zstd."
                )


def _codecs(metadata: Any) -> Iterator[Any]:
    """Names of all codecs in a metadata file of version 2 or 3, of other arrays too where it is consolidated."""
    if not isinstance(metadata, dict):
        return
    yield from _named({key: value for key, value in metadata.items() if key != "attributes"})
    inner = metadata.get("consolidated_metadata")  # of version 3; version 2 has it in a file of its own
    parts = (inner if isinstance(inner, dict) else metadata).get("metadata")
    for part in parts.values() if isinstance(parts, dict) else ():
        yield from _codecs(part)


def _named(value: Any) -> Iterator[Any]:
    """Names of codecs, those within other codecs included."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key in _PLACES:
            for codec in inner if isinstance(inner, list) else [inner]:
                if isinstance(codec, dict):
                    yield codec.get("id", codec.get("name"))
                    yield from _named(codec.get("configuration"))
                elif codec is not None:
                    yield codec


def check_hdf5(file: Path) -> None:
    """That the numbers of an HDF5 (netCDF-4) file are in the file itself.

    Raises:
        ForeignError: they are in another file, by an external link, external storage or a virtual dataset.
        OSError: it is no HDF5 file.
    """
    import h5py

    with h5py.File(file, "r") as opened:
        waiting, seen = [opened["/"]], set()
        while waiting:
            group = waiting.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:
                continue
            seen.add(address)
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                    raise _elsewhere(file, group, name)
                item = group.get(name)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                    raise _elsewhere(file, group, name)


def _elsewhere(file: Path, group: Any, name: str) -> ForeignError:
    return ForeignError(
        f"{file} takes {group.name.rstrip('/')}/{name} from another file: write all of it into one file."
    )
