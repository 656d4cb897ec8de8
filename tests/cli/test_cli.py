"""The command line, through its real entry point."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.plugins.registry import KINDS, PLUGINS
from merging.testing import TinyNet
from tests.conftest import ENVIRONMENT, TASK, Merge


def test_run_writes_a_whole_folder(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    ran = merge(*tiny, "--budget", "20", "--output", "out")
    assert ran.code == 0, ran.err
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "README.md",
        "events.jsonl",
        "model.safetensors",
        "recipe.json",
        "report.json",
    ]
    model = TinyNet()
    model.load_state_dict(load_file("out/model.safetensors"), strict=True)
    report = json.loads(Path("out/report.json").read_text())
    assert report["strategy"] == "manifoldmix"
    assert report["partitioner"] == "layer"
    assert (report["components"], report["active_components"]) == (4, 2)
    assert report["ingredients"]
    assert len(report["decisions"]) == 4, "every candidate's decision is reported, with its accuracies"
    assert all({"candidate", "incumbent", "average", "accepted"} <= set(d) for d in report["decisions"])
    assert report["evaluations"] > 5
    assert report["cached"] >= 0
    assert 0 < report["forward_equivalents"] <= report["evaluations"]
    assert report["wall_seconds"] > 0
    assert report["peak_memory_bytes"] > 1e6
    assert report["validation"]["merged"] >= report["validation"]["best_single"]
    assert set(report["tests"]) == {"test", "shifted"}
    assert set(report["tests"]["test"]) == {"best_single", "merged"}
    assert [row["strategy"] for row in report["rows"]] == ["best", "uniform", "greedy", "manifoldmix"]
    for text in ("best single model", "uniform soup", "greedy soup", "manifold mix", "McNemar", "evaluations"):
        assert text in ran.out
    card = Path("out/README.md").read_text()
    assert "merge run --models" in card
    assert report["content_hash"] in card


def test_the_reported_scores_are_those_of_the_saved_model(merge: Merge, tiny: list[str]) -> None:
    merge(*tiny, "--budget", "20", "--output", "out")
    report = json.loads(Path("out/report.json").read_text())
    from merging.testing import tiny_task

    model, task = TinyNet(), tiny_task()
    model.load_state_dict(load_file("out/model.safetensors"))
    with torch.inference_mode():
        for name, split in {"held-out": task.held_out, **task.tests}.items():
            accuracy = float((model(split.inputs).argmax(1) == split.labels).double().mean())
            said = report["validation"]["merged"] if name == "held-out" else report["tests"][name]["merged"]
            assert said == pytest.approx(accuracy)


def test_apply_rebuilds_the_same_bits(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    merge(*tiny, "--budget", "10", "--output", "out", "--no-tests")
    assert merge("apply", "out/recipe.json", "--output", "again.safetensors").code == 0
    assert Path("again.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    moved = merge("apply", "out", "--models", pool_folder, "--output", "third.pt")
    assert moved.code == 0, moved.err
    state, third = load_file("out/model.safetensors"), torch.load("third.pt", weights_only=True)
    assert all(torch.equal(third[name], tensor) for name, tensor in state.items())
    refused = merge("apply", "out", "--output", "again.safetensors")
    assert refused.code == 2
    assert "--overwrite" in refused.err


def test_apply_refuses_a_changed_ingredient(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    merge(*tiny, "--budget", "5", "--output", "out", "--no-tests")
    data = json.loads(Path("out/recipe.json").read_text())
    data["ingredients"][0]["hash"] = "0" * 64
    Path("changed.json").write_text(json.dumps(data))
    ran = merge("apply", "changed.json", "--output", "x.safetensors")
    assert ran.code == 2
    assert "has changed since the recipe was written" in ran.err
    assert not Path("x.safetensors").exists()


def test_weights_only_strategy_needs_no_task(merge: Merge, pool_folder: Path) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", pool_folder / "model_*.safetensors", "--output", "soup")
    assert ran.code == 0, ran.err
    soup = load_file("soup/model.safetensors")
    files = sorted(pool_folder.glob("model_*.safetensors"))
    for name in ("fc1.weight", "fc2.bias", "unused"):
        mean = sum(load_file(file)[name].double() / len(files) for file in files)
        assert torch.allclose(soup[name].double(), mean, rtol=1e-7, atol=1e-8)
    assert torch.equal(soup["steps"], load_file(files[0])["steps"])


def test_format_pt(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--budget", "5", "--output", "out", "--format", "pt", "--no-tests", "--no-baselines")
    assert ran.code == 0, ran.err
    TinyNet().load_state_dict(torch.load("out/model.pt", weights_only=True), strict=True)
    report = json.loads(Path("out/report.json").read_text())
    assert [row["strategy"] for row in report["rows"]] == ["manifoldmix"]
    assert report["tests"] == {}


def test_dry_run_writes_and_evaluates_nothing(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--dry-run", "--output", "out")
    assert ran.code == 0, ran.err
    assert "inert" in ran.out
    assert "Everything fits." in ran.out
    assert not Path("out").exists()


def test_default_output_is_a_dated_folder(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--no-tests").code == 0
    folders = list(Path("runs").iterdir())
    assert len(folders) == 1
    assert folders[0].name.endswith("-uniform")


def test_max_evaluations_ends_the_whole_run(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--max-evaluations", "12", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert report["evaluations"] == 12
    assert "max-evaluations 12 reached" in report["status"]
    assert "merge run --resume" in ran.err


def test_freeze_keeps_the_best_models_values(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    merge(*tiny, "--budget", "30", "--freeze", "fc1", "--output", "out", "--no-tests", "--objective", "nll")
    report = json.loads(Path("out/report.json").read_text())
    assert report["active_components"] == 1
    assert len(report["ingredients"]) > 1
    merged = load_file("out/model.safetensors")
    first = load_file(pool_folder / f"{report['ingredients'][0]}.safetensors")
    assert torch.equal(merged["fc1.weight"], first["fc1.weight"])
    assert not torch.equal(merged["fc2.weight"], first["fc2.weight"])


def test_merge_toml_in_the_working_folder(merge: Merge, pool_folder: Path) -> None:
    Path("merge.toml").write_text(
        f'[task]\nname = "{TASK}"\n[pool]\nmodels = ["{pool_folder}/model_*.safetensors"]\n'
        '[run]\nstrategy = "greedy"\noutput = "from-toml"\noptions.strategy.order = "random"\n'
        'options."strategy.orders" = 2\n'
    )
    refused = merge("run")
    assert refused.code == 2
    assert "--trust-code" in refused.err
    ran = merge("run", "--trust-code")
    assert ran.code == 0, ran.err
    report = json.loads(Path("from-toml/report.json").read_text())
    assert report["options"] == {"order": "random", "orders": 2, "accept_ties": False}
    flagged = merge("run", "--trust-code", "--strategy", "uniform", "--output", "flags-win")
    assert flagged.code == 2, "strategy options of greedy do not fit uniform"
    assert "unknown option of 'uniform'" in flagged.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tsak]\n", "did you mean 'task'?"),
        ("[run]\nstrategi = 'x'\n", "did you mean 'strategy'?"),
        ("[run]\nbudget = 'many'\n", "run.budget"),
        ("[run\n", "merge.toml"),
        ("[task]\nmodel = 'open_clip:ViT-B-32'\n", "held_out"),
    ],
)
def test_merge_toml_mistakes(merge: Merge, text: str, said: str) -> None:
    Path("merge.toml").write_text(text)
    ran = merge("run")
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.strip().count("\n") <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy", "gredy"], "did you mean 'greedy'?"),
        (["--partitioner", "clip-c9"], "did you mean 'clip-c"),
        (["--optimizer", "cobyla"], "did you mean 'scipy-cobyla'?"),
        (["--objective", "acuracy"], "did you mean 'accuracy'?"),
        (["-o", "strategy.tua=1"], "did you mean 'tau'?"),
        (["-o", "strategi.tau=1"], "did you mean 'strategy'?"),
        (["-o", "strategy.tau=3"], "between 0 and 1"),
        (["-o", "strategy.tau"], "kind.option=value"),
        (["-o", "strategy.profile=papr"], "did you mean 'paper'?"),
        (["--budget", "0"], "at least 1"),
        (["--max-evaluations", "2"], "does not even rank"),
        (["--seed", "-1"], "seed"),
        (["--freeze", "nothing-like-this"], "matches no component"),
        (["--freeze", "("], "not a regular expression"),
        (["--device", "cdua"], "did you mean 'cuda'?"),
        (["--partitioner", "clip-c8"], "--partitioner layer"),
        (["--partitioner", "custom", "-o", "partitioner.patterns=head=fc2"], "fc1.weight"),
        (["--task", "digts"], "did you mean 'digits'?"),
        (["--task", "python:nowhere:task"], "importing nowhere failed"),
        (["--base", "nowhere.pt"], "no such checkpoint"),
        (["--task", "digits"], "does not fit the task's model"),
        (["--output", __file__], "is a file"),
        (["--resume", "nowhere"], "nothing to resume"),
        (["--plugin", "nowhere.py"], "no such file"),
    ],
)
def test_mistakes_are_one_line(merge: Merge, tiny: list[str], arguments: list[str], said: str) -> None:
    ran = merge(*tiny, "--output", "out", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert sum(line.startswith("error:") for line in ran.err.splitlines()) == 1
    assert not Path("out").exists()


def test_no_models_match(merge: Merge) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", "nothing/*.pt")
    assert ran.code == 2
    assert "no models match" in ran.err
    assert "nothing/*.pt'" in ran.err


def test_one_model_where_two_are_needed(merge: Merge, pool_folder: Path) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", pool_folder / "model_0.safetensors")
    assert ran.code == 2
    assert "needs at least 2 models, got 1" in ran.err


def test_occupied_folder_is_refused_unless_overwrite(merge: Merge, tiny: list[str]) -> None:
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    quick = [*tiny, "--strategy", "uniform", "--no-tests", "--no-baselines", "--output", "out"]
    assert "holds other files" in merge(*quick).err
    assert merge(*quick, "--overwrite").code == 0
    assert Path("out/notes.txt").read_text() == "mine"
    assert "holds another run" in merge(*quick).err
    assert merge(*quick, "--overwrite", "--format", "pt").code == 0
    assert not Path("out/model.safetensors").exists(), "nothing stale is left"


def test_unknown_command(merge: Merge) -> None:
    ran = merge("rnu")
    assert ran.code == 2
    assert "did you mean 'run'?" in ran.err


def test_list_and_describe_show_every_plugin(merge: Merge) -> None:
    listed = json.loads(merge("list", "--json").out)
    assert {kind: sorted(registry) for kind, registry in PLUGINS.items()} == {k: sorted(v) for k, v in listed.items()}
    table = merge("list").out
    for kind, entries in listed.items():
        for name in entries:
            assert name in table
            found = json.loads(merge("describe", name, "--json").out)  # a list where two kinds share a name
            (data,) = [entry for entry in (found if isinstance(found, list) else [found]) if entry["kind"] == kind]
            assert data["name"] == name
            text = merge("describe", name).out
            assert all(option["name"] in text and option["help"] for option in data["options"]), name
    tau = next(o for o in json.loads(merge("describe", "manifoldmix", "--json").out)["options"] if o["name"] == "tau")
    assert (tau["low"], tau["high"], tau["profiles"]) == (0.0, 1.0, {"paper": 0.998, "reference": 0.998})


def test_plugin_file_reaches_the_command_line(merge: Merge, tiny: list[str]) -> None:
    Path("mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from merging import MixStrategy\n"
        "from merging.plugins.registry import strategies\n"
        "@strategies.register('first-two')\n"
        "@dataclass(frozen=True)\n"
        "class FirstTwo(MixStrategy):\n"
        "    '''The mean of the first two.'''\n"
        "    summary: ClassVar[str] = 'the mean of the first two'\n"
        "    min_models: ClassVar[int] = 2\n"
        "    def mix(self, problem):\n"
        "        return problem.mean([0, 1])\n"
    )
    try:
        ran = merge(*tiny, "--plugin", "mine.py", "--strategy", "first-two", "--output", "out", "--no-baselines")
        assert ran.code == 0, ran.err
        assert json.loads(Path("out/report.json").read_text())["ingredients"] == ["model_0", "model_1"]
        Path("clash.py").write_text(Path("mine.py").read_text())
        assert "already registered" in merge("list", "--plugin", "clash.py").err
    finally:
        KINDS["strategy"]._classes.pop("first-two", None)


def test_broken_plugin_file(merge: Merge) -> None:
    Path("broken.py").write_text("1 / 0\n")
    ran = merge("list", "--plugin", "broken.py")
    assert ran.code == 2
    assert "ZeroDivisionError" in ran.err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['merge', '--help']\n"
        "from merging.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'rich', 'pydantic', 'nevergrad', 'open_clip'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    began = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Commands:" in ran.stdout
    assert time.perf_counter() - began < 10, "far above the half second it takes: something heavy is imported"


def test_versions_are_those_of_what_is_installed(merge: Merge) -> None:
    ran = merge("--version")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert first == f"merge, version {importlib.metadata.version('merging')}"
    assert f"torch {importlib.metadata.version('torch')}" in second.split(", ")
    assert second.startswith(f"Python {platform.python_version()} on ")


def test_python_dash_m_is_the_same() -> None:
    shown = [
        subprocess.run([*start, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
        for start in ([sys.executable, "-m", "merging"], [str(Path(sys.executable).parent / "merge")])
    ]
    assert shown[0].splitlines()[1:] == shown[1].splitlines()[1:]


def test_batchnorm_statistics_are_never_averaged_in_silence(merge: Merge, tmp_path: Path) -> None:
    for number in range(2):
        state = torch.nn.BatchNorm1d(3).state_dict() | {"running_mean": torch.full((3,), float(number))}
        torch.save({f"block.norm.{name}": tensor for name, tensor in state.items()}, f"bn_{number}.pt")
    ran = merge("run", "--strategy", "uniform", "--models", "bn_*.pt", "--output", "out")
    assert ran.code == 0, ran.err
    assert "BatchNorm statistics of 1 layer (block.norm) were averaged" in ran.out
    assert "block.norm" in ran.out


PLUGIN = """
from dataclasses import dataclass
from merging import MixStrategy
from merging.plugins.registry import strategies

