"""Runs tweakreg of the official package on files that our test made; by its interpreter.

Argument: a folder, with the files and ``jobs.json``: for each name the files to align and the options. The aligned ones are
written beside them, ``NAME_0.fits`` ...; prints its CPU [s] at last.
"""

import json
import sys
import time
from pathlib import Path

from jwst.tweakreg import TweakRegStep


def main(folder: Path) -> None:
    for name, job in json.loads((folder / "jobs.json").read_text()).items():
        images = TweakRegStep.call([str(folder / file) for file in job["files"]], **job["options"])
        with images:
            for k, image in enumerate(images):
                image.save(str(folder / f"{name}_{k}.fits"))
                images.shelve(image, k, modify=False)


if __name__ == "__main__":
    begin = time.process_time()
    main(Path(sys.argv[1]))
    print(time.process_time() - begin)
