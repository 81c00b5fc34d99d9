"""Edits of the folder of a saved fit, made one by one from what it holds, and the digests put right again."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Edit = Callable[[Path], None]
HEADER, CORE = "fit.json", ("program.stan", "data.json", "arrays.npz")


def edits(folder: Path) -> Iterator[tuple[str, Edit]]:
    """Names and edits of a folder like this one."""
    yield from header_edits(json.loads((folder / HEADER).read_text()))
    yield from array_edits(dict(np.load(folder / "arrays.npz")))
    for name in (HEADER, *CORE):
        yield from file_edits(name)
    yield from data_edits(json.loads((folder / "data.json").read_text()))
    yield "program: another prior", _replaced("program.stan", "normal(0, 5)", "normal(0, 50)")
    yield "program: an include", _replaced("program.stan", "data {", '#include "/etc/hostname"\ndata {')
    yield "program: no program", _replaced("program.stan", "parameters {", "parametres {")


def sealed(folder: Path) -> None:
    """Write the digests that the files now have, as someone would who edits on purpose."""
    file = folder / HEADER
    try:
        header = json.loads(file.read_text())
        files = header.get("files", {})
    except (OSError, ValueError, AttributeError):
        return
    for name in CORE:
        path = folder / name
        if isinstance(files, dict) and isinstance(files.get(name), dict) and path.is_file():
            content = path.read_bytes()
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if "program_digest" in header and (folder / "program.stan").is_file():
        header["program_digest"] = hashlib.sha256((folder / "program.stan").read_bytes()).hexdigest()[:16]
    header.pop("digest", None)
    text = json.dumps(header)[1:]
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(f'{{\n  "digest": "{digest}",{text}')


# --- fit.json -----------------------------------------------------------------------------------------------

_WRONG = {
    "huge": 10**9,
    "negative": -1,
    "text": "../../x",
    "nan": float("nan"),
    "empty": [],
    "none": None,
    "nested": {"a": [1]},
}


def header_edits(header: dict) -> Iterator[tuple[str, Edit]]:
    for place, value in _places(header):
        name = ".".join(map(str, place))
        yield f"fit.json: no {name}", _at(place, None, remove=True)
        for word, wrong in _WRONG.items():
            if len(place) == 1 and value != wrong:
                yield f"fit.json: {name} {word}", _at(place, wrong)
        if len(place) > 1:
            yield f"fit.json: {name} wrong", _at(place, 10**9 if isinstance(value, str) else "x")
            if isinstance(value, int | float):
                yield f"fit.json: {name} huge", _at(place, 10**18)
    yield "fit.json: an entry more", _at(("colour",), "red")
    for method in (
        "avi:mlp(1000000000)",
        "avi:mlp(100000)",
        "avi:polynomial(1000000000)",
        "avi:low-rank(1000000000)",
        "avi:neighbours(1000000000)",
        "avi:data(../../../etc/hostname)",
        "avi:window(y, 1000000000000000000000)",
        "avi:flow",
        "avi:full-rank",
        "avi:conditional",
        "avi:levels",
        "fvi",
        "constant",
        f"avi:mlp({'9' * 5000})",
    ):
        yield f"fit.json: method {method[:40]}", _at(("method",), method)
    for engine in ("./payload_model.so", "/nowhere/x_model.so", "library", "cmdstan", "payload"):
        yield f"fit.json: engine {engine}", _at(("engine",), engine)


def _places(value: object, above: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Every entry of a record that is worth an edit: of long lists the first one."""
    items = (
        value.items()
        if isinstance(value, dict)
        else list(enumerate(value))[:1]
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*above, key), item
        if above[:1] != ("versions",):
            yield from _places(item, (*above, key))


def _at(place: tuple, value: object, *, remove: bool = False) -> Edit:
    def edit(folder: Path) -> None:
        header = json.loads((folder / HEADER).read_text())
        inner = header
        for key in place[:-1]:
            inner = inner[key]
        if remove:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        (folder / HEADER).write_text(json.dumps(header))

    return edit


# --- arrays -------------------------------------------------------------------------------------------------


def array_edits(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, Edit]]:
    for name, values in arrays.items():
        yield f"arrays.npz: no {name}", _array(name, None)
        if values.size > 1:
            yield f"arrays.npz: {name} cut", _array(name, values.reshape(-1)[:-1])
            yield f"arrays.npz: {name} reshaped", _array(name, values.reshape(1, -1))
        if values.dtype.kind == "f":
            changed = values.copy()
            changed.flat[:1] = np.nan
            yield f"arrays.npz: {name} NaN", _array(name, changed)
        yield f"arrays.npz: {name} zeroed", _array(name, np.zeros_like(values))
        yield f"arrays.npz: {name} moved", _array(name, values + 1 if values.dtype.kind != "b" else ~values)
        yield f"arrays.npz: {name} as text", _array(name, values.astype(str))
    yield "arrays.npz: an array more", _array("spare", np.ones(3))
    yield "arrays.npz: very many inputs", _array("inputs", np.zeros((0, 10**9)))
    yield "arrays.npz: a pickle", _array("inputs", np.array([Ellipsis, {}], dtype=object))


def _array(name: str, values: np.ndarray | None) -> Edit:
    def edit(folder: Path) -> None:
        arrays = dict(np.load(folder / "arrays.npz"))
        arrays.pop(name, None)
        if values is not None:
            arrays[name] = values
        np.savez(folder / "arrays.npz", **arrays)

    return edit


# --- files --------------------------------------------------------------------------------------------------


def file_edits(name: str) -> Iterator[tuple[str, Edit]]:
    yield f"{name}: removed", lambda folder: (folder / name).unlink()
    yield f"{name}: emptied", lambda folder: (folder / name).write_bytes(b"")
    yield (
        f"{name}: truncated",
        lambda folder: _rewrite(folder / name, lambda content: content[: len(content) // 2]),
    )
    yield f"{name}: other bytes", lambda folder: (folder / name).write_bytes(bytes(range(256)) * 4)
    yield f"{name}: a folder", lambda folder: ((folder / name).unlink(), (folder / name).mkdir())
    yield f"{name}: an archive", lambda folder: _as_archive(folder / name)
    for share in (0.1, 0.5, 0.9):
        yield (
            f"{name}: a byte at {share}",
            lambda folder, share=share: _rewrite(
                folder / name, lambda content: _flipped(content, int(share * len(content)))
            ),
        )


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def _as_archive(path: Path) -> None:
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", b"\0" * 10_000_000)


def _replaced(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return edit


def data_edits(data: dict) -> Iterator[tuple[str, Edit]]:
    def changed(**values: object) -> Edit:
        return lambda folder: (folder / "data.json").write_text(json.dumps(data | values))

    yield "data.json: another number", changed(y=[*data["y"][:-1], data["y"][-1] + 3])
    yield "data.json: a unit dropped", changed(y=data["y"][:-1])
    yield (
        "data.json: fewer units",
        changed(
            **{name: value - 1 if isinstance(value, int) else value[:-1] for name, value in data.items()}
        ),
    )
    yield "data.json: very many units", changed(J=10**9)
    yield "data.json: deep", lambda folder: (folder / "data.json").write_text('{"J":' + "[" * 100_000)
