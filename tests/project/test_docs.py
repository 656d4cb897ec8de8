"""The documentation is true: its examples run, its tables agree with the code, its links lead somewhere.

Marks in the pages (HTML comments, invisible when rendered) say what the block below them is: ``file: NAME`` is a whole
file, ``part: NAME`` a part that a test completes, ``run`` holds commands, ``run-python`` a whole program.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import merging
from benchmarks import methods
from benchmarks.optimizers import render
from merging.cli.asking.tables import RunTable, read_toml
from merging.cli.main import COMMANDS, cli
from merging.mergekit.methods import METHODS
from merging.plugins.discovery import load_all
from merging.plugins.options import options_of
from merging.plugins.problem import Problem
from merging.plugins.registry import PLUGINS, optimizers, strategies
from merging.plugins.sink import SinkEnd, SinkEvent, SinkRun
from merging.plugins.strategy import NEEDS
from merging.testing import tiny_pool
from merging.values.report import Row
from tests.conftest import Merge

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OTHERS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "changelog.d" / "README.md")
PAGES = [path for path in (*OTHERS, *sorted(DOCS.glob("*.md"))) if path.exists()]
BLOCK = re.compile(r"<!-- (?P<mark>[a-z-]+)(?:: (?P<name>\S+))? -->\n```[a-z]*\n(?P<text>.*?)```", re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
NOT_OURS = {
    *("--build-arg", "--index-url", "--rm", "--system-site-packages", "--tag", "--torch-backend", "--user", "--volume"),
    *("--draft", "--version"),
    "--logdir",
    "--images",
    "--megabytes",
    "--rounds",
    "--only",
    "--pool",
    "--finetune",
    "--mergekit",
    "--import-mode",
    "--before",
    "--every",
    "--run",
    *("--kills", "--cuts", "--writers"),
    "--hook-type",
    "--write",
    "--layers",
    "--simulate",
    "--speed",
    "--faults",
    "--pairs",
    "--on-ray",
    "--lazy-unpickle",
    "--num-threads",
    "--random-seed",
    *("--apply", "--batch", "--include", "--log", "--num"),  # of lm_eval, which go on with an underscore
    *("--address", "--cpus-per-task", "--exclusive", "--gpus-per-task", "--head", "--job-name", "--min-nodes"),
    *("--nodes", "--ntasks-per-node", "--num-cpus", "--num-gpus", "--port"),
}
"""Flags of other programs that the pages mention."""


def page(name: str) -> str:
    return (DOCS / name).read_text()


def blocks(name: str, mark: str) -> dict[str, str]:
    """Marked blocks of a page: name → text; blocks without a name are numbered."""
    found = [match for match in BLOCK.finditer(page(name)) if match["mark"] == mark]
    return {match["name"] or str(number): match["text"] for number, match in enumerate(found)}


def write_files(name: str, folder: Path) -> None:
    for file, text in blocks(name, "file").items():
        (folder / file).write_text(text)


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Runs a command as a user would in a folder; returns what it printed."""
    program = {"merge": "merging", "pytest": "pytest", "python": ""}[command[0]]
    head = [sys.executable, "-m", program] if program else [sys.executable]
    script = shutil.which(command[0], path=str(Path(sys.executable).parent))
    head = [script] if script and program == "merging" else head
    done = subprocess.run(
        [*head, *command[1:]],
        cwd=folder,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_commands(name: str, folder: Path, *, more: str = "", merge: Merge | None = None) -> dict[str, str]:
    """Runs every command that a page gives, in order; returns command → output.

    ``more`` goes to ``merge run``. ``merge`` runs the program in this process, in the folder that is the working one:
    for commands that load libraries of seconds.
    """
    said = {}
    for line in (line for text in blocks(name, "run").values() for line in text.splitlines() if line):
        command = shlex.split(f"{line} {more}" if line[:9] == "merge run" else line)
        if merge is not None and command[0] == "merge":
            done = merge(*command[1:])
            assert done.code == 0, f"{line}\n{done.out}{done.err}"
            said[line] = done.out
        else:
            said[line] = run(command, folder)
    return said


@pytest.mark.slow
def test_strategy_example(tmp_path: Path) -> None:
    write_files("write-a-strategy.md", tmp_path)
    assert len((tmp_path / "top_k.py").read_text().splitlines()) <= 30
    tiny_pool(tmp_path / "pool", models=5)
    small = "--task python:merging.testing.fixtures:tiny_task --models 'pool/model_*.safetensors'"
    said = run_commands("write-a-strategy.md", tmp_path, more=small)
    assert len(said) == 6
    new, described, *others = said.values()
    assert "best_two.py is a strategy that works" in new
    assert "largest k that is tried" in described
    listed, described, _, tested = others
    assert "top-k" in listed
    assert "largest k that is tried" in described
    assert int(re.search(r"(\d+) passed", tested)[1]) >= 20  # type: ignore[index]
    report = json.loads((tmp_path / "runs/top-k/report.json").read_text())
    assert (report["strategy"], report["status"]) == ("top-k", "finished")
    assert report["options"] == {"largest": 5}
    assert report["validation"]["merged"] >= report["validation"]["best_single"]


@pytest.mark.slow
def test_watching(tmp_path: Path, merge: Merge) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard comes with dev-full")
    write_files("watching.md", tmp_path)
    tiny_pool(tmp_path / "pool", models=4)
    small = (
        "[task]\nname = 'python:merging.testing.fixtures:tiny_task'\n[pool]\nmodels = ['pool/model_*.safetensors']\n"
    )
    (tmp_path / "merge.toml").write_text(small)
    trusted = {"run": ["--trust-code"], "benchmark": ["--trust-code"]}
    said = run_commands(
        "watching.md", tmp_path, merge=lambda name, *more: merge(name, *more, *trusted.get(str(name), []))
    )
    assert "tensorboard  curves" in next(iter(said.values()))
    curves = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events.out.tfevents.*")}
    assert {f"runs/first/tensorboard/{name}" for name in ("best", "uniform", "greedy")} < curves
    assert {f"boards/compared/{name}.whole.seed0" for name in ("best", "uniform", "greedy")} < curves
    lines = (tmp_path / "runs/second/scores-file/scores.csv").read_text().splitlines()
    assert lines[0] == "evaluations,strategy,score,best"
    assert lines[-1].startswith("finished,greedy soup")
    told = (tmp_path / "told.txt").read_text().splitlines()
    assert [line.split(" takes ")[0] for line in told[:-1]] == ["greedy"] * (len(told) - 1)
    assert told[-1].startswith("finished: greedy soup")


def test_what_a_sink_is_told_is_listed() -> None:
    """Each field of the values, and each event that is written."""
    text = page("watching.md").partition("### What a sink is told")[2]
    names = set(re.findall(r"`(\w+)(?:\(\w+, \w+\))?`", text))
    for kind in (SinkRun, SinkEvent, SinkEnd):
        public = {name for name in vars(kind) if not name.startswith("_")} | set(kind.__dataclass_fields__)
        assert public <= names, kind
    package = Path(merging.__file__).parent
    written = {
        name
        for path in package.rglob("*.py")
        for name in re.findall(r'(?:journal|log)\.write\("(\w+)"', path.read_text())
    }
    rows = set(re.findall(r"^\| `(\w+)` \| ", text.partition("| event |")[2].partition("| of `SinkEnd`")[0], re.M))
    assert rows == written
    assert "run" in written


@pytest.mark.slow
def test_adapters(tmp_path: Path, merge: Merge) -> None:
    golden = ROOT / "tests/storage/adapters"
    shutil.copytree(golden / "bases/vit", tmp_path / "base")
    for name in ("plain", "patterns", "rooted", "dora"):
        shutil.copytree(golden / "adapters" / name, tmp_path / "adapters" / name)
        config = tmp_path / "adapters" / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "base"}))
    said = run_commands("adapters.md", tmp_path, merge=merge)
    assert "rsLoRA adapter of rank 5" in " ".join(list(said.values())[2].split())
    assert "exact: nothing of the merge is left out" in " ".join(list(said.values())[4].split())
    assert "energy" in " ".join(list(said.values())[5].split())
    assert all((tmp_path / name / "adapter_config.json").is_file() for name in ("sum", "small", "again"))
    means = [load_file(tmp_path / name / "model.safetensors") for name in ("mean", "agreed")]
    assert means[0].keys() == means[1].keys() == load_file(tmp_path / "base/model.safetensors").keys()


