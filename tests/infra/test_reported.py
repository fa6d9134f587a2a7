"""Steps and stages do without Prefect until somebody asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from infra.reported import as_flow, as_task
{before}
task, flow = as_task(lambda x: x + 1, "plus"), as_flow(lambda x: x + 2, "more", "more")
assert (task(1), flow(1), task.fn(1), task.name) == (2, 3, 2, "plus")
print("prefect" in sys.modules)
{after}
"""


def run(folder: Path, before: str = "", after: str = "", **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(before=before, after=after)],
        env={**clean, "PREFECT_HOME": str(folder), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def test_without_a_server_prefect_is_not_loaded(tmp_path):
    assert run(tmp_path) == "False"


@pytest.mark.parametrize(
    "after",
    [
        "from prefect import Flow, Task; assert isinstance(task.observed, Task) and isinstance(flow.observed, Flow)",
        "assert callable(task.submit) and flow.observed.name == 'more'",
    ],
)
def test_it_is_when_what_it_offers_is_asked_for(tmp_path, after):
    assert run(tmp_path, after=after) == "False"


def test_where_it_is_loaded_flows_are_its_own_which_its_workers_ask_for(tmp_path):
    assert run(tmp_path, "import prefect", "assert isinstance(flow, prefect.Flow)") == "True"


def test_it_finds_out_itself_where_it_has_settings(tmp_path):
    (tmp_path / "profiles.toml").write_text('active = "here"\n[profiles.here]\n')
    assert run(tmp_path) == "True"


def test_a_stage_alone_does_not_load_it(tmp_path):
    code = "import sys, flows.detector1, flows.dark; sys.exit('prefect' in sys.modules or 'scipy.stats' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
