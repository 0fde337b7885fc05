"""The documentation runs: the commands and the Python of every page, in order, in a folder of its own, made small.

Configs run in their `smoke` form and benchmarks with `--quick`, and FOLDER is the folder of the original files: what
they need is in $PRIVSYN_DATA_DIR, or in shared/data beside the checkout.
"""

import itertools
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from documented import DOCUMENTS, PYTHONS, ROOT, Command, commands, edited, edits, name_of, programs
from PIL import Image

pytestmark = pytest.mark.slow
DATA = Path(os.environ.get("PRIVSYN_DATA_DIR", ROOT.parent / "shared" / "data"))
SECONDS = 3600  # for one command
NOT_EXECUTED = {  # how a command begins -> why
    "make test": "it runs this test",
    "python3 -m venv": "tests install nothing",
    "bench/bin/pip install": "tests install nothing",
    "launch/slurm/local_cluster.sh": "it installs SLURM as root; sweeps are tried in test_executors.py",
}
SHORTER = {  # program -> options after those of the page, which they override
    "launch.attack": ["--shadows=8", "--shadow-records=1000"],
    "benchmarks/attacks.py": ["--quick", "--epsilons=1", "--seeds=0"],
    "benchmarks/devices.py": ["--rounds=1"],
    "benchmarks/dp_step.py": ["--quick", "--workloads=mlp_512", "--contestants=plain,vmap,auto"],
}  # of other benchmarks: --quick
OF_ADULT = ("adult", "shadows", "vectorized_runs")  # benchmarks whose FOLDER is Adult's; else that of all data sets
PRELUDE = 'import pandas\n\nframe = pandas.read_csv("data.csv")\n'  # before the Python of a page
RAN = set()  # benchmarks: a page of results and another may hold the same command


class Absent(Exception):
    """The data of a command are not on this machine."""


def folder_of(name):
    if not (DATA / name).is_dir():
        raise Absent(f"{name} is not in {DATA}: set PRIVSYN_DATA_DIR to the folder that holds {name}/")
    return str(DATA / name)


def small_config(word):
    """(the word with `smoke` where the config knows it, names of its data sets) of --config=FILE[:ARGUMENTS]."""
    path, _, argument = word.removeprefix("--config=").partition(":")
    words = [part for part in argument.split(",") if part not in ("", "smoke")]
    if not (ROOT / path).is_file():  # the page makes it, of parts that are not there yet
        return f"--config={path}:smoke", set()
    get_config = runpy.run_path(str(ROOT / path))["get_config"]
    for arguments in ([*words, "smoke"], words):
        try:
            config = get_config(",".join(arguments) or None)
        except ValueError:
            continue
        models = config.models.values() if "models" in config else [config]
        return f"--config={path}:{','.join(arguments)}".rstrip(":"), {model.data.name for model in models}
    raise AssertionError(f"{path} takes neither {words} nor smoke")


def small_launch(program, words):
    """The arguments of a program of launch/, small and with FOLDER filled in."""
    small, data = [], set()
    for word in words:
        word = word.replace("SHARED", "shared").replace("CONFIG", "configs/quickstart.py")
        if word.startswith("--config="):
            word, data = small_config(word)
        word = re.sub("^--num_processes=.*", "--num_processes=1", word)
        word = word.replace("HOST0:12345", f"localhost:{free_port()}")
        word = re.sub("^--executor=.*", "--executor=local", word)
        word = re.sub("^--workers=.*", "--workers=1", word)
        if not word.startswith("--job="):
            small.append(word)
    if program == "schema":
        return [word.replace("FOLDER", "pictures") for word in small]
    if program == "prepare_tfds":
        return [small[0], f"--manual_dir={folder_of(small[0])}", "--data_dir=prepared"]
    originals = data - {"csv", "digits", "grammar", "rand_hie"}
    (name,) = originals or {""}
    return [word.replace("FOLDER", folder_of(name) if name else ".") if "FOLDER" in word else word for word in small]


def small_benchmark(script, words):
    """The arguments of a benchmark, small and with FOLDER filled in."""
    of_all = folder_of("adult") if Path(script).stem in OF_ADULT else str(DATA)
    filled = [of_all if word == "FOLDER" else sys.executable if word == "PYTHON" else word for word in words]
    for option, value in itertools.pairwise(words):
        if option in ("--configs", "--epsilons"):  # of several the first
            filled[words.index(option) + 1] = value.split(",")[0]
        elif option == "--references":
            filled[words.index(option) + 1] = "references"
    return [*filled, *SHORTER.get(script, ["--quick"])]


