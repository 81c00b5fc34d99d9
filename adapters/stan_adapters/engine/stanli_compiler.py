"""Stan's compiler inside stanli, and the one situation in which it must run in a process of its own.

The compiler is written in OCaml, whose runtime starts with the first program and then gives itself a signal stack of a
fixed size. On processors with matrix tiles (AMX) the kernel wants larger ones as soon as anything in the process has
asked for tiles, which XLA does when it first compiles: from then on that start aborts the whole process. A runtime that
has started before is not affected.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

_GET_PERMISSIONS, _TILE_DATA = 0x1022, 1 << 18  # ARCH_GET_XCOMP_PERM, and the bit of AMX's tiles
_ARCH_PRCTL = 158  # system call of x86-64

_ALONE = """
import sys
import stanli
try:
    mir = stanli.stan_to_mir(sys.stdin.buffer.read().decode())
except RuntimeError as error:
    sys.stderr.buffer.write(str(error).encode())
    sys.exit(1)
sys.stdout.buffer.write(mir.encode())
"""

_started = False


def stan_to_mir(source: str) -> str:
    """The intermediate form of a program.

    Raises:
        RuntimeError: the compiler rejects the program, in its words.
    """
    global _started
    if not _started and tiles_permitted():
        return _in_own_process(source)
    import stanli

    _started = True
    return str(stanli.stan_to_mir(source))


def tiles_permitted() -> bool:
    """Whether this process may use AMX's tiles, so that the kernel wants large signal stacks."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    permissions = ctypes.c_uint64()
    failed = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _GET_PERMISSIONS, ctypes.byref(permissions))
    return not failed and bool(permissions.value & _TILE_DATA)


def _in_own_process(source: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _ALONE], input=source.encode(), capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(said or f"it ended with status {done.returncode}")
    return done.stdout.decode()
