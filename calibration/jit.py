"""``kernel``: the one place that touches numba's options.

Compiled kernels are cached on disk. numba does not notice an edited constant or callee in another module, so there is
one cache folder per digest of the sources that a module is made of, itself and what it imports of this room: an edit starts
new folders where it matters, and nothing is ever stale.
"""

import ast
import hashlib
import os
from functools import cache
from pathlib import Path

import numba

_ROOM = Path(__file__).parent


def cache_root() -> Path:
    """The folder of all compiled kernels: CALWEAVE_KERNEL_CACHE, or one in the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CALWEAVE_KERNEL_CACHE") or Path(home) / "calweave" / "kernels")


@cache
def _imports(source: Path) -> tuple[Path, ...]:
    """The files of this room that a file imports."""
    modules = []
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _ROOM.name:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = {_ROOM.parent.joinpath(*module.split(".")).with_suffix(".py") for module in modules if module}
    return tuple(sorted(file for file in files if file.is_file()))


@cache
def digest_of(source: Path) -> str:
    """Of the content of a file and of all that it imports of this room, directly or not."""
    found, waiting = {source}, [source]
    while waiting:
        new = set(_imports(waiting.pop())) - found
        found |= new
        waiting += new
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(found):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def kernel(function):
    """Compile ``function`` in nopython mode, cached on disk, free of the GIL, with IEEE arithmetic and NumPy's division."""
    folder = cache_root() / digest_of(Path(function.__code__.co_filename))
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    return numba.njit(function, cache=True, nogil=True, error_model="numpy")
