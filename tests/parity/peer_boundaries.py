"""Runs pipelines of the official package, each in its own folder, on files that Calweave wrote; by its interpreter.

Argument: a JSON file with ``runs``, a list of {pipeline, folder, input, steps}, and ``open``, a list of files. What a
pipeline makes appears in its folder; the data model of each opened file appears in ``opened.json`` beside the argument.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path

from jwst import datamodels, pipeline


def open_strictly(path: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(path) as model:
            model.validate()
            return type(model).__name__


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    jobs = Path(sys.argv[1])
    work = json.loads(jobs.read_text())
    opened = {path: open_strictly(path) for path in work["open"]}
    jobs.with_name("opened.json").write_text(json.dumps(opened))
    for run in work["runs"]:
        # The pipelines look for the members of an association, and put their products, in the working folder.
        os.chdir(run["folder"])
        getattr(pipeline, run["pipeline"]).call(run["input"], save_results=True, steps=run["steps"])
