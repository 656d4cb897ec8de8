"""``merging.task``: arrays, Datasets and DataLoaders as data, a module or a function as model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

import merging
from merging.errors import MergingError, TaskError

X: NDArray[np.float64] = np.random.default_rng(0).random((6, 4))
Y = np.arange(6) % 3
NAMES = np.array(["cat", "ant", "bee"])
PICTURES = np.zeros((6, 8, 8, 3), np.uint8)


class Items(Dataset[Any]):
    """A map-style Dataset of whatever a function makes."""

    def __init__(self, make: Callable[[int], Any], count: int = 6, classes: list[str] | None = None) -> None:
        self._make, self._count = make, count
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._make(index)


class Stream(IterableDataset[Any]):
    """Items that come one after the other."""

    def __iter__(self) -> Iterator[Any]:
        return ((X[number], Y[number]) for number in range(6))


def plain(index: int) -> Any:
    return torch.tensor(X[index]), int(Y[index])


def task(held_out: Any, **more: Any) -> merging.Task:
    return merging.task(lambda: nn.Linear(4, 3), held_out, **more)


SAME: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "tensors": lambda: (torch.tensor(X), torch.tensor(Y)),
    "lists": lambda: (X.tolist(), Y.tolist()),
    "small integers": lambda: (X.astype(np.float32), Y.astype(np.uint8)),
    "backwards and back": lambda: (X[::-1][::-1], Y[::-1][::-1]),
    "a column": lambda: (X, Y[:, None]),
    "one-hot": lambda: (X, np.eye(3)[Y]),
    "one-hot integers": lambda: (X, np.eye(3, dtype=int)[Y]),
    "floats": lambda: (X, Y.astype(float)),
    "digits": lambda: Items(lambda i: (X[i], np.int32(Y[i]))),
    "a Dataset": lambda: Items(plain),
    "a Dataset of mappings": lambda: Items(lambda i: {"pixel_values": X[i], "label": Y[i]}),
    "a Dataset of mappings of two": lambda: Items(lambda i: {"anything": X[i], "labels": Y[i]}),
    "a Dataset of one-hot rows": lambda: Items(lambda i: (X[i], torch.eye(3)[Y[i]])),
    "a list of items": lambda: [plain(i) for i in range(6)],
    "tensors of torch": lambda: TensorDataset(torch.tensor(X), torch.tensor(Y)),  # type: ignore[no-untyped-call]
    "a stream": Stream,
    "a loader": lambda: DataLoader(Items(plain), batch_size=4),
    "a shuffled loader": lambda: DataLoader(Items(plain), batch_size=4, shuffle=True, drop_last=True),
    "a loader of a stream": lambda: DataLoader(Stream(), batch_size=4),
    "a split": lambda: merging.Split.of(X, Y),
}


@pytest.mark.parametrize("name", list(SAME))
def test_the_same_samples_are_the_same_split(name: str) -> None:
    found, wanted = task(SAME[name]()).held_out, merging.Split.of(torch.tensor(X).float(), torch.tensor(Y))
    assert found.inputs.dtype == torch.float32
    assert found.labels.tolist() == Y.tolist()
    assert found.fingerprint == wanted.fingerprint


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (Y > 0, (Y > 0).astype(int)),
        (X[:, 0], X[:, 0]),
        (X, X),
        (torch.tensor(X[:, 0]), X[:, 0]),
    ],
)
def test_labels_that_are_no_classes(labels: Any, wanted: NDArray[Any]) -> None:
    """True and false are two classes; fractions and vectors are numbers to be met."""
    for split in (merging.Split.of(X, labels), task((X, labels)).held_out):
        assert split.labels.tolist() == wanted.tolist()
        assert split.categorical == (wanted.dtype.kind == "i")
    assert task((X, torch.tensor(Y > 0))).held_out.labels.tolist() == (Y > 0).astype(int).tolist()


def test_split_of_keeps_the_numbers_that_are_floats() -> None:
    """An objective for numbers is for these; merging.task takes whole ones as classes, as files are read."""
    assert not merging.Split.of(X, Y.astype(float)).categorical
    assert merging.Split.of(torch.tensor(X), Y).inputs.dtype == torch.float64


@pytest.mark.parametrize("data", [(X, NAMES[Y]), (X, NAMES[Y].tolist()), Items(lambda i: (X[i], str(NAMES[Y[i]])))])
def test_names_are_labels(data: Any) -> None:
    made = task(data, tests=(X[:2], ["bee", "cat"]))
    assert made.classes == ("ant", "bee", "cat")
    assert made.held_out.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert made.tests["test"].labels.tolist() == [1, 2]
    assert task(data, classes=NAMES.tolist()).held_out.labels.tolist() == Y.tolist()
    with pytest.raises(TaskError, match="unknown class in test: 'be'; did you mean 'bee'"):
        task(data, tests=(X[:1], ["be"]))


def test_a_set_with_fewer_classes_counts_the_models() -> None:
    """torchvision numbers the folders that are there, whatever the others have."""
    made = task(
        Items(plain, classes=["ant", "bee", "cat"]), tests=Items(lambda i: (X[i], i % 2), classes=["ant", "cat"])
    )
    assert made.classes == ("ant", "bee", "cat")
    assert made.tests["test"].labels.tolist() == [0, 2, 0, 2, 0, 2]


def test_a_folder_of_images_through_its_transform(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is in the extra dev-full")
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is in the extra dev-full")
    for number, name in enumerate(["b", "a", "c"]):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("RGB", (6, 5 + index), (40 * number, 0, 0)).save(tmp_path / name / f"{index}.png")
    whole = transforms.Compose([transforms.Resize((4, 4)), transforms.ToTensor()])
    made = task(datasets.ImageFolder(tmp_path, transform=whole))
    assert made.held_out.inputs.shape == (6, 3, 4, 4)
    assert made.classes == ("a", "b", "c")
    with pytest.raises(TaskError, match="item 0 of held-out is a picture of PIL; make arrays of pictures first"):
        task(datasets.ImageFolder(tmp_path))
    with pytest.raises(TaskError, match=r"number 0 is \[3, 5, 6\], number 1 \[3, 6, 6\]; bring them to one"):
        task(datasets.ImageFolder(tmp_path, transform=transforms.ToTensor()))


def test_columns_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is in the extra dev-full")
    features = datasets.Features(
        {"x": datasets.Sequence(datasets.Value("float32")), "label": datasets.ClassLabel(names=["u", "v", "w"])}
    )
    made = task(datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()}, features=features))
    assert made.classes == ("u", "v", "w")
    assert made.held_out.fingerprint == merging.Split.of(X, Y).fingerprint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "held-out is None; give (inputs, labels), a Split, or a Dataset"),
        (3, "held-out is an int"),
        (Items, "held-out is the class Items"),
        (X, "held-out is a ndarray of shape [6, 4]"),
        ({"a": 1}, "held-out is a dict"),
        ([], "held-out is empty"),
        (Items(plain, 0), "held-out is empty"),
        ((X, Y[:3]), "6 samples but 3 labels"),
        ((X, Y, Y), "item 0 of held-out is a ndarray"),
        ((X, None), "held-out: labels are None"),
        ((X, [None] * 6), "held-out: labels are a list of length 6"),
        (("x", Y), "held-out: inputs are a str"),
        (([[1.0, 2.0], [3.0]], [0, 1]), "held-out: inputs are a list of length 2 with rows of different lengths"),
        (([np.zeros(2), np.zeros(3)], [0, 1]), "number 0 is [2], number 1 [3]; bring them to one"),
        (Items(lambda i: (np.zeros(3 + i), 0)), "number 0 is [3], number 1 [4]"),
        (Items(lambda i: (Image.new("RGB", (3, 3)), 0)), "item 0 of held-out is a picture of PIL; make arrays"),
        (([Image.new("RGB", (3, 3))] * 2, [0, 1]), "held-out: inputs are pictures of PIL"),
        (Items(lambda i: (1, 2, 3)), "item 0 of held-out is a tuple of length 3; give (inputs, labels)"),
        (Items(lambda i: {"a": 1, "b": 2, "c": 3}), "item 0 of held-out has a, b, c; which is the label?"),
        (Items(lambda i: 1 / (3 - i)), "held-out is a float"),
        ((PICTURES, Y), "give prepare, such as merging.Normalisation(mean=…, std=…)"),
        ((PICTURES.transpose(0, 3, 1, 2), Y), "give prepare, such as lambda batch: batch.float() / 255"),
    ],
)
def test_what_is_no_data_is_one_line(data: Any, said: str) -> None:
    with pytest.raises(MergingError) as error:
        task(data)
    assert said in str(error.value)
    assert len(str(error.value)) < 300


def test_an_error_of_a_dataset_is_told_with_its_line() -> None:
    with pytest.raises(
        TaskError, match=r"item 3 of held-out failed: ZeroDivisionError: .* \(at .*test_in_memory_tasks"
    ):
        task(Items(lambda i: (X[i], 1 // (3 - i))))


def test_a_label_that_no_output_stands_for() -> None:
    with pytest.raises(TaskError, match="held-out: label 2 is none of 2 classes, which count from 0"):
        task((X, Y), classes=2)
    assert task((X, Y), classes=3).classes == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"classes": "abc"}, "classes are a str of length 3"),
        ({"classes": 0}, "classes are an int"),
        ({"prepare": 3}, "prepare is an int; it is a function of a batch"),
        ({"prepare": merging.Normalisation()}, "prepare is a Normalisation, which is for pictures"),
        ({"shifts": (X, Y)}, "shifts is a tuple of length 2; it is a mapping from names to data"),
        ({"tests": {"t": (X, Y)}, "shifts": {"t": (X, Y)}}, "a test set and a shifted set are both called 't'"),
        ({"tests": {"train": (X, Y)}}, "a test set cannot be called 'train'"),
    ],
)
def test_what_else_is_wrong(more: dict[str, Any], said: str) -> None:
    with pytest.raises(MergingError) as error:
        task((X, Y), **more)
    assert said in str(error.value)


def module_of_nothing() -> nn.Module:
    return nn.Linear(4, 3)


def module_with_a_width(width: int = 3) -> nn.Module:
    return nn.Linear(4, width)


def module_of_a_pool(pool: merging.ModelPool) -> nn.Module:
    return nn.Linear(4, len(pool.tensors["bias"][0]) + 2)


class Net(nn.Linear):
    """A class that makes its module of nothing."""

    def __init__(self) -> None:
        super().__init__(4, 3)


@pytest.mark.parametrize(
    "model",
    [module_of_nothing, module_with_a_width, module_of_a_pool, Net, nn.Linear(4, 3), lambda *_: nn.Linear(4, 3)],
)
def test_a_model_is_a_module_or_a_function(model: Any) -> None:
    nets = [nn.Linear(4, 3) for _ in range(3)]
    made = merging.task(model, (X, Y), tests=(X, Y), shifts={"s": Items(plain)}, train=(X, Y))
    assert made.shifts == ("s",)
    report = merging.merge(nets, "greedy", task=made).report
    assert report.merged is not None
    assert set(report.merged.tests) == {"test", "s"}
    if callable(model) and not isinstance(model, nn.Module):
        split = merging.Split.of(X, Y)
        own = merging.Task(name="own", build=model, held_out=split)
        pool = merging.ModelPool(nets)
        assert isinstance(own.build(pool), nn.Linear)
        assert isinstance(replace(own, name="other").build(pool), nn.Linear)


def test_the_architecture_of_a_module_is_used_and_it_stays_as_it_is() -> None:
    module = nn.Linear(4, 3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    merging.merge([nn.Linear(4, 3) for _ in range(2)], "uniform", task=merging.task(module, (X, Y)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_pictures_are_normalised_as_files_are() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (6, 8, 8, 3), np.uint8)
    made = merging.task(nn.Linear(1, 1), (pixels, Y), prepare=merging.Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3))
    found = made.prepare(made.held_out.inputs)
    wanted = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    assert found.shape == (6, 3, 8, 8)
    torch.testing.assert_close(found, wanted)


def test_reading_is_told() -> None:
    class Told(merging.Silent):
        """Counts."""

        def __init__(self) -> None:
            self.stages, self.steps = list[tuple[str, int | None]](), 0

        def stage(self, text: str, total: int | None = None) -> None:
            self.stages.append((text, total))

        def advance(self, steps: int = 1) -> None:
            self.steps += steps

    told = Told()
    task(Items(plain), tests=Stream(), progress=told)
    assert told.stages == [("reading held-out", 6), ("reading test", None)]
    assert told.steps == 12


def test_a_sampler_of_its_own_is_respected() -> None:
    assert len(task(DataLoader(Items(plain), sampler=SubsetRandomSampler([3, 1]))).held_out) == 2


FOLDER = ("bee", "ant", "cat")
"""Classes in the order in which a data set counts them; a model may have another one."""


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda named: Subset(named, range(6)),
        lambda named: Subset(Subset(named, range(6)), range(6)),
        lambda named: ConcatDataset([Subset(named, range(4)), Subset(named, range(4, 6))]),
        lambda named: DataLoader(Subset(named, range(6)), 2),
        lambda named: DataLoader(named, sampler=SequentialSampler(named), batch_size=4),
        lambda named: DataLoader(Subset(named, range(6)), batch_sampler=[[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_classes_are_known_through_what_is_put_around_a_data_set(wrapped: Callable[[Any], Any]) -> None:
    made = task(wrapped(Items(plain, classes=list(FOLDER))), classes=["ant", "bee", "cat"])
    assert made.held_out.labels.tolist() == [("ant", "bee", "cat").index(FOLDER[label]) for label in Y]


def test_labels_that_are_changed_are_not_counted_by_the_classes_of_their_set() -> None:
    changed = Items(plain, classes=list(FOLDER))
    changed.target_transform = lambda label: label  # type: ignore[attr-defined]
    assert task(changed, classes=["ant", "bee", "cat"]).held_out.labels.tolist() == Y.tolist()
    with pytest.raises(TaskError, match="joined data sets number their classes differently"):
        task(ConcatDataset([Items(plain, classes=list(FOLDER)), Items(plain, classes=["ant", "bee", "cat"])]))


@pytest.mark.parametrize(
    "more", [{"batch_size": 4}, {"batch_size": 4, "shuffle": True}, {"batch_size": 4, "drop_last": True}]
)
def test_a_loader_that_makes_its_batches_makes_them(more: dict[str, Any]) -> None:
    def collated(items: list[Any]) -> Any:
        return {"x": torch.stack([value for value, _ in items]) * 2, "labels": torch.tensor([2 - y for _, y in items])}

    made = task(DataLoader(Items(plain), collate_fn=collated, **more)).held_out
    assert made.labels.tolist() == (2 - Y).tolist()
    assert torch.allclose(made.inputs, torch.tensor(2 * X).float())


def test_a_loader_with_batches_of_its_own_choice_gives_these() -> None:
    assert task(DataLoader(Items(plain), batch_sampler=[[0, 1], [5]])).held_out.labels.tolist() == [0, 1, 2]
    assert task(DataLoader(Stream(), batch_size=None)).held_out.labels.tolist() == Y.tolist()


def test_texts_that_are_numbers_count_outputs_as_those_of_a_table_do() -> None:
    many = np.arange(12)
    made = merging.task(lambda: nn.Linear(4, 12), (np.zeros((12, 4)), many.astype(str)))
    assert (made.classes, made.held_out.labels.tolist()) == ((), many.tolist())
    stars = merging.task(lambda: nn.Linear(4, 3), (X, (Y + 1).astype(str)), classes=["3", "2", "1"])
    assert stars.held_out.labels.tolist() == [2 - label for label in Y]


def test_columns_name_their_classes() -> None:
    pandas = pytest.importorskip("pandas")
    coded = pandas.Series(pandas.Categorical.from_codes(Y, list(FOLDER)))
    for labels in (coded, pandas.get_dummies(coded)):
        assert task((X, labels)).classes == FOLDER
        made = task((pandas.DataFrame(X).convert_dtypes(), labels), classes=np.array(["ant", "bee", "cat"]))
        assert made.held_out.labels.tolist() == [("ant", "bee", "cat").index(FOLDER[label]) for label in Y]
    assert task((X, pandas.Series(Y, dtype="Int64"))).held_out.labels.tolist() == Y.tolist()
    assert task((X, Y.astype(object))).held_out.labels.tolist() == Y.tolist()
    assert task((X, np.array([b"x", b"y", b"z"])[Y])).classes == ("x", "y", "z")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((np.ma.masked_less(X, 0.1), Y), "held-out: inputs are an array in which values are masked"),
        ((X, np.ma.masked_equal(Y, 1)), "held-out: labels are an array in which values are masked"),
        ((X, np.where(Y == 1, np.nan, Y)), "held-out: label number 1 is missing"),
        ((X, [None, *NAMES[Y][1:]]), "held-out: labels are names, but number 0 is None"),
        ((torch.empty(6, 4, device="meta"), Y), "held-out: inputs are a meta tensor"),
        ((torch.tensor(X).to_sparse(), Y), "held-out: inputs are a sparse tensor"),
        ((torch.view_as_complex(torch.rand(6, 2)).conj(), Y), "held-out: inputs are a complex tensor"),
        ((X, torch.eye(6).to_sparse()), "held-out: labels are a sparse tensor"),
    ],
)
def test_what_has_no_plain_numbers_is_refused(data: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        task(data)


def test_every_output_has_one_name() -> None:
    with pytest.raises(TaskError, match="two classes are called 'ant'"):
        task((X, Y), classes=["ant", "bee", "ant"])
    pair = [nn.Linear(4, 5), nn.Linear(4, 5)]
    many = np.repeat(X, 20, axis=0), np.repeat(NAMES[Y], 20)
    found = merging.merge(pair, "greedy", task=merging.task(lambda: nn.Linear(4, 5), many))
    assert any("3 classes are named, and the model has 5 outputs" in note for note in found.report.notes)
