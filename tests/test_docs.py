"""The documentation says what is so: its commands parse, its links lead somewhere, its names exist; and it all runs."""

import argparse
import copy
import functools
import importlib
import json
import re
import runpy
import sys
import tomllib

import pytest
from absl import flags
from documented import (
    DOCUMENTS,
    PYTHONS,
    ROOT,
    anchors,
    blocks,
    commands,
    edited,
    edits,
    languages,
    links,
    mentions,
    name_of,
    programs,
    spans,
)
from ml_collections import config_flags

from launch.config import to_settings, to_study
from privsyn_jax.models import GENERATORS
from privsyn_jax.settings import Settings, model_defaults
from privsyn_jax.study.executors import parse_parameters

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # which ml_collections loads a config by
COMMANDS = [command for document in DOCUMENTS for command in commands(document)]
ABSL = ("plan", "run", "study")  # the other programs of launch/ use argparse
SECTIONS = "data|transform|tokens|privacy|warm_start|training|synthesis|evaluation|attacks"


class Parsed(Exception):
    """Ends a program that has parsed its arguments."""

    def __init__(self, parser, options):
        self.parser, self.options = parser, options


@functools.cache
def flags_of(program):
    """The flags that a program of absl defines, taken out of the global ones: several programs in one process."""
    known = {*flags.FLAGS, "config"}
    importlib.import_module(f"launch.{program}")
    own = {name: flags.FLAGS[name] for name in set(flags.FLAGS) - known - {"config"}}
    for name in own:
        delattr(flags.FLAGS, name)
    return own


def absl_parsed(program, words):
    """Flag values of launch.run, plan or study, with a checked configuration; a bad word or setting raises."""
    values, arguments = flags.FlagValues(), [program, *words]
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values, sys_argv=arguments)
    for name, flag in flags_of(program).items():
        values[name] = copy.deepcopy(flag)
    left = values(arguments)[1:]
    assert not left, f"arguments without a flag: {left}"
    assert "workdir" not in values or values["workdir"].value, "--workdir is missing"
    checked = to_study(values["config"].value) if program == "study" else to_settings(values["config"].value)
    if program == "study":
        parse_parameters(values["job"].value or (), str(values["executor"].value))
    return checked


