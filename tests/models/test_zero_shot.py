"""Zero-shot heads of whole CLIPs: open_clip's own code says the same, and mixes get the head of their own weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip import build_zero_shot_classifier
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.data.images import Normalise
from merging.errors import PoolError, TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.mixing.arithmetic import materialise
from merging.models.clip import OpenClip
from merging.models.linear_start import linear_start
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.values.recipe import Recipe
from tests.conftest import Merge

pytestmark = pytest.mark.gpu

NAME = "merging-tiny-clip"
CLASSES = ["red square", "green disc", "blue_star"]
TEMPLATES = ["a photo of a {}.", "a drawing of a {}."]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small configuration beside open_clip's own ones."""
    from open_clip import factory

    monkeypatch.setitem(factory._MODEL_CONFIGS, NAME, CONFIG)


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    """Two CLIPs that differ everywhere."""
    for number in range(2):
        save_file(clip(number).state_dict(), tmp_path / f"clip_{number}.safetensors")
    return ModelPool.open([tmp_path / "clip_*.safetensors"])


def clip(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return open_clip.CLIP(**CONFIG).eval()


def images(count: int = 12) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def by_open_clip(model: nn.Module, pixels: Tensor, name: str = NAME) -> Tensor:
    """Logits as open_clip's own evaluation makes them."""
    names = [each.replace("_", " ") for each in CLASSES]
    head = build_zero_shot_classifier(model, open_clip.get_tokenizer(name), names, TEMPLATES)
    with torch.no_grad():
        return model.logit_scale.exp() * model.encode_image(pixels, normalize=True) @ head  # type: ignore[operator]


def test_logits_are_those_of_open_clip(pool: ModelPool) -> None:
    module = OpenClip(NAME).named(CLASSES, TEMPLATES).build(pool).eval()
    assert list(module.state_dict()) == list(clip(0).state_dict())
    for number in range(2):  # the second time the head of the first must not be left
        module.load_state_dict(clip(number).state_dict())
        with torch.no_grad():
            torch.testing.assert_close(module(images()), by_open_clip(clip(number), images()), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(by_open_clip(clip(0), images()), by_open_clip(clip(1), images()))


def test_a_mix_has_the_head_of_its_own_text_tower(pool: ModelPool) -> None:
    """Through the evaluator, in place, staged and cached: the logits of a merge are those of the merged weights."""
    pixels = torch.randint(0, 256, (30, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    prepare = Normalise((0.5,) * 3, (0.5,) * 3)
    source = OpenClip(NAME).named(CLASSES, TEMPLATES)
    task = Task(name="shapes", build=source.build, held_out=Split.of(pixels, torch.arange(30) % 3), prepare=prepare)
    made = plan(pool, merging.ManifoldMix(), partitioner=merging.Block(), task=task, device="cpu", precision="fp32")
    assert made.live is not None
    assert made.numerics is not None
    text = [c for c in made.partition.components if any(n.startswith("transformer.") for n in c.tensors)]
    assert text
    assert not any(component.inert for component in text)
    evaluator = Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)))
    ends = [Recipe.single(row, made.partition) for row in pool.ingredients]
    for share in (0.25, 0.75, 0.25):
        mixed = ends[0].lerp(ends[1], share)
        plain = clip(0)
        plain.load_state_dict(materialise(mixed, pool))
        expected = by_open_clip(plain, prepare(pixels))
        torch.testing.assert_close(evaluator.outputs.logits(mixed), expected, rtol=1e-4, atol=1e-4)
        right = int((expected.argmax(1) == task.held_out.labels).sum())
        assert evaluator.evaluate(mixed).right == right
    path = evaluator.between(ends[0], ends[1], "lerp")
    for share in (0.3, 0.6):
        plain.load_state_dict(materialise(ends[0].lerp(ends[1], share), pool))
        right = int((by_open_clip(plain, prepare(pixels)).argmax(1) == task.held_out.labels).sum())
        assert path(torch.full((len(made.partition),), share).double().numpy()).right == right


def test_linear_start_gives_the_same_logits_in_the_layout_of_model_soups(pool: ModelPool, tmp_path: Path) -> None:
    linear_start(tmp_path / "clip_0.safetensors", NAME, CLASSES, TEMPLATES, tmp_path / "start.safetensors")
    start = ModelPool.open([tmp_path / "start.safetensors"])
    module = OpenClip(NAME).build(start).eval()
    module.load_state_dict(load_file(tmp_path / "start.safetensors"))
    assert type(module).__name__ == "ClipClassifier"
    with torch.no_grad():
        torch.testing.assert_close(module(images()), by_open_clip(clip(0), images()), rtol=1e-5, atol=1e-5)


def test_the_head_is_read_where_the_model_is(pool: ModelPool, tmp_path: Path, device: str) -> None:
    """The prompts go along; a second model's head is read anew there; so are the linear layer's logits."""
    pixels = torch.randint(0, 256, (9, 32, 32, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    prepare = Normalise((0.5,) * 3, (0.5,) * 3)
    linear_start(tmp_path / "clip_0.safetensors", NAME, CLASSES, TEMPLATES, tmp_path / "start.safetensors")
    start = ModelPool.open([tmp_path / "start.safetensors"])
    whole, linear = OpenClip(NAME).named(CLASSES, TEMPLATES), OpenClip(NAME)
    for source, models, numbers in ((whole, pool, (0, 1)), (linear, start, (0,))):
        task = Task(name="shapes", build=source.build, held_out=Split.of(pixels, torch.arange(9) % 3), prepare=prepare)
        made = plan(models, merging.Best(), task=task, device=device, precision="fp32")
        assert made.live is not None
        assert made.numerics is not None
        evaluator = Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)))
        for number in numbers:
            logits = evaluator.outputs.logits(Recipe.single(models.ingredients[number], made.partition))
            expected = by_open_clip(clip(number), prepare(pixels))
            torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-2)