@pytest.mark.slow
def test_many_workers(tmp_path: Path, merge: Merge, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands that a machine without GPUs can run, but for those of Ray."""
    tiny_pool(tmp_path / "pool", models=4)
    (tmp_path / "merge.toml").write_text(
        '[task]\nname = "python:merging.testing.fixtures:tiny_task"\n[pool]\nmodels = ["pool/model_*.safetensors"]\n'
    )
    said = list(run_commands("cluster.md", tmp_path, merge=merge, more="--trust-code").values())
    alone, two = tmp_path / "runs/alone", tmp_path / "runs/two"
    assert (alone / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    told = ["evaluated on 2 workers: cpu (" in " ".join(text.split()) for text in said]
    assert told == [False, True, False], "the last one went on without"
    reports = [json.loads((folder / "report.json").read_text()) for folder in (alone, two)]
    assert [report["numerics"]["threads"] for report in reports] == [1, 1]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"alone", "two"}, "nothing is left over"
    (program,) = blocks("cluster.md", "run-python").values()
    exec(program, {})  # noqa: S102 (our own page)
    assert len(re.findall(r", process \d+ cpu \(.*\).* \d+$", capsys.readouterr().out, re.MULTILINE)) == 2


@pytest.mark.slow
def test_workers_on_ray(tmp_path: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch, ray_nodes: Any) -> None:
    """On the cluster that is there: RAY_ADDRESS says where, as for any program of Ray."""
    tiny_pool(tmp_path / "pool", models=4)
    (tmp_path / "merge.toml").write_text(
        '[task]\nname = "python:merging.testing.fixtures:tiny_task"\n[pool]\nmodels = ["pool/model_*.safetensors"]\n'
    )
    monkeypatch.setenv("RAY_ADDRESS", ray_nodes.address)
    (command,) = blocks("cluster.md", "run-ray").values()
    ran = merge(*shlex.split(command)[1:], "--trust-code")
    assert ran.code == 0, ran.err
    assert "evaluated on 2 workers: cpu (" in " ".join(ran.out.split())


@pytest.fixture
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny Llamas that learned of this project's pages, and texts that choose and test."""
    from benchmarks.language import corpus, models, training

    folder, seen = tmp_path_factory.mktemp("llamas"), set[str]()
    texts = {name: list(corpus._samples(page(name), seen)) for name in ("concepts.md", "data.md", "files.md")}
    for domain, name in {"general": "concepts.md", "manuals": "data.md", "essays": "files.md"}.items():
        corpus._write(folder / f"{domain}_train.jsonl", ({"text": text} for text in texts[name]))
    held = list(corpus._samples(page("performance.md"), seen))
    for number, part in enumerate(("held-out", "test")):
        rows = [text[:200] for text in held[number:24:2]]
        corpus._write(folder / f"{part}.jsonl", ({"text": text} for text in rows))
    base, small = tmp_path_factory.mktemp("base"), {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 300}
    models.make_tokenizer(folder, base, 300)
    few = training.Recipe(steps=30, rate=1e-2, batch=4, length=48)
    models.pretrain(
        folder,
        base,
        few,
        models.SHAPE | small | {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2},
    )
    for name, domain in {"writer": "essays", "coder": "manuals"}.items():
        told = {"steps": 8, "rate": 2e-3, "batch": 4, "length": 48, "rank": None}
        models.finetune(folder, base, domain, folder / "models" / name, told)
    for file in folder.glob("*_train.jsonl"):
        file.unlink()
    return folder


@pytest.mark.slow
def test_language_models(tmp_path: Path, merge: Merge, llamas: Path) -> None:
    """From two folders and files of texts to merges that were measured."""
    shutil.copytree(llamas, tmp_path, dirs_exist_ok=True)
    write_files("language-models.md", tmp_path)
    said = run_commands("language-models.md", tmp_path, merge=merge)
    greedy, tuned, both = (json.loads((tmp_path / n / "report.json").read_text()) for n in ("greedy", "tuned", "both"))
    assert greedy["objective"] == "nll"
    assert "perplexity" in said["merge run --strategy greedy --output greedy"]
    assert tuned["validation"]["merged"] < 0, "a log-likelihood"
    assert both["rows"]


@pytest.mark.slow
def test_from_mergekit(tmp_path: Path, merge: Merge) -> None:
    tiny_pool(tmp_path / "pool", models=2)
    for name, file in {"base": "base", "poet": "model_0", "coder": "model_1"}.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        shutil.copy(tmp_path / f"pool/{file}.safetensors", tmp_path / "models" / name / "model.safetensors")
        (tmp_path / "models" / name / "config.json").write_text("{}")
    (tmp_path / "task.toml").write_text('[task]\nname = "python:merging.testing.fixtures:tiny_task"\n')
    write_files("from-mergekit.md", tmp_path)
    said = run_commands("from-mergekit.md", tmp_path, merge=merge, more="--trust-code")
    assert len(said) == 6
    once, again = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "again"))
    assert all(torch.equal(once[name], again[name]) for name in once)
    scored, tuned = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("scored", "tuned"))
    assert scored["options"]["scale"] == 0.9
    assert tuned["validation"]["merged"] >= 0
    methods = {
        name
        for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `[\w-]+`", page("from-mergekit.md"), re.MULTILINE)
        for name in re.findall(r"\w+", row)
    }
    assert methods == set(METHODS)


