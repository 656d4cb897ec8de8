"""Ids of the Hub as models: what is one, what is fetched of it, what is said where it cannot be had."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

import merging
from merging.cli.asking.request import combine
from merging.cli.asking.tables import read_toml
from merging.errors import CheckpointError, MergingError
from merging.storage.hub import fetching
from merging.storage.hub.cached import cached, check_room, keep, place_of, shown
from merging.storage.hub.listing import Listing
from merging.storage.hub.pushing import parcel
from merging.storage.hub.refusals import address
from merging.storage.hub.spelling import HubId, as_id
from merging.storage.sources import names_apart, short_names
from tests.hub_server import GRANTED, Hub, serving

WHERE = """
import sys
from merging.errors import CheckpointError
from merging.storage.hub.fetching import folder_of
for text in sys.argv[1:]:
    try:
        print(folder_of(text).name)
    except CheckpointError as error:
        print(error)
"""
CONFIG = json.dumps({"model_type": "bert"}).encode()
INDEXED = ["model.safetensors.index.json", "a.safetensors", "b.safetensors"]
Merge = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as started:
        yield started


@pytest.fixture
def merge(hub: Hub, tmp_path: Path) -> Merge:
    def run(*words: str, home: str = "home", **more: str) -> subprocess.CompletedProcess[str]:
        own = hub.environment(tmp_path / home, MERGING_CACHE=str(tmp_path / "scores"), **more)
        command = [sys.executable, "-m", "merging", *words]
        return subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)

    return run


def _weights(seed: int, rows: int = 3) -> bytes:
    drawn = torch.Generator().manual_seed(seed)
    return save({"a.weight": torch.randn(rows, 4, generator=drawn), "a.bias": torch.randn(4, generator=drawn)})


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("hf-hub:org/name", "org/name", ""),
        ("hf-hub:org/name@v1.0", "org/name", "v1.0"),
        ("hf-hub:gpt2", "gpt2", ""),
        ("google/vit-base-patch16-224", "google/vit-base-patch16-224", ""),
        ("Qwen/Qwen2.5-0.5B@refs/pr/7", "Qwen/Qwen2.5-0.5B", "refs/pr/7"),
    ],
)
def test_an_id(text: str, repository: str, revision: str, tmp_path: Path) -> None:
    found = as_id(text, tmp_path)
    assert found is not None
    assert (found.repository, found.revision) == (repository, revision)
    assert as_id(str(found), tmp_path) == found


@pytest.mark.parametrize(
    "text",
    [
        "runs/modle_1",  # its folder is there
        "rusn/model_1",  # something of nearly that name is
        "runs/model_1",  # is there
        "org/name/file",
        "org/model.pt",
        "org/recipe.json",
        "org/*",
        "./name",
        "/org/name",
        "~/name",
        "name",
        "org/",
        "org/a--b",
        "org/name@",
        "org/na me",
        "org\\name",
        "hf-hub:there/too",
    ],
)
def test_a_path_is_no_id(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs" / "model_1").mkdir(parents=True)
    (tmp_path / "hf-hub:there" / "too").mkdir(parents=True)
    assert as_id(text, tmp_path) is None


@pytest.mark.parametrize("text", ["hf-hub:", "hf-hub:a/b/c", "hf-hub:../x", "hf-hub:a/b@", "hf-hub:a/b@c d"])
def test_what_begins_like_an_id_and_is_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no id of the Hub"):
        as_id(text, tmp_path)


@given(
    st.text("abAB01-_./@:~*hf ", max_size=24)
    | st.from_regex(r"[\w.-]{1,9}/[\w.-]{1,9}(@[\w./-]{1,9})?", fullmatch=True)
)
def test_what_is_taken_for_an_id_the_hub_takes_for_one(text: str) -> None:
    nowhere = Path("/nowhere/at/all")
    found = as_id(text, nowhere) if not text.startswith("hf-hub:") else None
    if found is not None:
        validate_repo_id(found.repository)
        assert as_id(str(found), nowhere) == found


def test_names_of_models_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, other = (tmp_path / letter for letter in "abc")
    for folder, found in (
        (one, HubId("ours/cat", "1" * 40)),
        (two, HubId("ours/cat", "2" * 40)),
        (other, HubId("theirs/cat", "3" * 40)),
    ):
        folder.mkdir()
        monkeypatch.setitem(fetching._pinned, folder, found)
    assert short_names([one]) == ["cat"]
    assert short_names([one, other]) == ["ours/cat", "theirs/cat"]
    assert short_names([one, two]) == ["cat@1111111", "cat@2222222"]
    assert short_names([one, tmp_path / "runs" / "cat.pt"]) == ["ours/cat", "runs/cat"]
    assert names_apart([one], two) == (["cat@1111111"], "cat@2222222")


def test_sizes_are_the_hubs() -> None:
    assert [shown(size) for size in (999, 1e3, 24_000_232, 5e9)] == ["999 bytes", "1.0 kB", "24.0 MB", "5.0 GB"]


@pytest.mark.slow
def test_models_of_the_hub_are_merged_at_the_commits_that_were_listed(hub: Hub, merge: Merge, tmp_path: Path) -> None:
    large = _weights(1, rows=1_400_000)  # larger than two pieces of huggingface_hub's
    beside = {"config.json": CONFIG, "optimizer.pt": b"x" * 9, "README.md": b"---\nlicense: mit\n---\n"}
    first = hub.model("ours/one", {"model.safetensors": large, "pytorch_model.bin": b"x", **beside})
    second = hub.model(
        "ours/two", {"model.safetensors": _weights(2, rows=1_400_000), **beside}, "main", "v1", gated=True
    )
    hub.moved["ours/old"] = "ours/two"
    hub.cut.add("model.safetensors")
    made = merge("run", "--strategy", "uniform", "--models", "ours/one", "hf-hub:ours/old@v1", HF_TOKEN=GRANTED)
    assert made.returncode == 0, made.stderr
    assert f"fetching ours/one@{first[:7]} from {hub.url}: 3 files, 22.4 MB" in made.stderr
    assert [wanted for wanted in hub.ranges if wanted != "bytes=0-"], "the second half alone comes again"
    assert not hub.asked("GET", "optimizer.pt") + hub.asked("GET", "pytorch_model.bin")
    assert GRANTED not in made.stdout + made.stderr
    folder = next((tmp_path / "runs").iterdir())
    names = ["hf-hub:ours/one@" + first, "hf-hub:ours/two@" + second]
    recipe, report = (json.loads((folder / name).read_text()) for name in ("recipe.json", "report.json"))
    assert [row["file"] for row in recipe["ingredients"]] == names
    assert [row["file"] for row in report["lineage"]] == names
    assert report["pool"] == ["one", "two"]
    request = json.loads((folder / "events.jsonl").read_text().splitlines()[0])["request"]
    assert request["models"] == names, "a resumed run has the models that it began with"
    assert all(GRANTED not in file.read_text() for file in folder.glob("*.json*"))

    hub.model("ours/one", {"model.safetensors": _weights(7), "config.json": CONFIG})  # the main branch moves on
    asked = len(hub.requests)
    offline = hub.environment(tmp_path / "home", HF_HUB_OFFLINE="1")
    names += ["hf-hub:ours/one", "hf-hub:ours/three"]
    told = [subprocess.run([sys.executable, "-c", WHERE, *names], env=offline, capture_output=True, text=True).stdout]
    *commits, lost = "".join(told).splitlines()
    assert commits == [first, second, first], "what the main branch was when it was asked"
    assert "hf-hub:ours/three: it is not in the cache" in lost
    assert len(hub.requests) == asked
    hub.failing = True
    away = subprocess.run(
        [sys.executable, "-c", WHERE, *names], env=hub.environment(tmp_path / "home"), capture_output=True, text=True
    )
    assert away.stdout.splitlines()[:3] == commits, "the same, where the Hub is out of order"
    assert "answers 500 (out of order)" in away.stdout.splitlines()[3]


@pytest.mark.slow
def test_mistakes_are_found_before_anything_large_is_fetched(hub: Hub, merge: Merge, tmp_path: Path) -> None:
    whole = {"model.safetensors": _weights(1), "config.json": CONFIG}
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    shard = {"model-00001-of-00002.safetensors": b"x"}
    hub.model("ours/one", whole)
    hub.model("ours/secret", whole, private=True)
    hub.model("ours/gated", whole, gated=True)
    hub.model("ours/gguf", {"model.gguf": b"x"})
    hub.model("ours/cards", {"README.md": b"x"})
    hub.model("ours/several", {"model_0.pt": b"x", "model_1.pt": b"x"})
    hub.model("ours/torn", {"model.safetensors.index.json": index.encode(), **shard})
    hub.model("ours/lost", {"model-00001-of-00002.safetensors": b"x", "model-00002-of-00002.safetensors": b"x"})
    hub.model("ours/adapter", {**whole, "adapter_config.json": b"{}", "adapter_model.safetensors": b"x"})
    (tmp_path / "runs").mkdir()
    said = {
        "ours/ones": "there is no such model at .*, and no such path here .*; did you mean 'ours/one'\\?",
        "ours/secret": "there is no such model at .*if it is private, log in",
        "ours/one@dev": "no branch, tag or commit 'dev'; it has main",
        "ours/gated": "its owners decide who may have it",
        "ours/gguf": "is GGUF files of llama.cpp",
        "ours/cards": "holds no weights \\(README.md\\)",
        "ours/several": "holds 2 checkpoints \\(model_0.pt, model_1.pt\\) and no index",
        "ours/torn": "names model-00002-of-00002.safetensors, which is not there",
        "ours/lost": "and not their index",
        "ours/adapter": "an adapter .* lies beside model.safetensors",
        "runs/model": "no models match .*; for a model of the Hub, write hf-hub:runs/model",
    }
    checked = merge("check", "--json", "--strategy", "uniform", "--models", *said)
    errors = json.loads(checked.stdout)["errors"]
    for name, words in said.items():
        about = [error for error in errors if name in error]
        assert about, (name, errors, checked.stderr)
        assert any(re.search(words, error) for error in about), (name, about)
    assert not hub.asked("GET", "safetensors?") + hub.asked("GET", "/cdn/")
    assert not [path for _, path, _ in hub.requests if "runs/model" in path], "a path is never sent"


@pytest.mark.slow
def test_a_run_is_pushed_as_it_lies_there(hub: Hub, merge: Merge, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"model_{number}.safetensors").write_bytes(_weights(number))
    models = [tmp_path / "model_1.safetensors", tmp_path / "model_2.safetensors"]
    merging.merge(models, "uniform", output=tmp_path / "out")
    (tmp_path / "out" / "secret.txt").write_text("not the run's")

    shown = merge("push", "out", "ours/merged", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert not hub.requests
    assert merge("push", "out", "ours/merged").returncode == 2, "without a token"
    assert not hub.requests

    made = merge("push", "out", "ours/merged", "--private", "--json", HF_TOKEN=GRANTED)
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    there = hub.repositories["ours/merged"]
    assert there.private
    assert said["commit"] == there.commit("main")
    files = there.commits[said["commit"]]
    assert set(files) == {"model.safetensors", "README.md", "recipe.json", "report.json"}
    assert all((tmp_path / "out" / name).read_bytes() == content for name, content in files.items())
    assert hashlib.sha256(files["model.safetensors"]).hexdigest() in hub.stored, "by LFS"
    assert "states no licence" in made.stderr
    assert "name paths of this machine" in made.stderr
    assert GRANTED not in made.stdout + made.stderr
    assert {token for _, _, token in hub.requests} <= {GRANTED, ""}

    hub.model(
        "ours/sharded", {"model.safetensors.index.json": b"{}", "model-00001-of-00001.safetensors": b"x", "x": b"x"}
    )
    taken = merge("push", "out", "ours/sharded", HF_TOKEN=GRANTED)
    assert taken.returncode == 2
    assert "holds a model already" in taken.stderr
    assert "--overwrite" in taken.stderr
    replaced = merge("push", "out", "ours/sharded", "--overwrite", HF_TOKEN=GRANTED)
    assert replaced.returncode == 0, replaced.stderr
    there = hub.repositories["ours/sharded"]
    now = there.commits[there.refs["main"]]
    assert set(now) == {"model.safetensors", "README.md", "recipe.json", "report.json", "x"}


@pytest.mark.parametrize(
    ("folder", "target", "words"),
    [
        ("nowhere", "ours/x", "is no folder of a finished run"),
        ("out", "x", "write ORG/NAME"),
        ("out", "../x", "is no id of the Hub"),
        ("lost", "ours/x", "that the run has written is not there"),
        ("linked", "ours/x", "key that the run has written is not there"),
        ("damaged", "ours/x", "is damaged"),
    ],
)
def test_what_is_no_parcel(tmp_path: Path, folder: str, target: str, words: str) -> None:
    reports = {
        "out": {"files": ["report.json"]},
        "lost": {"files": ["gone"]},
        "linked": {"files": ["key"]},
        "damaged": 1,
    }
    for name, report in reports.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    (tmp_path / "linked" / "key").symlink_to("/etc/hostname")
    with pytest.raises(MergingError, match=words):
        parcel(tmp_path / folder, target)


def test_a_report_names_nothing_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"files": ["report.json", "../x", "/etc/passwd", ".hidden", 3]}))
    assert parcel(tmp_path, "ours/x").files == ("report.json",)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "model.onnx"], ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (["model.safetensors.index.json", "a.safetensors", "b.safetensors", "c.safetensors"], INDEXED),
        (["adapter_config.json", "adapter_model.safetensors"], ["adapter_config.json", "adapter_model.safetensors"]),
        (["consolidated.pth", "optimizer.pt"], ["consolidated.pth"]),
        (["soup.pt", "soup.safetensors"], ["soup.safetensors"]),
    ],
)
def test_the_files_that_libraries_load(names: list[str], chosen: list[str], tmp_path: Path) -> None:
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    listing = Listing(HubId("o/n"), HubId("o/n", "0" * 40), dict.fromkeys([*names, "config.json", "x.py"], 1))
    assert listing.weights(lambda name: tmp_path / name) == chosen
    assert listing.beside() == ["config.json"]


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    listing = Listing(HubId("o/n"), HubId("o/n", "0" * 40), {"model.safetensors": 10**18})
    with pytest.raises(
        CheckpointError, match=r"^1000000000.0 GB are to be fetched from https://x, and .* has room for"
    ):
        check_room([(listing, ["model.safetensors"])], "https://x")


def test_offline_the_cache_is_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    asked, pinned = HubId("o/n", "refs/pr/1"), HubId("o/n", "a" * 40)
    with pytest.raises(CheckpointError, match="it is not in the cache"):
        cached(asked, "…", weights=True)
    place_of(pinned).mkdir(parents=True)
    (place_of(pinned) / "config.json").touch()
    keep(Listing(asked, pinned, {}))
    assert (tmp_path / "models--o--n" / "refs" / "refs" / "pr" / "1").read_text() == "a" * 40
    assert cached(asked, "…", weights=False) == (pinned, place_of(pinned))
    with pytest.raises(CheckpointError, match=r"holds no weights .*the cache has a part of it alone"):
        cached(asked, "…", weights=True)
    (place_of(pinned) / "model.safetensors").touch()
    assert cached(pinned, "…", weights=True) == (pinned, place_of(pinned))
    keep(Listing(HubId("o/n", "/../../../x"), pinned, {}))
    keep(Listing(HubId("o/n", "../../../../x"), pinned, {}))
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"1", "config.json", "model.safetensors"}


def test_an_address_is_shown_without_a_password() -> None:
    assert address(SimpleNamespace(endpoint="https://me:hf_secret@hub.example/x")) == "https://hub.example/x"
    assert address(SimpleNamespace(endpoint="https://hub.example")) == "https://hub.example"


def test_a_file_of_settings_names_ids_and_paths(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "merge.toml").write_text(
        """[pool]
models = ["runs/a", "ours/one@v1", {path = "hf-hub:ours/two", key = "ema"}]
base = "ours/base"
[task]
model = "transformers:ours/vit"
held_out = "data"
""",
        encoding="utf-8",
    )
    said = combine({}, read_toml(tmp_path / "merge.toml"), tmp_path)
    assert said["models"] == [
        str(tmp_path / "runs/a"),
        "hf-hub:ours/one@v1",
        {"path": "hf-hub:ours/two", "key": "ema"},
    ]
    assert said["base"] == "hf-hub:ours/base"
    assert said["task"]["model"] == "transformers:ours/vit"


def test_members_of_an_ensemble_are_pushed(tmp_path: Path) -> None:
    for name in ("members/0/model.safetensors", "members/1/model.safetensors", "members/mine/x", "report.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"files": ["members", "report.json"]}))
    members = ("members/0/model.safetensors", "members/1/model.safetensors")
    assert parcel(tmp_path, "ours/x@dev").files == ("report.json", *members)