def test_by_the_commands(pool: ModelPool, tmp_path: Path, merge: Merge) -> None:
    """The classes' names are those of the folders, the templates those of merge.toml; the text tower is merged too."""
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for number in range(8):
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shapes" / name / f"{number}.png")
    (tmp_path / "merge.toml").write_text(
        f'[task]\nmodel = "open_clip:{NAME}"\nheld_out = "shapes"\ntemplates = {json.dumps(TEMPLATES)}\n'
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n"
    )
    ran = merge("run", "--models", "clip_*.safetensors", "--strategy", "uniform", "--output", "merged")
    assert ran.code == 0, ran.err
    model = clip(0)
    model.load_state_dict(load_file(tmp_path / "merged" / "model.safetensors"))
    right, names = 0, sorted(CLASSES)
    texts = open_clip.get_tokenizer(NAME)([t.format(n.replace("_", " ")) for n in names for t in TEMPLATES])
    for number, name in enumerate(names):
        for file in (tmp_path / "shapes" / name).iterdir():
            pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
            with torch.no_grad():
                said = model.encode_text(texts, normalize=True).view(3, 2, -1).mean(1)  # type: ignore[operator]
                said = said / said.norm(dim=1, keepdim=True)
                seen = model.encode_image((pixels - 0.5) / 0.5, normalize=True)  # type: ignore[operator]
            right += int((seen @ said.T).argmax()) == number
    report = json.loads((tmp_path / "merged" / "report.json").read_text())
    assert report["validation"]["merged"] == right / 24


@pytest.mark.slow
def test_the_architecture_of_the_paper(tmp_path: Path) -> None:
    """ViT-B/32 with random weights: the published names, and open_clip's logits."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    source = OpenClip("ViT-B-32-quickgelu").named(CLASSES, TEMPLATES)
    module = source.build(ModelPool.open([tmp_path / "clip.safetensors"])).eval()
    assert len(module.state_dict()) == 302
    module.load_state_dict(model.state_dict())
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            module(pixels), by_open_clip(model, pixels, "ViT-B-32-quickgelu"), rtol=1e-4, atol=1e-4
        )


def test_mistakes(pool: ModelPool, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"give the classes' names for a zero-shot head"):
        OpenClip(NAME).build(pool)
    with pytest.raises(TaskError, match=r"template 'a photo' needs one \{\}"):
        OpenClip(NAME).named(CLASSES, ["a photo"]).build(pool)
    with pytest.raises(TaskError, match="leave the templates out"):
        merging.model_source("timm:resnet18").named(CLASSES, TEMPLATES)
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "tower.safetensors")
    with pytest.raises(PoolError, match="has no text tower"):
        linear_start(tmp_path / "tower.safetensors", NAME, CLASSES, TEMPLATES, tmp_path / "start.safetensors")
    with pytest.raises(PoolError, match="is no open_clip:ViT-B-32"):
        linear_start(tmp_path / "clip_0.safetensors", "ViT-B-32", CLASSES, TEMPLATES, tmp_path / "start.safetensors")
    assert not (tmp_path / "start.safetensors").exists()
