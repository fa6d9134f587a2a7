"""Which raw exposures of a folder have arrived whole.

A file that is copied into a folder is seen before it is complete. The headers of a FITS file say how long it will be, so
a part is told from the whole without waiting; an object of a store appears whole.
"""

import gzip
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits

from infra.products.names import base_of
from infra.storage.store import Stat, is_local, join, local_path

log = logging.getLogger(__name__)

SUFFIXES = ("_uncal.fits", "_uncal.fits.gz")
_BLOCK = 2880
#: A file that is shorter than its headers say, and has not grown for so long, is taken for a damaged one [s].
PATIENCE = 60.0


@dataclass(frozen=True)
class Arrived:
    """An exposure that is there: where, which version of it, and when it was first seen whole [s, monotonic]."""

    url: str
    stat: Stat
    since: float


@dataclass(frozen=True)
class Changes:
    """What one look found: names (without suffix) of exposures that are new or have new content, and that went away."""

    arrived: tuple[str, ...]
    gone: tuple[str, ...]


@dataclass
class Arrivals:
    """The exposures below a folder, look by look.

    ``exposures`` is by name without the suffix: of two files of one name the first counts until it goes away.
    """

    folder: str
    exposures: dict[str, Arrived] = field(default_factory=dict)
    _unfinished: dict[str, tuple[Stat, float]] = field(default_factory=dict)
    _doubles: set[str] = field(default_factory=set)

    def look(self, files: Mapping[str, Stat], now: float) -> Changes:
        """Compare with the files that are there at the time ``now`` [s, monotonic]: relative name -> size and version."""
        shown = {
            name: stat
            for name, stat in files.items()
            if name.endswith(SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))
        }
        gone = {base for base, one in self.exposures.items() if one.url not in {join(self.folder, n) for n in shown}}
        arrived = []
        for name, stat in shown.items():
            url, base = join(self.folder, name), base_of(name)
            before = self.exposures.get(base)
            if before is not None and before.url != url and base not in gone:
                if url not in self._doubles:
                    self._doubles.add(url)
                    log.warning("%s: %s is the same exposure and came first; left out", url, before.url)
                continue
            if before is not None and (before.url, before.stat) == (url, stat):
                continue
            if not self._is_whole(url, stat, now):
                continue
            self.exposures[base] = Arrived(url, stat, now)
            gone.discard(base)
            arrived.append(base)
        for base in gone:
            del self.exposures[base]
        return Changes(tuple(arrived), tuple(sorted(gone)))

    def _is_whole(self, url: str, stat: Stat, now: float) -> bool:
        if not is_local(url):
            return True
        path = Path(local_path(url))
        try:
            whole = _unpacks(path) if path.name.endswith(".gz") else stat.size >= length_of(path)
        except FileNotFoundError:
            return False
        if whole:
            self._unfinished.pop(url, None)
            return True
        seen, since = self._unfinished.get(url, (stat, now))
        if seen != stat:
            since = now
        self._unfinished[url] = (stat, since)
        if now - since < PATIENCE:
            return False
        log.error("%s is not complete and has not grown for %.0f s; copy it again", url, PATIENCE)
        del self._unfinished[url]
        return True

    @property
    def unfinished(self) -> tuple[str, ...]:
        """URLs of the files that are still being written."""
        return tuple(sorted(self._unfinished))


def length_of(path: Path) -> float:
    """How long a FITS file will be [bytes], as far as its headers are there; infinite while one of them is not.

    An extension that was not begun is not known of; the primary header of a raw exposure says that there are some.
    """
    size = path.stat().st_size
    end, number = 0, 0
    with path.open("rb") as file:
        while end < size or number < 2:
            file.seek(end)
            try:
                header = fits.Header.fromfile(file)
            except (OSError, EOFError, ValueError):
                return float("inf")
            pixels = 1 if header.get("NAXIS", 0) else 0
            for axis in range(1, header.get("NAXIS", 0) + 1):
                pixels *= header[f"NAXIS{axis}"]
            count = header.get("PCOUNT", 0) + pixels
            data = abs(header.get("BITPIX", 8)) // 8 * header.get("GCOUNT", 1) * count
            end = file.tell() + -(-data // _BLOCK) * _BLOCK
            number += 1
    return end


def _unpacks(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(1 << 22):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False
    return True
