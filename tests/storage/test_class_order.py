"""Classes and their order: what stands beside (or in) the files of a pool must not contradict itself."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import merging
from merging.errors import PoolError
from merging.looking.check import check
from merging.looking.scoring import same_classes
from merging.storage.checkpoint import Checkpoint
from merging.storage.class_names import names_of
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.testing import tiny_pool
from tests.conftest import TASK, Merge

CLASSES = ["cat", "dog", "bird"]
ROTATED = ["dog", "bird", "cat"]
NUMBERED = ["LABEL_0", "LABEL_1", "LABEL_2"]


def by_index(names: Sequence[str]) -> dict[str, str]:
    return {str(index): name for index, name in enumerate(names)}


def by_name(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def write(folder: Path, value: float = 1.0, metadata: dict[str, str] | None = None, **files: Any) -> Path:
    """A folder that is a model; ``config_json={…}`` writes config.json, text goes as it is."""
    folder.mkdir(parents=True)
    save_file({"w": torch.full((3, 2), value)}, folder / "model.safetensors", metadata=metadata)
    for name, content in ({"config_json": {"hidden": 3}} | files).items():
        stem, suffix = name.rsplit("_", 1)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return folder


def transformers(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, config_json={"model_type": "vit", "id2label": by_index(names), "label2id": by_name(names)})


def id2label_alone(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, config_json={"model_type": "vit", "id2label": by_index(names)})


def label2id_alone(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, config_json={"model_type": "vit", "label2id": by_name(names)})


def timm(folder: Path, names: Sequence[str]) -> Path:
    """As timm's ``save_for_hf`` writes it."""
    return write(folder, config_json={"architecture": "resnet18", "num_classes": 3, "label_names": list(names)})


def timm_by_id(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, config_json={"architecture": "resnet18", "label_names": by_index(names)})


def nested(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, config_json={"architecture": "x", "pretrained_cfg": {"label_names": list(names)}})


def lines_of_text(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, classes_txt="\n".join(names) + "\n")


def a_json_list(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, labels_json=list(names))


def an_index(folder: Path, names: Sequence[str]) -> Path:
    """torchvision's ``ImageFolder.class_to_idx``."""
    return write(folder, class_to_idx_json=by_name(names))


def metadata(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, metadata={"format": "pt", "classes": json.dumps(list(names))})


def metadata_config(folder: Path, names: Sequence[str]) -> Path:
    return write(folder, metadata={"config": json.dumps({"id2label": by_index(names)})})


def in_a_pickle(folder: Path, names: Sequence[str]) -> Path:
    """As many scripts save: the classes beside the state dict in the file itself."""
    folder.mkdir(parents=True)
    content = {"state_dict": {"w": torch.ones(3, 2)}, "class_to_idx": by_name(names)}
    torch.save(content, folder / f"{folder.name}.pt")
    return folder / f"{folder.name}.pt"


WRITERS = [
    transformers,
    id2label_alone,
    label2id_alone,
    timm,
    timm_by_id,
    nested,
    lines_of_text,
    a_json_list,
    an_index,
    metadata,
    metadata_config,
    in_a_pickle,
]
Writer = Callable[[Path, Sequence[str]], Path]
NAMES = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N"), include_characters=" -/,'"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool),
    min_size=2,
    max_size=8,
    unique=True,
)


@pytest.mark.parametrize("writer", WRITERS)
def test_another_order_is_refused_in_every_form(writer: Writer, tmp_path: Path) -> None:
    paths = [writer(tmp_path / name, names) for name, names in (("a", CLASSES), ("b", CLASSES), ("c", ROTATED))]
    with pytest.raises(PoolError) as refused:
        ModelPool.open(paths)
    said = str(refused.value)
    assert f"{paths[2]} and {paths[0]} have the same classes in another order" in said
    assert "class 0 is 'dog' in the first, 'cat' in the second" in said
    assert "\n" not in said
    assert ModelPool.open(paths[:2]).beside == ()
    with pytest.raises(PoolError, match="another order"):
        ModelPool.open(paths[:2], base=paths[2])


@given(names=NAMES, writer=st.sampled_from(WRITERS), models=st.integers(2, 5), data=st.data())
def test_any_permutation_is_refused_and_no_equal_order_is(
    names: list[str], writer: Writer, models: int, data: st.DataObject
) -> None:
    orders = [list(names) for _ in range(models)]
    at = data.draw(st.integers(0, models - 1))
    orders[at] = data.draw(st.permutations(names))
    with tempfile.TemporaryDirectory() as place:
        paths = [writer(Path(place) / f"m{number}", order) for number, order in enumerate(orders)]
        if orders[at] == names:
            assert ModelPool.open(paths).beside == ()
            return
        with pytest.raises(PoolError) as refused:
            ModelPool.open(paths)
        said = str(refused.value)
        index = next(i for i, (one, other) in enumerate(zip(orders[at], names, strict=True)) if one != other)
        assert f"class {index} is " in said
        assert f"m{at}" in said


