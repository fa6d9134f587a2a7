"""Run by the official package's interpreter: generate associations of pools, or load association files.

python peer_associations.py generate POOL FOLDER      seconds of CPU as JSON, and the associations in FOLDER
python peer_associations.py load FILE...              the products of each file as JSON
"""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")


def generate(pool: str, folder: str) -> None:
    from jwst.associations.main import Main

    start = time.process_time()
    Main.cli(["-p", folder, pool])
    print(json.dumps({"seconds": time.process_time() - start}))


def load(files: list[str]) -> None:
    from jwst.associations import load_asn

    found = {}
    for file in files:
        with Path(file).open() as stream:
            asn = load_asn(stream)
        found[Path(file).name] = {
            product["name"]: [[member["expname"], member["exptype"]] for member in product["members"]]
            for product in asn["products"]
        }
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "generate":
        generate(*sys.argv[2:])
    else:
        load(sys.argv[2:])
