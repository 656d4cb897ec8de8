"""The way of a picture into a model: transforms kept whole, arrays, colours, and models that are built with arguments.

Whether the pixels are those of the model's library is asked by ``test_library_pixels.py``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import merging
from benchmarks.library_transforms import (
    PROCESSORS,
    transformers_folder,
    transformers_transform,
)
from benchmarks.pixels import of_library
from merging.data.folders import load_images
from merging.data.images import normalise, preparation
from merging.data.opening import load_data
from merging.errors import TaskError
from merging.forward.numerics import Numerics
from merging.looking.samples import pixels
from merging.models.transform import Normalisation, Transform, as_stored, whole_numbers
from merging.tasks.described import described_task
from merging.training.augment import augmentation
from merging.training.hyperparameters import HyperParameters
from merging.training.trainer import Run
from tests.conftest import Merge
from tests.heard import Heard

pytestmark = pytest.mark.slow

PADDED = {
    "image_processor_type": "DetrImageProcessor",
    "size": {"shortest_edge": 24, "longest_edge": 32},
    "do_pad": True,
    "pad_size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
"""Normalises, then pads with zeros, which are no grey value: the one does not come apart from the other."""
PUBLISHED = json.loads(PROCESSORS.read_text("utf-8"))


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)


# transforms that do not come apart


def padded(folder: Path) -> Path:
    vit = PUBLISHED["google/vit-base-patch16-224"]["model"]
    return transformers_folder(folder, {**vit, "image_size": 32, "patch_size": 8}, PADDED)


def test_a_transform_that_is_not_divided_is_kept_whole(tmp_path: Path, photos: Path) -> None:
    folder, said = padded(tmp_path / "model"), Heard()
    right = torch.stack(of_library(transformers_transform(folder), photos))
    for _ in range(2):  # made, and from disk
        task = described_task({"model": f"transformers:{folder}", "held_out": str(photos)}, said)
        assert task.held_out.inputs.dtype == torch.float32
        assert torch.equal(task.prepare(task.held_out.inputs), right)
    assert [line for line in said.said if "kept as float32" in line and "GB for 8 pictures" in line] != []
    shown = pixels(task.held_out, 0)
    assert shown is not None
    assert (shown.shape, str(shown.dtype)) == ((32, 32, 3), "uint8")
    with pytest.raises(merging.MergingError, match="is for stored images"):
        augmentation("flip")(task.held_out.inputs)  # type: ignore[misc]


def test_arrays_go_the_same_way(tmp_path: Path) -> None:
    folder = padded(tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_images=images, x_labels=np.arange(2))
    split = load_data(f"{tmp_path}/a.npz:x", merging.model_source(f"transformers:{folder}"))
    whole = transformers_transform(folder)
    assert torch.equal(split.inputs, torch.stack([whole(Image.fromarray(image)) for image in images]))


def test_models_learn_and_merge_on_what_is_kept_whole(tmp_path: Path, photos: Path) -> None:
    model = f"transformers:{padded(tmp_path / 'model')}"
    task = described_task({"model": model, "held_out": str(photos), "train": str(photos)})
    for seed in range(2):
        torch.manual_seed(seed)
        module = merging.model_source(model).module(2)
        numerics = Numerics.choose("cpu", module, task.held_out.inputs[0], "fp32")
        given = HyperParameters(epochs=1, batch_size=8, learning_rate=1e-3)
        trainer = Run(module, task, given, numerics=numerics)
        trainer.step()
        assert trainer.finished
        torch.save(module.state_dict(), tmp_path / f"m{seed}.pt")
        with pytest.raises(merging.MergingError, match="is for stored images"):
            Run(module, task, replace(given, augmentation="flip"), numerics=numerics).step()
    result = merging.merge(merging.ModelPool.open([tmp_path / "m*.pt"]), merging.Uniform(), task=task, baselines=False)
    assert len(result.state_dict()) == len(module.state_dict())


def test_a_cut_is_never_trusted() -> None:
    """A geometry that is off by one pixel, or one value, is not used."""
    plain = as_stored("x", Normalisation())
    for wrong in (
        lambda image: np.roll(np.array(image), 1, axis=1),
        lambda image: np.array(image) // 2 * 2,
        lambda image: np.array(image)[:-1],
        lambda image: np.array(image).astype(np.float32) + 0.5,
    ):
        assert not Transform(name="x", whole=plain.whole, settings={}, geometry=wrong).divided
    swapped = Transform(
        name="x",
        whole=plain.whole,
        settings={},
        geometry=lambda image: np.array(image)[..., ::-1].copy(),
        proposed=Normalisation((0.5,) * 3, (0.5,) * 3),
    )
    assert swapped.normalisation is not None
    assert swapped.normalisation.flipped, "found by the probes"


def test_whole_numbers() -> None:
    assert whole_numbers(torch.full((3, 1, 2), 255.0)).tolist() == [[[255] * 3] * 2]
    for wrong in (torch.full((3, 1, 2), 0.5), torch.full((3, 1, 2), 256.0), torch.full((1, 1, 2), 1.0)):
        with pytest.raises(ValueError, match="no "):
            whole_numbers(wrong)


# colours


def test_pictures_are_kept_in_their_colours(tmp_path: Path) -> None:
    """MobileViT takes BGR: kept and shown as RGB, flipped on the device."""
    files = PUBLISHED["apple/mobilevit-x-small (saved again)"]
    folder = transformers_folder(tmp_path / "m", files["model"], files["processor"])
    Image.new("RGB", (300, 300), (250, 20, 10)).save(tmp_path / "red.png")
    transform = merging.model_source(f"transformers:{folder}").transform()
    split = load_images([(tmp_path / "red.png", 0)], transform)
    shown = pixels(split, 0)
    assert shown is not None
    assert shown[128, 128].tolist() == [250, 20, 10]
    assert (normalise(transform)(split.inputs)[0, :, 0, 0] * 255).round().tolist() == [10, 20, 250]


# sizes and arguments


@pytest.mark.parametrize(
    ("model", "side"),
    [
        ({"timm": "vit_tiny_patch16_224", "img_size": 64}, 64),
        ("timm:vit_tiny_patch16_224(img_size=64)", 64),
        ({"torchvision": "vit_b_16", "image_size": 64}, 64),
        ({"open_clip": "ViT-B-32", "pretrained": "laion2b_s34b_b79k", "force_image_size": 64}, 64),
    ],
)
def test_models_built_with_arguments(model: Any, side: int, photos: Path) -> None:
    source = merging.model_source(model)
    assert source.sides == (side, side) == source.transform().sides
    assert source.example().shape == (2, 3, side, side)
    assert merging.model_source(source.spec).spec == source.spec, "the text is as good as the table"
    with torch.device("meta"):
        assert source.module(3).eval()(source.example().to("meta")).shape == (2, 3)
    task = described_task({"model": model, "held_out": str(photos)})
    assert task.held_out.inputs.shape == (8, side, side, 3)
    assert task.name == source.spec


def vit(folder: Path) -> Path:
    """A folder of a tiny ViT with its published processor."""
    said = PUBLISHED["google/vit-base-patch16-224"]
    return transformers_folder(folder, said["model"], said["processor"])


def test_arguments_of_transformers(tmp_path: Path) -> None:
    files = PUBLISHED["google/vit-base-patch16-224"]
    folder = str(transformers_folder(tmp_path / "vit", files["model"], files["processor"]))
    source = merging.model_source({"transformers": folder, "image_size": 64, "num_hidden_layers": 2})
    assert (source.sides, source.config.num_hidden_layers) == ((64, 64), 2)  # type: ignore[attr-defined]
    with pytest.raises(TaskError, match="did you mean 'image_size'"):
        merging.model_source({"transformers": folder, "image_sizes": 64})


def test_pictures_have_the_size_that_a_model_of_transformers_is_built_for(tmp_path: Path, photos: Path) -> None:
    folder = vit(tmp_path / "m")
    task = described_task({"model": {"transformers": str(folder), "image_size": 64}, "held_out": str(photos)})
    assert task.held_out.inputs.shape[1:] == (64, 64, 3)


def test_a_folder_keeps_its_parentheses(tmp_path: Path) -> None:
    for name in ("run (lr=0.1)", "run(num_hidden_layers=3)"):
        vit(tmp_path / name)
        plain = merging.model_source({"transformers": str(tmp_path / name)})
        assert plain.config.num_hidden_layers == 1  # type: ignore[attr-defined]
        built = merging.model_source({"transformers": str(tmp_path / name), "num_hidden_layers": 2})
        assert built.config.num_hidden_layers == 2  # type: ignore[attr-defined]
        assert merging.model_source(built.spec).spec == built.spec


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_models_that_rescale_their_inputs(name: str) -> None:
    """As torchvision builds them with published weights."""
    source = merging.model_source(f"torchvision:{name}")
    with torch.device("meta"):
        model: Any = source.module(3)
        other: Any = merging.model_source({"torchvision": name, "transform_input": False}).module(3)
    assert (model.transform_input, other.transform_input) == (True, False)
    assert "transform_input = false" in source.transform().notes[0]
    assert not merging.model_source({"torchvision": name, "transform_input": False}).transform().notes


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("timm:vit_base_patch16_224", "dino, mae? write timm:vit_base_patch16_224."),
        ("timm:vit_base_patch16_224.dino", None),
        ("timm:resnet18", None),
        ("open_clip:ViT-L-14", "write model = { open_clip = 'ViT-L-14', pretrained = 'laion2b_s32b_b82k' }"),
        ({"open_clip": "ViT-L-14", "pretrained": "openai"}, None),
        ("open_clip:ViT-B-32", None),
    ],
)
def test_published_weights_that_differ_are_said(model: Any, said: str | None) -> None:
    """Where nobody chooses among them."""
    source = merging.model_source(model)
    notes = source.transform().notes
    assert (said is None) == (not notes)
    assert said is None or said in notes[0]
    assert not source.transform(None, (0.5,) * 3, (0.5,) * 3).notes


def test_mean_and_std_hold_for_every_processor(tmp_path: Path, photos: Path) -> None:
    """MobileViT's takes none, EfficientNet's divides twice, and one scales to −1 … 1."""
    wanted = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    image, compared = Image.open(min(photos.rglob("*.*"))).convert("RGB"), 0
    for number, (name, said) in enumerate(PUBLISHED.items()):
        try:
            source = merging.model_source(
                f"transformers:{transformers_folder(tmp_path / f'{number}', said['model'], said['processor'])}"
            )
            own = source.transform()
        except TaskError:  # transformers refuses it too
            continue
        if own.normalisation is None:
            continue
        found = source.transform(None, wanted.mean, wanted.std)
        assert found.normalisation == replace(wanted, flipped=own.normalisation.flipped), name
        assert np.array_equal(found(image), own(image))
        compared += 1
    assert compared > 40


def test_mean_and_std_where_a_transform_is_not_divided(tmp_path: Path, photos: Path) -> None:
    source, image = (
        merging.model_source(f"transformers:{padded(tmp_path / 'm')}"),
        Image.open(min(photos.rglob("*.*"))).convert("RGB"),
    )
    assert not np.array_equal(source.transform(None, (0.1,) * 3)(image), source.transform()(image))


def test_a_size_that_a_processor_does_not_make(tmp_path: Path) -> None:
    from transformers import PerceiverImageProcessor, ViTConfig

    ViTConfig(architectures=["ViTForImageClassification"]).save_pretrained(tmp_path)
    PerceiverImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(TaskError, match="makes no pictures of 64 pixels; leave size out"):
        merging.model_source(f"transformers:{tmp_path}").transform(64)


def test_data_of_another_kind_needs_no_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of one channel, and one whose type has no image processor, on a function's floats."""
    from transformers import Dinov2WithRegistersConfig

    Dinov2WithRegistersConfig(
        architectures=["Dinov2WithRegistersForImageClassification"],
        image_size=28,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    ).save_pretrained(tmp_path / "m")
    (tmp_path / "floats_of_channels.py").write_text(
        "import torch\n\n"
        "def one():\n    return torch.zeros(4, 1, 28, 28), torch.arange(4)\n\n"
        "def three():\n    return torch.zeros(4, 3, 28, 28), torch.arange(4)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.new("RGB", (28, 28)).save(tmp_path / "set" / "a" / "0.png")
    for model, function, said in (
        ({"timm": "resnet18", "in_chans": 1}, "one", "takes images of 1 channels"),
        (f"transformers:{tmp_path}/m", "three", "no image processor for"),
    ):
        task = described_task({"model": model, "held_out": f"python:floats_of_channels:{function}"})
        assert task.held_out.inputs.dtype == torch.float32
        with pytest.raises(TaskError, match=said):
            described_task({"model": model, "held_out": str(tmp_path / "set")})


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_default_weights_fit_the_model(name: str) -> None:
    source = merging.model_source(f"torchvision:{name}")
    entries: Any = torchvision.models.get_model_weights(name)
    expected = entries.IMAGENET1K_SWAG_LINEAR_V1 if name == "vit_h_14" else entries.DEFAULT
    assert source.weights is expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"timm": "vit_tiny_patch16_224", "imgsize": 64}, "has no argument 'imgsize'"),
        ({"timm": "vit_tiny_patch16_224", "num_classes": 4}, "read off the checkpoints"),
        ({"timm": "resnet18", "pretrained": True}, "nothing is downloaded"),
        ({"timm": "resnet18", "in_chans": 1}, "takes images of 1 channels"),
        ({"timm": "vit_tiny_patch16_224", "img_size": 64.5}, "cannot be built"),
        ({"timm": "vit_tiny_patch16_224", "img_size": {"a": 1}}, "cannot be built"),
        ({"open_clip": "ViT-B-32", "force_image_size": "64"}, "cannot be built"),
        ({"torchvision": "resnet18", "weights": "IMAGENET1K_V3"}, "did you mean 'IMAGENET1K_V1'"),
        ({"torchvision": "resnet18", "widht": 3}, "has no argument 'widht'"),
        ({"open_clip": "ViT-B-32", "pretrained": "openal"}, "did you mean 'openai'"),
        ({"open_clip": "ViT-B-32", "force_image_sizes": 64}, "did you mean 'force_image_size'"),
        ({"timn": "resnet18"}, "unknown model source 'timn'; did you mean 'timm'?"),
        ({"timm": "resnet18", "torchvision": "resnet18"}, "several sources"),
        ({"timm": 18}, "names no source and model"),
        (18, "a model is a name"),
        ("timm:resnet18(img_size=)", "write arguments as"),
        ("timm:resnet18(img_size=__import__('os'))", "write arguments as"),
    ],
)
def test_arguments_that_cannot_be(model: Any, said: str) -> None:
    def use() -> None:
        source = merging.model_source(model)
        _ = source.module(3), source.transform().divided, source.transform().sides

    with pytest.raises(TaskError, match=said) as caught:
        use()
    assert len(str(caught.value).splitlines()) == 1