@given(names=NAMES, other=NAMES)
def test_other_classes_are_refused(names: list[str], other: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        paths = [transformers(Path(place) / "a", names), transformers(Path(place) / "b", other)]
        same = [n.casefold() for n in names] == [n.casefold() for n in other]
        numbers = [str(i) for i in range(len(names))], [str(i) for i in range(len(other))]
        if same or names == numbers[0] or other == numbers[1] or "1" in (names[0], other[0]):
            return
        with pytest.raises(PoolError, match="class"):
            ModelPool.open(paths)


@pytest.mark.parametrize("numbered", [NUMBERED, ["0", "1", "2"], ["class_1", "class_2", "class_3"]])
def test_numbers_against_names_are_said_and_no_contradiction(numbered: list[str], tmp_path: Path) -> None:
    transformers(tmp_path / "a", numbered)
    transformers(tmp_path / "b", CLASSES)
    transformers(tmp_path / "c", CLASSES)
    (note,) = ModelPool.open([tmp_path]).beside
    assert note == (
        f"a numbers its classes {numbered[0]}, {numbered[1]}, …, b cat, dog, …: whether they stand in the same order "
        "cannot be told"
    )
    transformers(tmp_path / "d", ROTATED)
    with pytest.raises(PoolError, match="another order"):  # the first says nothing, but the others contradict
        ModelPool.open([tmp_path])


def test_numbers_in_another_order_are_refused(tmp_path: Path) -> None:
    transformers(tmp_path / "a", NUMBERED)
    transformers(tmp_path / "b", NUMBERED[::-1])
    with pytest.raises(PoolError, match="class 0 is 'LABEL_0' in the first, 'LABEL_2' in the second"):
        ModelPool.open([tmp_path])
    shutil.rmtree(tmp_path / "b")
    transformers(tmp_path / "b", ["LABEL_1", "LABEL_2", "LABEL_3"])
    with pytest.raises(PoolError, match="class 0 is"):  # counted from 1
        ModelPool.open([tmp_path])


def test_another_spelling_is_said(tmp_path: Path) -> None:
    transformers(tmp_path / "a", ["golden retriever", "dog", "bird"])
    transformers(tmp_path / "b", ["Golden_Retriever", "dog", "bird"])
    assert ModelPool.open([tmp_path]).beside == ("class 0 is 'golden retriever' in a, 'Golden_Retriever' in b",)


def test_letters_whose_case_tells_them_apart(tmp_path: Path) -> None:
    transformers(tmp_path / "a", ["A", "a", "B"])
    transformers(tmp_path / "b", ["a", "A", "B"])
    with pytest.raises(PoolError, match="class 0 is 'a' in the first, 'A' in the second"):
        ModelPool.open([tmp_path])


def test_different_forms_are_compared_with_one_another(tmp_path: Path) -> None:
    transformers(tmp_path / "a", CLASSES)
    lines_of_text(tmp_path / "b", CLASSES)
    in_a_pickle(tmp_path / "c", CLASSES)
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c" / "c.pt"]
    assert not [note for note in ModelPool.open(paths).beside if "class" in note.split()]
    timm(tmp_path / "d", ROTATED)
    with pytest.raises(PoolError, match=r"class 0 is 'dog' .*\(config.json: label_names, config.json: id2label\)"):
        ModelPool.open([*paths, tmp_path / "d"])
    timm(tmp_path / "e", ["n1", "n2", "n3"])
    assert (
        "e names its classes n1, n2, …, a cat, dog, …: whether they stand in the same order cannot be told"
        in ModelPool.open([*paths, tmp_path / "e"]).beside
    )


def test_a_missing_class_and_a_silent_model(tmp_path: Path) -> None:
    transformers(tmp_path / "a", CLASSES)
    transformers(tmp_path / "b", CLASSES[:2])
    with pytest.raises(PoolError, match="class 2 is not named in the first, 'bird' in the second"):
        ModelPool.open([tmp_path])
    shutil.rmtree(tmp_path / "b")
    write(tmp_path / "b", config_json={"model_type": "vit"})
    (note,) = ModelPool.open([tmp_path]).beside
    assert note.startswith("b says nothing of its classes, a names them (cat, dog, …): whether they stand")


def test_files_of_one_folder_have_one_order(tmp_path: Path) -> None:
    home = transformers(tmp_path / "run", CLASSES)
    (home / "other.safetensors").write_bytes((home / "model.safetensors").read_bytes())
    assert ModelPool.open([home / "model.safetensors", home / "other.safetensors"]).beside == ()
    rotated = transformers(tmp_path / "rotated", ROTATED)
    with pytest.raises(PoolError, match="another order"):
        ModelPool.open([home / "model.safetensors", rotated / "model.safetensors"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "\ufeff{}",
        '{"id2label": 3}',
        '{"id2label": {}}',
        '{"id2label": [[1]]}',
        '{"id2label": {"a": {"b": 1.5}}}',
        '{"labels": [0, 1, 1]}',
        '{"labels": ["cat", "cat", "dog"]}',
        '{"id2label": ' + '{"a":' * 2000 + "1" + "}" * 2001,
    ],
)
def test_what_is_no_list_of_classes_is_none(content: str, tmp_path: Path) -> None:
    write(tmp_path / "a", config_json=content)
    write(tmp_path / "b")
    assert not [note for note in ModelPool.open([tmp_path]).beside if "classes" in note]


def test_names_of_reads_both_directions() -> None:
    assert names_of({"neg": 0, "negative": 0, "pos": "1"}) == {"0": "neg / negative", "1": "pos"}
    assert names_of({0: "a", "01": "b"}) == {"0": "a", "1": "b"}
    assert names_of({"1": 2, "0": 0, "2": 1}, by_name=True) == {"2": "1", "0": "0", "1": "2"}
    assert names_of({"a": 1.5}) is None
    assert names_of(["a", 1]) is None
    assert names_of({}) is None


def test_names_of_strangers_are_made_showable(tmp_path: Path) -> None:
    transformers(tmp_path / "a", ["cat\x1b[31m\n", "dog", "[/x]"])
    transformers(tmp_path / "b", ["dog", "cat\x1b[31m\n", "[/x]"])
    with pytest.raises(PoolError) as refused:
        ModelPool.open([tmp_path])
    assert r"'cat\x1b[31m\n' in the second" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.fixture
def contradicting(tmp_path: Path) -> Path:
    """Folders of the tiny problem's models: the third has its classes in another order."""
    tiny_pool(tmp_path / "tiny", models=3)
    for number in range(3):
        folder = tmp_path / "pool" / f"m{number}"
        folder.mkdir(parents=True)
        (tmp_path / "tiny" / f"model_{number}.safetensors").rename(folder / "model.safetensors")
        names = ROTATED if number == 2 else CLASSES
        (folder / "config.json").write_text(json.dumps({"id2label": by_index(names)}))
    return tmp_path / "pool"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--strategy", "uniform", "--output", "out"],
        ["run", "--strategy", "uniform", "--task", TASK, "--output", "out"],
        ["run", "--strategy", "uniform", "--format", "pt", "--output", "out"],
        ["benchmark", "--task", TASK, "--output", "out"],
        ["check"],
        ["check", "--task", TASK],
        ["inspect"],
        ["inspect", "--task", TASK],
    ],
    ids=" ".join,
)
def test_every_command_refuses(merge: Merge, contradicting: Path, command: list[str]) -> None:
    ran = merge(*command, "--models", contradicting)
    assert ran.code == 2
    said = " ".join(ran.err.split())
    assert f"{contradicting / 'm2'} and {contradicting / 'm0'} have the same classes in another order" in said
    assert said.count("error:") == 1
    assert not Path("out").exists()


