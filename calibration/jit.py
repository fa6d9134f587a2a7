"""``kernel``: the one place that touches numba's options.

Compiled kernels are cached on disk. numba does not notice an edited constant or callee in another module, so there is
one cache folder per digest of the sources of this room: an edit starts a new folder, and nothing is ever stale.
"""

import hashlib
import os
from pathlib import Path

import numba


def _digest_of_sources() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = os.environ.get("CALWEAVE_KERNEL_CACHE") or Path(home) / "calweave" / "kernels"
    return str(Path(root) / _digest_of_sources())


numba.config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined]


def kernel(function):
    """Compile ``function`` in nopython mode, cached on disk, free of the GIL, with IEEE arithmetic and NumPy's division."""
    return numba.njit(function, cache=True, nogil=True, error_model="numpy")