def runnable(command):
    """The words to run, or None for a command of NOT_EXECUTED; raises Absent."""
    text = " ".join(command.words)
    if any(text.startswith(beginning) for beginning in NOT_EXECUTED):
        return None
    match command.words:
        case ["make", "run"]:
            (words,) = re.findall(r"^run:.*\n\t\$\(BIN\)/python (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return runnable(command._replace(words=["python", *words.split()]))
        case [python, "-m", "pytest", *words] if python in PYTHONS:
            return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
        case [python, "-m", module, *words] if python in PYTHONS:
            words = small_launch(module.removeprefix("launch."), words)
            return [sys.executable, "-m", module, *words, *SHORTER.get(module, [])]
        case [python, script, *words] if python in PYTHONS:
            return [sys.executable, script, *small_benchmark(script, words)]
        case ["sbatch", *words]:
            script = next(word for word in words if not word.startswith("-"))
            return ["bash", script, *small_launch("run", words[words.index(script) + 1 :])]
        case [*options]:
            return [sys.executable, "-m", "launch.plan", "--config=configs/quickstart.py:smoke", *options]


def run(words, folder, *, variables=None, out=""):
    """[] or, if the command fails, [what it was and said]."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHON": sys.executable,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PRIVSYN_CACHE_DIR": str(folder / "cache"),
        **(variables or {}),
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
    if out:
        (folder / out).write_text(done.stdout)
    return [] if done.returncode == 0 else [f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"]


def free_port():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def random_table(rng, num_rows):
    age = rng.integers(18, 90, num_rows)
    outcome = np.where(rng.random(num_rows) < age / 120, "yes", "no")
    sex, owner = rng.choice(["Female", "Male"], num_rows), rng.integers(0, num_rows // 2, num_rows)
    return pd.DataFrame({"subject_id": owner, "age": age, "sex": sex, "outcome": outcome})


SCHEMA = """{"columns": {
  "subject_id": {"kind": "id"},
  "age": {"kind": "integer", "lower": 18, "upper": 90},
  "sex": {"kind": "categorical", "categories": ["Female", "Male"]},
  "outcome": {"kind": "categorical", "categories": ["no", "yes"]}
}, "num_records": 2000, "target": "outcome", "sensitive": ["sex"]}"""


def write_inputs(folder):
    """The user's files that pages speak of: tables, a schema, reviews, pictures; and `srun`, which runs its command."""
    rng = np.random.default_rng(0)
    for name, num_rows in {"data": 2000, "train": 2000, "test": 1000, "synthetic": 2000, "better": 2000}.items():
        random_table(rng, num_rows).to_csv(folder / f"{name}.csv", index=False)
    (folder / "schema.json").write_text(SCHEMA)
    words = [" ".join(rng.choice(["good", "bad", "film", "the", "was"], 12)) for _ in range(40)]
    reviews = pd.DataFrame({"review": words, "sentiment": rng.choice(["negative", "positive"], 40)})
    reviews.to_csv(folder / "reviews.csv", index=False)
    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / label / f"{number}.png")
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)


def make_project(folder, changes):
    """A folder that commands run in: the project's own by links, or, where a page changes it, a changed copy."""
    for name in ("benchmarks", "configs", "launch", "privsyn_jax", "pyproject.toml", "tests"):
        if changes and name in ("configs", "privsyn_jax"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / name).symlink_to(ROOT / name)
    for path, texts in changes.items():
        file = folder / path
        for block in texts:
            file.write_text(edited(file.read_text() if file.exists() else None, block))
    (folder / "docs" / "results").mkdir(parents=True)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory):
    """The workdir of the quickstart, small, which several pages go on from."""
    folder = tmp_path_factory.mktemp("quickstart")
    make_project(folder, {})
    failed = run(runnable(Command("Makefile", ["make", "run"], {}, "")), folder)
    assert not failed, failed[0]
    return folder / "runs" / "quickstart"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_a_page_runs(document, tmp_path, quickstart):
    todo, texts = commands(document), programs(document)
    if not (todo or texts):
        pytest.skip("nothing on this page is run")
    make_project(tmp_path, edits(document))
    write_inputs(tmp_path)
    shutil.copytree(quickstart, tmp_path / "runs" / "quickstart")
    absent, failed = [], []
    for command in todo:
        try:
            words = runnable(command)
        except Absent as reason:
            absent.append(str(reason))
            continue
        if words is None or " ".join(words) in RAN:
            continue
        failed += run(words, tmp_path, variables=command.variables, out=command.out)
        if words[1].startswith("benchmarks/"):
            RAN.add(" ".join(words))
    if texts:
        (tmp_path / "page.py").write_text(PRELUDE + "\n".join(texts))
        failed += run([sys.executable, "page.py"], tmp_path)
    assert not failed, "\n\n".join(failed)
    if absent:
        pytest.skip(f"all but some commands ran: {'; '.join(absent)}")


def test_what_is_not_executed_is_still_in_the_docs():
    texts = [" ".join(command.words) for document in DOCUMENTS for command in commands(document)]
    for beginning in NOT_EXECUTED:
        assert any(text.startswith(beginning) for text in texts), f"{beginning} is on no page: remove it here"