def test_apply_and_evaluate_refuse(merge: Merge, contradicting: Path, tmp_path: Path) -> None:
    assert merge("run", "--strategy", "uniform", "--models", contradicting / "m[01]", "--output", "out").code == 0
    (contradicting / "m1" / "config.json").write_text(json.dumps({"id2label": by_index(ROTATED)}))
    for arguments in (["apply", "out", "--output", "again"], ["evaluate", "out/recipe.json", "--task", TASK]):
        ran = merge(*arguments)
        assert ran.code == 2, arguments
        assert "have the same classes in another order" in ran.err
        assert not Path("again").exists()
    two = merge("evaluate", contradicting / "m0", contradicting / "m2", "--task", TASK)
    assert two.code == 2
    assert "have the same classes in another order" in two.err
    result = merge("evaluate", "out", contradicting / "m2", "--task", TASK)  # the merged folder says its classes, too
    assert result.code == 2
    assert "have the same classes in another order" in result.err
    assert merge("evaluate", contradicting / "m1", contradicting / "m2", "--task", TASK, "--split", "test").code == 0
    shutil.copytree("out", tmp_path / "recipe-alone", ignore=shutil.ignore_patterns("model*"))
    with pytest.raises(PoolError, match="another order"):
        same_classes({"a": tmp_path / "recipe-alone" / "recipe.json", "b": Checkpoint(contradicting / "m2")})