@pytest.mark.slow
def test_examples_of_the_other_kinds(tmp_path: Path) -> None:
    write_files("write-a-strategy.md", tmp_path)
    kinds = {"by_kind.ByKind": "Partitioner", "climb.Climb": "Optimizer", "balanced_nll.BalancedNLL": "Objective"}
    kinds |= {"thrifty.Thrifty": "Strategy", "flatness.Flatness": "Strategy"}
    tests = ["import pytest, merging.testing"]
    for example, kind in kinds.items():
        module, name = example.split(".")
        tests += [
            f"import {module}",
            f"class Test{name}(merging.testing.{kind}Contract):",
            "    @pytest.fixture",
            f"    def plugin(self): return {example}()",
        ]
    (tmp_path / "test_others.py").write_text("\n".join(tests) + "\n")
    said = run(["pytest", "-q", "-p", "no:cacheprovider", "test_others.py"], tmp_path)
    assert int(re.search(r"(\d+) passed", said)[1]) >= 40  # type: ignore[index]


@pytest.mark.slow
def test_the_other_kinds(tmp_path: Path) -> None:
    """A task, a model source, a form of data and a regime, from their page alone."""
    write_files("write-a-task.md", tmp_path)
    described, _, trained, merged, tested = run_commands("write-a-task.md", tmp_path, more="--no-tests").values()
    assert "of the held-out data, and of each test set (default 200)" in described
    assert "2 models" in trained
    assert "300 held-out samples" in merged
    assert int(re.search(r"(\d+) passed", tested)[1]) >= 40  # type: ignore[index]
    names: dict[str, object] = {}
    exec((tmp_path / "mine.py").read_text(), names)  # noqa: S102 (our own page)
    source: merging.ModelSource = names["Mine"]("small", {})  # type: ignore[operator]
    (tmp_path / "checkpoints").mkdir()
    for seed in range(3):
        state = source.module(3).state_dict()
        generator = torch.Generator().manual_seed(seed)
        noisy = {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in state.items()}
        save_file(noisy, tmp_path / f"checkpoints/{seed}.safetensors")
    for name, classes in (("held_out", ["cat", "dog", "bird"]), ("test", ["owl", "cat", "dog"])):
        images = torch.randint(0, 256, (30, 20, 20, 3), generator=generator, dtype=torch.uint8)
        values = {"images": images, "labels": torch.arange(30) % 3, "classes": classes}
        torch.save(values, tmp_path / f"{name}.pt")
    (command,) = re.findall(r"^merge run .*animals.*$", page("write-a-task.md"), re.MULTILINE)
    run([*shlex.split(command), "--output", "out"], tmp_path)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert (report["task"], report["status"]) == ("mine:small", "finished")