@strategies.register('broken')
@dataclass(frozen=True)
class Broken(MixStrategy):
    '''Breaks.'''
    def mix(self, problem):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return None", 2, "returned None, not a Recipe"),
        ("return 1 / 0", 1, "ZeroDivisionError: division by zero (at"),
    ],
)
def test_broken_strategies_are_one_line(merge: Merge, tiny: list[str], body: str, code: int, said: str) -> None:
    Path("broken.py").write_text(PLUGIN.format(body=body))
    try:
        ran = merge(*tiny, "--plugin", "broken.py", "--strategy", "broken", "--output", "out")
        assert ran.code == code
        assert said in ran.err
        assert not Path("out/model.safetensors").exists()
    finally:
        KINDS["strategy"]._classes.pop("broken", None)


@pytest.mark.parametrize(
    ("forward", "said"),
    [("nn.Linear(7, 3)", "the model cannot take the held-out data"), ("nn.Flatten(0)", "not (N, classes)")],
)
def test_models_that_do_not_fit_the_data(merge: Merge, tmp_path: Path, forward: str, said: str) -> None:
    name = f"unfit_{'linear' if 'Linear' in forward else 'flat'}"
    Path(f"{name}.py").write_text(
        "import torch\nfrom torch import nn\nfrom merging.plugins.task import Task\n"
        "from merging.testing import blobs\n\n\n"
        "def build(pool):\n    return Net()\n\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = nn.Linear(4, 4)\n\n"
        f"    def forward(self, x):\n        return {forward}(self.scale(x))\n\n\n"
        "def task():\n    return Task(name='unfit', build=build, held_out=blobs(20, seed=0))\n"
    )
    state = {f"scale.{key}": tensor for key, tensor in torch.nn.Linear(4, 4).state_dict().items()}
    for number in range(2):
        torch.save(state, f"m{number}.pt")
    ran = merge("run", "--models", "m*.pt", "--task", f"python:{name}:task", "--output", "out")
    assert ran.code == 2
    assert said in ran.err