def test_check_says_which_model_contradicts_and_looks_at_the_rest(contradicting: Path) -> None:
    found = check([contradicting], Uniform())
    assert [model.error is None for model in found.models] == [True, True, False]
    (error,) = found.errors
    assert "another order" in error
    (contradicting / "m0" / "config.json").write_text(json.dumps({"id2label": by_index(NUMBERED)}))
    found = check([contradicting], Uniform())
    assert [model.error is None for model in found.models] == [True, True, False]
    with pytest.raises(PoolError, match="another order"):
        merging.merge(ModelPool.open([contradicting]), Uniform())


def test_check_says_that_the_base_contradicts(contradicting: Path) -> None:
    found = check([contradicting / "m[01]"], Uniform(), base=contradicting / "m2")
    (error,) = found.errors
    assert f"{contradicting / 'm2'} and {contradicting / 'm0'} have the same classes in another order" in error
    assert [model.error for model in found.models] == [None, None]


@pytest.mark.slow
def test_a_classifier_of_transformers_and_its_permutation(merge: Merge, tmp_path: Path) -> None:
    """The same network twice, the rows of its head and its classes in another order: no average of the two is right."""
    library = pytest.importorskip("transformers", reason="needs dev-full")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    for number, names in enumerate((CLASSES, ROTATED, CLASSES)):
        labels = {"id2label": dict(enumerate(names)), "label2id": by_name(names)}
        torch.manual_seed(0)
        config = library.ViTConfig(**sizes, image_size=16, patch_size=8, **labels)
        library.ViTForImageClassification(config).save_pretrained(tmp_path / f"same_{number}")
    ran = merge("run", "--strategy", "uniform", "--models", tmp_path / "same_[01]", "--output", "out")
    assert ran.code == 2
    assert "class 0 is 'dog' in the first, 'cat' in the second (config.json: id2label)" in ran.err
    assert not Path("out").exists()
    assert merge("run", "--strategy", "uniform", "--models", tmp_path / "same_[02]", "--output", "out").code == 0


IMAGENET = [f"class {number}" for number in range(40)] + ["crane", "crane"]
PICKLED = {
    "mmcv": lambda names: {"meta": {"CLASSES": tuple(names)}},
    "YOLO": lambda names: {"names": dict(enumerate(names))},
    "arrays": lambda names: {"classes": np.array(names)},
    "numpy indices": lambda names: {"class_to_idx": {name: np.int64(index) for index, name in enumerate(names)}},
    "Namespace": lambda names: {"args": argparse.Namespace(class_names=list(names))},
}


@pytest.mark.parametrize("form", list(PICKLED))
def test_classes_beside_a_state_dict(form: str, tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog", "cow"], ["dog", "cat", "cow"])):
        torch.save({"state_dict": {"w": torch.ones(3, 2)}, **PICKLED[form](names)}, tmp_path / f"m{number}.pt")
    with pytest.raises(PoolError, match="class"):
        ModelPool.open([tmp_path])
    same = tmp_path / "same"
    same.mkdir()
    for number in range(2):
        torch.save({"state_dict": {"w": torch.ones(3, 2)}, **PICKLED[form](IMAGENET)}, same / f"m{number}.pt")
    assert len(ModelPool.open([same])) == 2


FILED = {
    "UTF-16": ("labels.txt", lambda names: "\n".join(names).encode("utf-16")),
    "Latin-1": ("labels.txt", lambda names: "\n".join([*names, "k\xe4fer"]).encode("latin-1")),
    "COCO": ("classes.json", lambda names: json.dumps([{"id": i, "name": n} for i, n in enumerate(names)]).encode()),
    "Keras": (
        "imagenet_class_index.json",
        lambda names: json.dumps({i: [f"n{i}", n] for i, n in enumerate(names)}).encode(),
    ),
    "twice": ("classes.txt", lambda names: "\n".join([*names, *IMAGENET]).encode()),
}


@pytest.mark.parametrize("form", list(FILED))
def test_lists_in_other_forms(form: str, tmp_path: Path) -> None:
    file, write = FILED[form]
    for number, names in enumerate((["cat", "dog", "cow"], ["dog", "cat", "cow"])):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        save_file({"w": torch.ones(3, 2)}, folder / "model.safetensors")
        (folder / file).write_bytes(write(names))
    with pytest.raises(PoolError, match="class"):
        ModelPool.open([tmp_path / "run*"])


def test_ultralytics_metadata(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        facts = {"names": str(dict(enumerate(names)))}
        save_file({"w": torch.ones(3, 2)}, tmp_path / f"m{number}.safetensors", metadata=facts)
    with pytest.raises(PoolError, match="class"):
        ModelPool.open([tmp_path])