def test_functions_take_arguments_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_with_arguments.py").write_text(
        "from torch import nn\n\ndef build(width):\n    return nn.Linear(width, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = merging.model_source({"python": "mine_with_arguments:build", "width": 5}).module()
    assert module.in_features == 5


@pytest.mark.slow
def test_a_table_through_the_command_line(merge: Merge, tmp_path: Path, photos: Path) -> None:
    """The table stands in the journal as text, and the run goes on from there."""
    from safetensors.torch import save_file

    source = merging.model_source("timm:vit_tiny_patch16_224(img_size=32, depth=1)")
    (tmp_path / "pool").mkdir()
    for seed in range(2):
        torch.manual_seed(seed)
        state = {n: t + 0.01 * torch.randn(t.shape) for n, t in source.module(2).state_dict().items()}
        save_file(state, tmp_path / f"pool/{seed}.safetensors")
    (tmp_path / "merge.toml").write_text(
        '[task]\nmodel = { timm = "vit_tiny_patch16_224", img_size = 32, depth = 1 }\n'
        f'held_out = "{photos}"\n[pool]\nmodels = ["pool"]\n'
        '[run]\nstrategy = "uniform"\noutput = "out"\n'
    )
    ran = merge("run")
    assert ran.code == 0, ran.err
    assert "timm:vit_tiny_patch16_224(img_size=32, depth=1)" in (tmp_path / "out/report.json").read_text()
    assert merge("evaluate", "out").code == 0
    assert merge("run", "--resume", "out").code == 0


def test_code_in_a_table_needs_trust(merge: Merge, tmp_path: Path) -> None:
    (tmp_path / "merge.toml").write_text(
        '[task]\nmodel = { python = "mine:build", width = 3 }\nheld_out = "x.npz:a"\n[pool]\nmodels = ["pool"]\n'
    )
    refused = merge("check")
    assert refused.code != 0
    assert "wants to run code" in refused.err


def test_a_size_that_is_none() -> None:
    with pytest.raises(TaskError, match="'stored'"):
        preparation(merging.model_source("timm:resnet18"), "as they are")  # type: ignore[arg-type]