def test_overwrite_never_touches_what_no_run_wrote(merge: Merge, pool_folder: Path) -> None:
    """A folder of checkpoints, one called model.safetensors, and the user's own README."""
    Path("soup").mkdir()
    for number, name in enumerate(["model.safetensors", "b.safetensors"]):
        Path("soup", name).write_bytes((pool_folder / f"model_{number}.safetensors").read_bytes())
    Path("soup/README.md").write_text("mine")
    before = {path.name: path.read_bytes() for path in Path("soup").iterdir()}
    ran = merge("run", "--strategy", "uniform", "--models", "soup/*.safetensors", "--output", "soup", "--overwrite")
    assert ran.code == 2
    assert "choose another --output" in ran.err
    assert {path.name: path.read_bytes() for path in Path("soup").iterdir()} == before


def test_a_merge_of_merges_does_not_overwrite_its_ingredient(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out").code == 0
    before = Path("out/model.safetensors").read_bytes()
    again = ["run", "--strategy", "uniform", "--models", "out/model.safetensors", "--models", pool_folder]
    ran = merge(*again, "--output", "out", "--overwrite")
    assert ran.code == 2
    assert "is merged and would be overwritten" in ran.err
    assert Path("out/model.safetensors").read_bytes() == before


def test_overwrite_keeps_the_old_result_until_there_is_a_new_one(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out").code == 0
    before = Path("out/model.safetensors").read_bytes()
    Path("fails.py").write_text(PLUGIN.format(body="return 1 / 0"))
    try:
        failed = merge(*tiny, "--plugin", "fails.py", "--strategy", "broken", "--output", "out", "--overwrite")
    finally:
        KINDS["strategy"]._classes.pop("broken", None)
    assert failed.code == 1
    assert Path("out/model.safetensors").read_bytes() == before
    Path("out/events.jsonl").write_text("damaged\n")
    assert merge(*tiny, "--strategy", "greedy", "--no-tests", "--output", "out", "--overwrite").code == 0


def test_the_best_so_far_of_all_strategies_is_saved(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--max-evaluations", "12", "--no-tests", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    rows = {row["strategy"]: row["held_out"] for row in report["rows"]}
    assert rows[report["saved"]] == max(rows.values()) > rows["manifoldmix"] == report["validation"]["merged"]
    assert "saved: the greedy soup, which was better than manifoldmix" in ran.out


def test_no_baselines_still_knows_the_best_single_model(merge: Merge, tiny: list[str]) -> None:
    merge(*tiny, "--no-baselines", "--no-tests", "--budget", "5", "--output", "out")
    report = json.loads(Path("out/report.json").read_text())
    assert report["validation"]["best_single"] is not None
    assert [(v["set"], v["p"] is not None) for v in report["verdicts"]] == [("held-out", True)]


def test_a_file_in_the_working_folder_shadows_nothing(merge: Merge, tiny: list[str]) -> None:
    Path("nevergrad.py").write_text("raise SystemExit('code of the working folder ran')\n")
    assert merge(*tiny, "--budget", "5", "--no-tests", "--output", "out").code == 0


def test_resumed_card_keeps_the_first_command(merge: Merge, tiny: list[str]) -> None:
    merge(*tiny, "--max-evaluations", "8", "--no-tests", "--output", "out")
    merge("run", "--resume", "out", "--trust-code", "--max-evaluations", "500")
    assert "merge run --models" in Path("out/README.md").read_text()


def test_changed_plugin_is_noticed_on_resume(merge: Merge, tiny: list[str]) -> None:
    Path("mine.py").write_text(PLUGIN.format(body="return problem.mean([0, 1])"))
    try:
        flags = ["--plugin", "mine.py", "--strategy", "broken", "--no-tests", "--output", "out"]
        assert merge(*tiny, *flags).code == 0
        Path("mine.py").write_text(PLUGIN.format(body="return problem.mean([0, 2])"))
        ran = merge("run", "--resume", "out", "--trust-code")
        assert ran.code == 2
        assert "plug-in file has changed" in ran.err
    finally:
        KINDS["strategy"]._classes.pop("broken", None)


@pytest.mark.parametrize("key", ["seed", "models", "options", "device", "plugin", "format", "folder"])
def test_damaged_request_in_the_journal(merge: Merge, tiny: list[str], key: str) -> None:
    merge(*tiny, "--strategy", "uniform", "--no-tests", "--no-baselines", "--output", "out")
    lines = Path("out/events.jsonl").read_text().splitlines(keepends=True)
    for damage in (None, ["x", 1], {"a": {}}):
        header = json.loads(lines[0])
        if damage is None:
            del header["request"][key]
        else:
            header["request"][key] = {"no": damage}
        Path("out/events.jsonl").write_text(json.dumps(header) + "\n" + "".join(lines[1:]))
        ran = merge("run", "--resume", "out", "--trust-code")
        assert ran.code == 2
        assert "damaged at" in ran.err


def test_full_disk_is_one_line_and_leaves_nothing_half_written(
    merge: Merge, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own device that is always full, where the model file would go."""
    from merging.storage import result

    real = result.save_model
    monkeypatch.setattr(result, "save_model", lambda path, *rest: (path.symlink_to("/dev/full"), real(path, *rest)))
    ran = merge(*tiny, "--strategy", "uniform", "--no-tests", "--output", "out", "--format", "pt")
    assert ran.code == 2
    assert "cannot write the result" in ran.err
    assert [path.name for path in Path("out").iterdir()] == ["events.jsonl"]


def test_savings_can_be_turned_off_and_change_nothing(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    made = {}
    for name, flags in (("on", []), ("off", ["--no-exact-savings"]), ("small", ["--cache-memory", "0"])):
        ran = merge(*tiny, "--strategy", "greedy", *flags, "--output", str(tmp_path / name))
        assert ran.code == 0, ran.err
        made[name] = (tmp_path / name / "recipe.json").read_text()
        request = json.loads((tmp_path / name / "events.jsonl").read_text().splitlines()[0])["request"]
        assert request["exact_savings"] is (False if name == "off" else None)
        assert request["cache_memory"] == (0 if name == "small" else None)
    assert made["on"] == made["off"] == made["small"]