def test_entry_point_example(tmp_path: Path) -> None:
    points = tomllib.loads(blocks("write-a-strategy.md", "part")["pyproject.toml"])["project"]["entry-points"]
    ((group, entries),) = points.items()
    ((name, target),) = entries.items()
    module, _, _ = target.partition(":")
    file = tmp_path / (module.replace(".", "/") + ".py")
    file.parent.mkdir(parents=True)
    file.write_text(blocks("write-a-strategy.md", "file")["top_k.py"])
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    listed = json.loads(run(["merge", "list", "--json"], tmp_path, PYTHONPATH=str(tmp_path)))
    assert name in listed["strategy"]


@pytest.mark.slow
def test_python_api_examples(tmp_path: Path) -> None:
    programs = blocks("python-api.md", "run-python")
    assert len(programs) == 8
    for name, text in programs.items():
        (tmp_path / f"example_{name}.py").write_text(text)
    everything = "import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path, run_name='__main__')"
    said = run(["python", "-c", everything, *(f"example_{name}.py" for name in programs)], tmp_path)
    assert "manifold mix" in said
    assert "from the best single model (model_" in said
    assert "best so far" in said


@pytest.mark.slow
def test_own_models(tmp_path: Path, merge: Merge) -> None:
    """The commands of getting-started on a small pool, with its merge.toml, model and data layout."""
    write_files("getting-started.md", tmp_path)
    read_toml(tmp_path / "merge.toml")
    names: dict[str, object] = {}
    exec((tmp_path / "my_model.py").read_text(), names)  # noqa: S102 (our own page)
    model = names["build"]()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    arrays = {}
    for split in ("held_out", "test", "sketch"):
        images = torch.randint(0, 256, (60, 12, 12, 3), generator=generator, dtype=torch.uint8)
        arrays[f"{split}_images"] = images.numpy()
        arrays[f"{split}_labels"] = np.arange(60) % 10
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(blocks("getting-started.md", "part")["write_data.py"], dict(arrays))  # noqa: S102
    (tmp_path / "checkpoints").mkdir()
    for number in range(3):
        state = {
            name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in model.state_dict().items()
        }
        torch.save(state, tmp_path / f"checkpoints/model_{number}.pt")

    checked, merged, applied = run_commands("getting-started.md", tmp_path, merge=merge).values()
    assert "Nothing was evaluated or written" in checked
    assert "manifold mix" in merged
    assert "rebuilt.safetensors" in applied
    listed = {match for match in re.findall(r"^\| `([\w.]+)` \|", page("getting-started.md"), re.MULTILINE)}
    assert {path.name for path in (tmp_path / "runs/first").iterdir()} == listed
    load = blocks("getting-started.md", "part")["load.py"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.syspath_prepend(str(tmp_path))
        patch.delitem(sys.modules, "my_model", raising=False)
        exec(load, names)  # noqa: S102
        patch.delitem(sys.modules, "my_model")
    rebuilt = load_file(tmp_path / "rebuilt.safetensors")
    assert all(rebuilt[name].equal(tensor) for name, tensor in names["model"].state_dict().items())  # type: ignore[attr-defined]


def test_run_table_is_documented() -> None:
    text = page("getting-started.md")
    assert [key for key in RunTable.model_fields if f"`{key}`" not in text] == []


def test_profiles_table() -> None:
    table = page("concepts.md").partition("<!-- profiles: manifoldmix -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    written = {row[0]: (row[1], row[2]) for row in rows}
    assert len(written) == len(rows)
    declared = {
        option.name: tuple(shown(option.default_in(profile)) for profile in ("paper", "reference"))
        for option in options_of(merging.ManifoldMix)
        if option.name != "profile"
    }
    assert written == declared


def shown(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_optimizers_table() -> None:
    """It is what the committed figures render to, and every optimizer has a line."""
    data = json.loads((DOCS / "optimizers.json").read_text())
    assert page("optimizers.md").partition("<!-- optimizers -->\n")[2].startswith(render(data))
    load_all(())
    assert {row["optimizer"].split()[0] for row in data["rows"]} == set(optimizers)


def test_methods_table() -> None:
    """It is what the committed figures render to, and every strategy has a line."""
    data = json.loads((DOCS / "methods.json").read_text())
    assert page("methods.md").partition("<!-- methods -->\n")[2].startswith(methods.render(data))
    load_all(())
    own = {name for name in strategies if strategies[name].__module__.startswith("merging.")}  # others' tests have some
    assert {row["strategy"] for row in data["rows"]} == own
    assert [row["method"] for row in data["rows"]] == list(methods.METHODS)


def test_problem_table() -> None:
    text = page("write-a-strategy.md")
    table = text.partition("## What `problem` offers")[2].partition("\n## ")[0]
    members = {name for name in vars(Problem) if name[0] != "_"}
    assert set(re.findall(r"\| `problem\.(\w+)", table)) == members
    assert set(re.findall(r"problem\.(\w+)", text)) <= members
    named = re.search(r"a subset of (.*?)\. The core", text, re.DOTALL)
    assert named is not None
    assert set(re.findall(r"`(\w+)`", named[1])) <= NEEDS


def test_arguments_table() -> None:
    text = page("python-api.md")
    table = text.partition("## `merging.merge(")[2].partition("\n## ")[0]
    first = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(\w+)`", first)) == set(inspect.signature(merging.merge).parameters)
    fields = re.search(r"`report.rows` has one row for each strategy: (.*?)\. `report", text, re.DOTALL)
    assert fields is not None
    assert set(re.findall(r"`(\w+)`", fields[1])) == {field for field in Row.__dataclass_fields__}


def test_layers_are_those_of_pyproject() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["name"] == "layers")
    text = page("architecture.md").partition("<!-- layers -->\n```\n")[2].partition("```")[0]
    assert text.splitlines() == layers


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_names_exist(path: Path) -> None:
    """Every `merging.…` is a module or an attribute, every --flag is one of the command line's."""
    text, groups = path.read_text(), {registry.group for registry in PLUGINS.values()}
    for name in sorted(set(re.findall(r"`(merging(?:\.\w+)+)", text))):
        if not is_module(name) and name not in groups:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # what docs/moved.md says has moved
                pkgutil.resolve_name(name)
    commands = [cli.get_command(None, name) for name in COMMANDS]  # type: ignore[arg-type]
    flags = {flag for command in commands for p in command.params for flag in (*p.opts, *p.secondary_opts)}  # type: ignore[union-attr]
    used = set(re.findall(r"(?<![\w!-])--[a-z][a-z-]+", text))
    assert used - flags - NOT_OURS - {"--help", "--version"} == set()


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_resolve(path: Path) -> None:
    text = FENCED.sub("", path.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path.name} links to {link}; anchors: {sorted(anchors(target))}"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_page_names_a_version_that_is_not_ours() -> None:
    """Versions in prose grow stale; where one is named it is this one."""
    for path in PAGES:
        assert set(re.findall(r"merging (\d+\.\d+\.\d+)", path.read_text())) <= {version("merging")}
