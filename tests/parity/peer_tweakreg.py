"""Runs tweakreg of the official package on files that our test made; by its interpreter.

Argument: a folder, with the files and ``jobs.json``: for each name the files to align and the options. The aligned ones are
written beside them, ``NAME_0.fits`` ...
"""

import json
import sys
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
    main(Path(sys.argv[1]))