def argparse_parsed(monkeypatch, start):
    """(parser, options) of a program that uses argparse, which `start` begins and which does not get further."""
    real = argparse.ArgumentParser.parse_args

    def parse(parser, arguments=None, namespace=None):
        raise Parsed(parser, real(parser, arguments, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    try:
        start()
    except Parsed as parsed:
        return parsed.parser, parsed.options
    except SystemExit:
        pytest.fail("an argument is missing or unknown: see stderr")
    raise AssertionError("the program has no arguments")


def benchmark_parsed(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return argparse_parsed(monkeypatch, lambda: runpy.run_path(str(ROOT / words[0]), run_name="__main__"))[1]


def launch_parsed(monkeypatch, program, words):
    if program in ABSL:
        absl_parsed(program, words)
    else:
        argparse_parsed(monkeypatch, lambda: importlib.import_module(f"launch.{program}").main(words))


def filled(words):
    """Words with placeholders filled in, for a check that opens nothing."""
    return [word.replace("CONFIG", "configs/quickstart.py") for word in words]


def check_extras(requirements):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in requirements:
        for extra in re.findall(r"\[(\w+)\]", requirement):
            assert extra in extras, f"pyproject.toml has no extra {extra}"


def check(command, monkeypatch):
    """Fails unless the command's program, files, flags and settings exist; every kind of command has its case here."""
    made = edits(ROOT / command.document)
    match command.words:
        case [python, "-m", module, *words] if python in PYTHONS and module.startswith("launch."):
            config = next((word.split("=", 1)[1] for word in words if word.startswith("--config=")), "")
            if config.partition(":")[0] not in made:  # else the slow test makes it
                launch_parsed(monkeypatch, module.removeprefix("launch."), filled(words))
        case [python, script, *_] if python in PYTHONS and script.startswith("benchmarks/"):
            options = benchmark_parsed(monkeypatch, command.words[1:])
            assert (ROOT / options.json).is_file(), f"{options.json} is not there"
        case [python, "-m", "pytest", *words] if python in PYTHONS:
            for word in words:
                assert not word.startswith("tests/") or (ROOT / word).is_file(), f"{word} is not there"
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"
        case ["sbatch", *words]:
            script = next(word for word in words if not word.startswith("-"))
            assert "-m launch.run" in (ROOT / script).read_text()
            launch_parsed(monkeypatch, "run", filled(words[words.index(script) + 1 :]))
        case ["launch/slurm/local_cluster.sh", verb]:
            cases = re.findall(r"^  ([\w |]+)\) \"\$1\"", (ROOT / command.words[0]).read_text(), re.MULTILINE)
            assert verb in " ".join(cases).split(), f"it does not know {verb}"
        case [*options] if all(option.startswith("--config.") for option in options):
            launch_parsed(monkeypatch, "plan", ["--config=configs/quickstart.py", *options])
        case [python, "-m", "venv", _] if python in (*PYTHONS, "python3"):
            pass
        case [pip, "install", *requirements] if pip.endswith("pip"):
            check_extras(requirements)
        case _:
            pytest.fail("a command of a kind that this test does not know")


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_one_that_exists(command, monkeypatch):
    check(command, monkeypatch)


LAUNCH, QUICKSTART = "python -m launch.", "--config=configs/quickstart.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LAUNCH}run {QUICKSTART}", "--workdir is missing"),
        (f"{LAUNCH}run --config=configs/absent.py --workdir=w", "absent"),
        (f"{LAUNCH}plan {QUICKSTART}:unheard", "unheard"),
        (f"{LAUNCH}plan {QUICKSTART} --config.privacy.epsylon=1", "epsylon"),
        (f"{LAUNCH}plan {QUICKSTART} --config.privacy.sampling=none", "privacy.sampling"),
        (f"{LAUNCH}plan {QUICKSTART} data.csv", "without a flag"),
        (f"{LAUNCH}study --config=configs/studies/smoke.py --workdir=w --shards=2", "shards"),
        (f"{LAUNCH}study --config=configs/studies/smoke.py --workdir=w --job=mem_gb=1", "--job is for"),
        (f"{LAUNCH}attack --workdir=w --shadow=64", "missing or unknown"),
        (f"{LAUNCH}mitigate --workdir=w", "missing or unknown"),
        (f"{LAUNCH}absent --workdir=w", "absent"),
        ("python benchmarks/adult.py --json docs/results/adult.json", "missing or unknown"),
        ("python benchmarks/accounting.py --json docs/results/absent.json", "is not there"),
        ("python -m pytest tests/test_absent.py", "is not there"),
        (f"sbatch launch/slurm/one_node.sbatch {QUICKSTART}", "--workdir is missing"),
        ("launch/slurm/local_cluster.sh sideways", "sideways"),
        ("make coffee", "coffee"),
        ("--config.privacy.schedule.noise=cosine --config.privacy.adaptive.rule=signal", "exclude each other"),
        ("pip install privsyn_jax[absent]", "no extra absent"),
        ("curl https://example.org", "does not know"),
    ],
)
def test_a_broken_command_is_caught(text, message, monkeypatch):
    with pytest.raises((Exception, pytest.fail.Exception), match=message):
        check(COMMANDS[0]._replace(words=text.split()), monkeypatch)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    for link in links(document):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_file(), f"{link} is not there"
        assert not anchor or anchor in anchors(target), f"{path or name_of(document)} has no heading for #{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_names_of_settings_files_and_flags_exist(document):
    made = edits(document)
    for span in spans(document):
        if match := re.fullmatch(rf"(?:--config\.)?((?:{SECTIONS}|model)(?:\.[a-z0-9_]+)+)(?:=.*)?", span):
            assert exists_setting(match[1]) or exists_module(match[1]), f"{span} is no setting"
        elif re.fullmatch(r"[\w./]+/[\w.]+\.(py|md|sh|sbatch|json|csv)", span) and not re.search("[A-Z]{4}", span):
            is_made_by_a_run = re.match(r"(runs|release|private|model|evaluation|attacks)/", span)
            roots = (ROOT, ROOT / "privsyn_jax", ROOT / "docs")
            found = any((root / span).exists() for root in roots) or span in made
            assert is_made_by_a_run or found, f"{span} is not there"
        check_extras([span] if "pip install" in span else [])
        if span.startswith("make "):
            assert f"\n{span.removeprefix('make ')}:" in (ROOT / "Makefile").read_text(), span
    for program, names in mentions(document):
        known = known_flags(program)
        for name in names:
            assert name in known or (name.startswith("config.") and "config" in known), (
                f"launch.{program} has no {name}"
            )


def exists_setting(path):
    section, *keys = path.split(".")
    if section == "model":
        return any(keys[0] in model_defaults(name) for name in GENERATORS)
    found = Settings().to_dict()[section]
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True


def exists_module(path):
    base = ROOT / "privsyn_jax" / path.replace(".", "/")
    return base.is_dir() or base.with_suffix(".py").is_file()


@functools.cache
def known_flags(program):
    if program in ABSL:
        return {*flags_of(program), "config"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(argparse.ArgumentParser, "error", lambda parser, message: None)
        parser, _ = argparse_parsed(monkeypatch, lambda: importlib.import_module(f"launch.{program}").main([]))
    return {option.lstrip("-") for action in parser._actions for option in action.option_strings}


def test_names_that_do_not_exist_are_told():
    assert exists_setting("privacy.schedule.noise") and exists_setting("model.num_teachers")
    assert not exists_setting("privacy.schedule.noises") and not exists_setting("model.teachers")
    assert exists_module("training.feed") and not exists_module("training.feeds")
    assert known_flags("attack") >= {"workdir", "shadows"} and known_flags("run") >= {"config", "process_id"}


def test_every_page_can_be_found():
    """From README.md or the index of results, directly or through other pages."""
    found, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in found:
            found.add(page)
            targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link]
            todo += [target for target in targets if target.suffix == ".md" and target.is_file()]
    assert set(DOCUMENTS) <= found, f"nothing leads to {sorted(map(name_of, set(DOCUMENTS) - found))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_blocks_are_of_languages_that_are_checked(document):
    assert languages(document) <= {"", "bash", "bibtex", "json", "python"}
    for fragment in blocks(document, "json"):
        json.loads("{" + fragment + "}")
    for text in programs(document):
        compile(text, name_of(document), "exec")
    for path, texts in edits(document).items():
        text = (ROOT / path).read_text() if (ROOT / path).exists() else None
        for block in texts:
            text = edited(text, block)
        compile(text or "", path, "exec")
