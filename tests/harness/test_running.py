"""lm-eval's tasks on models of this disk: its own numbers, in its own files, without the network."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from merging.errors import InterruptedRunError, TaskError
from merging.harness import comparing, network, results
from merging.harness.models import loadables
from merging.harness.running import run
from merging.plugins.watcher import Watcher
from tests.conftest import Merge
from tests.harness.conftest import TASKS_RUN, asked, lines


def test_numbers_and_samples_are_those_of_lm_evals_own_program(
    language: Path, scored: dict[str, results.Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import evaluator
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    from merging.harness.quiet import quiet

    monkeypatch.setattr(evaluator, "add_env_info", lambda told: None)  # which asks pip, compilers and drivers
    tracker = EvaluationTracker(output_path=str(tmp_path))
    with quiet(), network.no_network():
        told = evaluator.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(language / "models/a")},
            tasks=list(TASKS_RUN),
            batch_size=8,
            device="cpu",
            bootstrap_iters=0,
            evaluation_tracker=tracker,
            task_manager=TaskManager(include_path=str(language / "tasks"), include_defaults=False),
        )
        samples = told.pop("samples")
        tracker.save_results_aggregated(results=told, samples=samples)
        for task in samples:
            tracker.save_results_samples(task_name=task, samples=samples[task])
    (file,) = results.find([tmp_path]).values()
    theirs, ours = results.read(file), scored["a"]
    assert [*theirs.tasks] == [*ours.tasks]
    for name, task in ours.tasks.items():
        assert task.scores == theirs.tasks[name].scores
        assert (task.version, task.shots) == (theirs.tasks[name].version, theirs.tasks[name].shots)
    for task in ("quiz", "other", "prose", "said"):
        assert lines(ours, task) == lines(theirs, task)
    found = comparing.compared({"ours": ours, "theirs": theirs})
    assert all(verdict.tested and verdict.difference == 0 for verdict in found.models[1].verdicts)
    whole, other = (json.loads(each.path.read_bytes()) for each in (ours, theirs))
    assert whole["task_hashes"] == other["task_hashes"]
    assert {key: whole["config"][key] for key in other["config"] if key.endswith("seed")} == {
        key: value for key, value in other["config"].items() if key.endswith("seed")
    }


def test_two_models_are_compared(scored: dict[str, results.Results]) -> None:
    found = comparing.compared(scored)
    labels = ["both acc", "quiz acc", "quiz acc_norm", "other acc", "other acc_norm"]
    labels += ["prose word_perplexity", "prose bits_per_byte", "said exact_match (strict)", "said exact_match (loose)"]
    assert [row.label for row in found.rows] == labels
    assert all(verdict.tested for verdict in found.models[1].verdicts)
    assert [verdict.test for verdict in found.models[1].verdicts if verdict.lower] == ["bootstrap", "bootstrap"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_recipes_runs_and_adapters(
    language: Path, merge: Merge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's folder, its recipe without the model, and an adapter whose full model is known: the same numbers."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    ready = ["run", language / "models/a", language / "models/b", "--strategy", "uniform"]
    assert merge(*ready, "--output", "mean").code == 0
    (tmp_path / "again").mkdir()
    (tmp_path / "again/recipe.json").write_bytes((tmp_path / "mean/recipe.json").read_bytes())
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(language / "models/base"),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    whole = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(language / "models/base"), tmp_path / "adapter"
    ).merge_and_unload()
    whole.save_pretrained(tmp_path / "whole")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "whole" / name).write_bytes((language / "models/base" / name).read_bytes())
    words = [
        "--tasks",
        "quiz",
        "--include-path",
        language / "tasks",
        "--output",
        "out",
        "--device",
        "cpu",
        "--limit",
        12,
    ]
    capsys.readouterr()  # what the lines above have drawn
    ran = merge("harness", "mean", "again/recipe.json", "adapter", "whole", *words, "--json")
    assert ran.code == 0, ran.err
    assert "it/s" not in ran.err
    told = json.loads(ran.out)
    assert [model["model"] for model in told["models"]] == ["mean", "recipe", "adapter", "whole"]
    found = {name: results.read(file) for name, file in results.find([tmp_path / "out"]).items()}
    answers = {name: [line["resps"] for line in lines(each, "quiz")] for name, each in found.items()}
    assert answers["mean"] == answers["recipe"]
    assert len(answers["mean"]) == 12
    for mine, theirs in zip(answers["adapter"], answers["whole"], strict=True):
        assert [float(one[0][0]) for one in mine] == pytest.approx([float(one[0][0]) for one in theirs], abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter", "mean", "recipe", "whole"]
    assert "compare it (merge harness out/mean)" in merge("harness", "mean", *words).err


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("quizz", "unknown task of lm-eval: 'quizz'; did you mean 'quiz'?"),
        ("elsewhere", "the data of elsewhere (someone/things) are not on this disk, and nothing is fetched; --online"),
        ("runs_code", "runs code (!function own.kept), as a task file may; look at it, and give --trust-code"),
        ("fetches", "runs code (metric: meteor, which is none of lm-eval's own)"),
        ("looks_around", "looks_around: lm-eval cannot open this task: SecurityError: access to attribute '__class__'"),
        ("misspelled", "misspelled: lm-eval cannot open this task: UndefinedError: 'quesion' is undefined"),
        ("quiz,both", "Duplicate task 'quiz': found in both 'quiz' and 'both'; name the group or the task"),
    ],
)
def test_tasks_that_cannot_be_run_are_one_line(
    language: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch, task: str, said: str
) -> None:
    from lm_eval.tasks import TaskManager

    ours = {"include_defaults": False}  # the index of lm-eval's 14,000 own tasks takes seconds
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **more: TaskManager(**(more | ours)))
    ran = merge("harness", language / "models/a", "--tasks", task, "--include-path", language / "tasks")
    assert ran.code == 2
    assert said in ran.err.splitlines()[-1]
    assert len(ran.err.splitlines()[-1]) < 300
    assert not Path("runs").exists(), "nothing is left of a run that could not begin"


def test_a_chat_template_that_is_missing(language: Path, tmp_path: Path) -> None:
    places = loadables({"a": language / "models/a"})
    with pytest.raises(TaskError, match="a: its tokenizer has no chat template; save one there"):
        run(places, asked(language, "quiz", chat_template=True), tmp_path / "out", Watcher())


def test_code_that_is_trusted_is_run(language: Path, tmp_path: Path) -> None:
    places = loadables({"a": language / "models/a"})
    (file,) = run(places, asked(language, "runs_code", trust_code=True), tmp_path / "out", Watcher()).values()
    assert results.read(file).tasks["runs_code"].samples == 4


def test_interrupted_between_batches(language: Path, tmp_path: Path) -> None:
    """The models that are done are there, whole; of the one that was not, nothing."""
    out = tmp_path / "out"
    watcher = Watcher(should_stop=lambda: (out / "a").exists())
    places = loadables({name: language / "models" / name for name in ("a", "b")})
    with pytest.raises(InterruptedRunError, match=r"nothing was written of b; a done, in .*out"):
        run(places, asked(language, "quiz", batch_size=4), out, watcher)
    assert [path.name for path in out.iterdir()] == ["a"]


def test_examples_before_each_sample(language: Path, tmp_path: Path) -> None:
    places = loadables({"a": language / "models/a"})
    (file,) = run(places, asked(language, "quiz", few_shot=2, limit=3), tmp_path / "out", Watcher()).values()
    found = results.read(file)
    assert (found.tasks["quiz"].shots, found.tasks["quiz"].samples) == ("2", 3)
    assert lines(found, "quiz")[0]["arguments"]["gen_args_0"]["arg_0"].count("Question:") == 3


@pytest.mark.parametrize(
    ("take", "said"),
    [
        ("config.json", "no config.json of transformers there"),
        ("tokenizer", "no tokenizer there (tokenizer.json, …)"),
        ("model.safetensors", "no weights there that transformers loads (model.safetensors, …)"),
    ],
)
def test_models_that_lm_eval_would_not_load(language: Path, merge: Merge, tmp_path: Path, take: str, said: str) -> None:
    (tmp_path / "m").mkdir()
    for path in (language / "models/a").iterdir():
        if not path.name.startswith(take):
            (tmp_path / "m" / path.name).write_bytes(path.read_bytes())
    ran = merge("harness", "m", "--tasks", "quiz", "--include-path", language / "tasks")
    assert ran.code == 2
    assert said in ran.err


def test_nothing_reaches_the_network(lm_eval: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)  # names of sockets are short
    before = (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE"))
    with network.no_network():
        assert constants.HF_HUB_OFFLINE
        assert datasets.config.HF_HUB_OFFLINE
        with pytest.raises(ConnectionRefusedError, match="nothing is fetched here"):
            socket.create_connection(("127.0.0.1", 9))
        with socket.socket() as opened, pytest.raises(ConnectionRefusedError, match="nothing is fetched here"):
            opened.connect(("127.0.0.1", 9))
        with socket.socket(socket.AF_UNIX) as waiting, socket.socket(socket.AF_UNIX) as opened:
            waiting.bind("socket")
            waiting.listen()
            assert opened.connect_ex("socket") == 0
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")) == before


def test_it_is_said_where_lm_eval_is_missing_or_old(
    monkeypatch: pytest.MonkeyPatch, language: Path, merge: Merge
) -> None:
    words = ["harness", language / "models/a", "--tasks", "quiz", "--include-path", language / "tasks"]
    monkeypatch.setattr("merging.harness.tasks.version", lambda name: "0.4.9")
    assert "lm-eval 0.4.9 is older than 0.4.13; install it with: pip install -U 'merging[lm-eval]'" in merge(*words).err
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    assert "tasks of lm-eval need lm_eval; install it with: pip install 'merging[lm-eval]'" in merge(*words).err
