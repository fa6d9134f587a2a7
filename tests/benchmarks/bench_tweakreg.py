"""Truth and CPU of tweakreg on four exposures: ``python tests/benchmarks/bench_tweakreg.py [SIZE [PEER]]``.

SIZE is 1024 pixels by default; PEER the interpreter that has the official package, which then aligns the same files. Errors are
of the corrected WCS relative to the first exposure's, root mean square over exposures and a grid of pixels [mas].
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from imaging_scene import START, Scene, distortion, make_scene  # noqa: E402

from calibration.mosaics.tweakreg import Fit, align  # noqa: E402
from calibration.wcs.imaging import imaging_wcs  # noqa: E402
from infra.products.image import read_image, write_image  # noqa: E402
from infra.references.content import References  # noqa: E402
from infra.synthetic.crds_cache import write_mappings  # noqa: E402
from tasks.tweakreg import TweakregOptions, _stars, tweakreg  # noqa: E402

ERRORS = {
    "25 mas": ((0.0, 0.0), (0.02, -0.03), (-0.025, 0.01), (0.01, 0.03)),
    "0.5 arcsec and 0.1 deg": ((0.0, 0.0), (0.5, -0.3, 0.1), (-0.4, 0.5, -0.1), (0.35, 0.35, 0.1)),
}


def main(size: int, peer: str | None) -> None:
    """Print what is left of the errors that were put in, and the CPU."""
    for star in (0.5, 1.1):
        for name, errors in ERRORS.items():
            scene = make_scene(size, errors=errors, count=size * size // 2500, star=star, rays=200)
            for _ in range(2):
                begin = time.process_time()
                aligned = tweakreg.fn(scene.images, References({}, "none"), TweakregOptions())
                spent = time.process_time() - begin
            print(
                f"stars of {star} pixel, {name}: ours {left(scene, aligned, size):.2f} mas, {spent:.2f} s", flush=True
            )
            if peer:
                aligned, spent = by_peer(scene, peer)
                print(
                    f"    official {left(scene, aligned, size):.2f} mas, {spent:.2f} s with files in and out",
                    flush=True,
                )
    stars = [_stars(image, k, TweakregOptions()) for k, image in enumerate(scene.images)]
    for count in (4, 32):
        many = [type(one)(**(vars(one) | {"group": k})) for k, one in enumerate(stars * (count // 4))]
        begin = time.process_time()
        align(many, Fit())
        print(f"matching and fitting {count} exposures: {time.process_time() - begin:.2f} s", flush=True)


def left(scene: Scene, aligned: tuple, size: int) -> float:
    """Root mean square of the distances of the WCS from the real ones [mas]."""
    x, y = np.meshgrid(*[np.linspace(0, size - 1, 9)] * 2)
    errors = []
    for image, at in zip(aligned, scene.pointings, strict=True):
        real = imaging_wcs(at, distortion(), (size, size), (START, START))
        (ra, dec), (there, up) = (wcs(x, y, with_bounding_box=False) for wcs in (image.wcs, real))
        errors.append(3.6e6 * np.array([(ra - there) * np.cos(np.radians(dec)), dec - up]))
    relative = np.array(errors[1:]) - errors[0]
    return float(np.sqrt((relative**2).sum(axis=1).mean()))


def by_peer(scene: Scene, peer: str) -> tuple[tuple, float]:
    """The images as the official step aligns them, and its CPU [s] without the imports."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image in scene.images:
            write_image(image, folder / image.header["FILENAME"])
        files = [image.header["FILENAME"] for image in scene.images]
        (folder / "jobs.json").write_text(json.dumps({"out": {"files": files, "options": {}}}))
        write_mappings(folder / "crds", {"NIRISS": []})
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
        environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
        script = REPOSITORY / "tests" / "parity" / "peer_tweakreg.py"
        done = subprocess.run([peer, script, folder], env=environment, capture_output=True, text=True, check=True)
        spent = float(done.stdout.splitlines()[-1])
        return tuple(read_image(folder / f"out_{k}.fits") for k in range(len(files))), spent


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024, sys.argv[2] if len(sys.argv) > 2 else None)
