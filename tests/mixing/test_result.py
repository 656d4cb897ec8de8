"""The result is looked at: what its dtype cannot hold is refused, by name and value, on every path; nothing is left."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import merging
from merging.errors import ResultError
from merging.mixing import reading, streaming, summing
from merging.mixing.arithmetic import weighted_sum
from merging.mixing.streaming import stream
from merging.mixing.writing import Writing
from merging.partitioners.whole import Whole
from merging.plugins.progress import Silent
from merging.plugins.strategy import MixStrategy
from merging.storage.pool import ModelPool
from merging.storage.raw import bytes_of, first_unfit, largest
from merging.storage.result import save_model
from merging.storage.shards import ModelWriter
from merging.strategies.dare import Dare
from merging.strategies.task_arithmetic import TaskArithmetic
from merging.strategies.ties import Ties
from merging.strategies.uniform import Uniform
from merging.strategies.weighted import Weighted
from merging.values.recipe import Ensemble, Recipe
from tests.conftest import Merge

ENDS = {  # the largest number, and from where on numbers do not round to it (IEEE 754; OCP 8-bit floating point)
    "float64": (float(np.finfo(np.float64).max), math.inf),
    "float32": (float(np.finfo(np.float32).max), 2.0**128 - 2.0**103),
    "float16": (65504.0, 65520.0),
    "bfloat16": (2.0**128 - 2.0**120, 2.0**128 - 2.0**119),
    "float8_e4m3fn": (448.0, math.nextafter(464.0, math.inf)),  # 464 is a tie, and goes to the even 448
    "float8_e5m2": (57344.0, 61440.0),
}
SIGNS = st.sampled_from([-1.0, 1.0])
_number = itertools.count()


def torch_dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def written(folder: Path, *states: dict[str, Tensor], base: dict[str, Tensor] | None = None) -> ModelPool:
    folder.mkdir()
    for number, state in enumerate(states):
        save_file(state, folder / f"m{number}.safetensors")
    if base is not None:
        save_file(base, folder / "base.safetensors")
    return ModelPool.open([folder / "m*.safetensors"], folder / "base.safetensors" if base is not None else None)


def fresh(folder: Path) -> Path:
    return folder / f"{next(_number)}"


PATHS: dict[str, dict[str, object]] = {
    "safetensors": {},
    "shards": {"max_shard_size": "1KB"},
    "pt": {"format": "pt"},
    "float32 sums": {"accumulate": "float32"},
}


def save(pool: ModelPool, strategy: MixStrategy, out: Path, dtype: str | None, path: str) -> dict[str, Tensor]:
    """The written model, read back; its state dict must be the same."""
    result = merging.merge(pool, strategy, output=out, dtype=dtype, **PATHS[path])  # type: ignore[arg-type]
    if path == "pt":
        found: dict[str, Tensor] = torch.load(out / "model.pt", weights_only=True)
    else:
        found = {name: tensor for file in out.glob("model*.safetensors") for name, tensor in load_file(file).items()}
    for name, tensor in result.state_dict().items():
        assert torch.equal(bits(tensor), bits(found[name]))
    return found


def bits(tensor: Tensor) -> Tensor:
    return torch.from_numpy(bytes_of(tensor))


@given(dtype=st.sampled_from(sorted(ENDS)), share=st.floats(0.96, 1.08), sign=SIGNS)
def test_what_a_dtype_holds(dtype: str, share: float, sign: float) -> None:
    end, lost_from = ENDS[dtype]
    assert largest(dtype) == end == torch.finfo(torch_dtype(dtype)).max
    value = sign * min(share * end, float(np.finfo(np.float64).max))
    values = np.array([1.0, value, 0.0])
    cast = torch.from_numpy(values).to(torch_dtype(dtype))
    found = first_unfit(values, bytes_of(cast), dtype)
    if dtype == "float16" and abs(abs(value) - lost_from) < 0.01:
        return  # rounded by way of float32, as torch does
    assert found == (1 if abs(value) >= lost_from else None)


@given(
    given_as=st.sampled_from(["float32", "float64", "float16", "bfloat16"]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2"]),
    path=st.sampled_from(sorted(PATHS)),
    factor=st.sampled_from([0.25, 0.9, 0.999, 1.0, 1.07, 1.5, 4.0]),
    sign=SIGNS,
    size=st.sampled_from([1, 3, 700]),
    data=st.data(),
)
def test_beyond_the_largest_number_is_refused(
    tmp_path: Path, given_as: str, dtype: str, path: str, factor: float, sign: float, size: int, data: st.DataObject
) -> None:
    """Averages of two equal models, whose value is around the largest number of the dtype that is written."""
    value = torch.tensor(sign * factor * min(ENDS[dtype][0], 2.5e38), dtype=torch.float64).to(torch_dtype(given_as))
    if not value.isfinite():
        return
    state = {"a.first": torch.ones(3, dtype=value.dtype), "b.second": torch.zeros(size, dtype=value.dtype)}
    place = data.draw(st.integers(0, size - 1))
    state["b.second"][place] = value
    pool, out = written(fresh(tmp_path), state, state), fresh(tmp_path)
    if abs(float(value)) >= ENDS[dtype][1]:
        with pytest.raises(ResultError, match=rf"tensor 'b\.second' .*\[{place}\]") as caught:
            save(pool, Uniform(), out, dtype, path)
        said = str(caught.value)
        if path == "float32 sums" and abs(float(value)) >= ENDS["float32"][1]:
            assert "inf at" in said
            assert "leave out `accumulate=float32`" in said
        else:
            summed = np.float32(float(value)) if path == "float32 sums" else float(value)
            assert f"{summed:.8g} at" in said
            assert f"beyond the largest number of {dtype}" in said
            assert "pass `dtype=" in said
        assert not out.exists()
    else:
        found = save(pool, Uniform(), out, dtype, path)["b.second"].double()
        assert found.isfinite().all()
        assert found[place] == pytest.approx(float(value), rel=0.07)


@pytest.mark.parametrize("place", [(0, 0), (131, 71), (200, 123), (299, 999)])
@pytest.mark.parametrize("accumulate", ["float64", "float32"])
def test_pieces_blocks_and_threads(
    tmp_path: Path, place: tuple[int, int], accumulate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place is that in the whole tensor, wherever it was cut."""
    monkeypatch.setattr(reading, "UNIT", 1)
    monkeypatch.setattr(reading, "BLOCK", 1000)
    monkeypatch.setattr(summing, "BLOCK", 1000)
    monkeypatch.setattr(streaming, "TASK", 3000)
    large = torch.ones(300, 1000)
    large[place] = -7e4
    pool = written(tmp_path / "pool", {"large": large}, {"large": large})
    with pytest.raises(ResultError, match=rf"'large' .* would be -70000 at \[{place[0]}, {place[1]}\], beyond"):
        merging.merge(pool, Uniform(), output=tmp_path / "out", dtype="float16", accumulate=accumulate)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "value", "kept"),
    [
        ("float8_e4m3fn", 460.0, 448.0),
        ("float8_e4m3fn", -1000.0, None),
        ("float8_e4m3fn", 465.0, None),
        ("float8_e5m2", 60000.0, 57344.0),
        ("float8_e5m2", 62000.0, None),
        ("float16", 65519.0, 65504.0),
        ("float16", 65520.0, None),
        ("bfloat16", 3.4e38, None),
    ],
)
def test_rounding_to_the_largest_is_rounding(tmp_path: Path, dtype: str, value: float, kept: float | None) -> None:
    one = {"w": torch.tensor([1.0, value])}
    pool = written(tmp_path / "pool", one, one)
    if kept is None:
        with pytest.raises(ResultError, match=rf"'w' .* at \[1\], beyond the largest number of {dtype}"):
            save(pool, Uniform(), tmp_path / "out", dtype, "safetensors")
    else:
        assert save(pool, Uniform(), tmp_path / "out", dtype, "safetensors")["w"][1].double() == kept


def extreme(dtype: torch.dtype, value: float) -> dict[str, Tensor]:
    return {"w": torch.full((2, 3), value, dtype=dtype), "n": torch.tensor(3)}


BEYOND: dict[str, MixStrategy] = {
    "task arithmetic": TaskArithmetic(scale=2.0),
    "ties": Ties(scale=4.0, density=1.0),
    "dare": Dare(scale=4.0, drop=0.5),
    "weighted": Weighted(weights=("m0=3", "m1=-1", "m2=2"), normalize=False),
}


@pytest.mark.parametrize("path", ["safetensors", "pt", "shards"])
@pytest.mark.parametrize("name", sorted(BEYOND))
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_strategies_that_extrapolate(tmp_path: Path, name: str, path: str, dtype: str) -> None:
    top = 0.9 * largest(dtype)
    kind = torch_dtype(dtype)
    states = [extreme(kind, top), extreme(kind, top), extreme(kind, top / 2)]
    pool = written(tmp_path / "pool", *states, base=extreme(kind, top / 4))
    with pytest.raises(ResultError, match=rf"tensor 'w' .*at \[\d, \d\], beyond the largest number of {dtype}"):
        save(pool, BEYOND[name], tmp_path / "out", None, path)
    assert not (tmp_path / "out").exists()
    if dtype != "float32":  # the way out that the message names
        found = save(pool, BEYOND[name], tmp_path / "wide", "float32" if dtype == "float16" else "float64", path)
        assert found["w"].isfinite().all()
        assert float(found["w"].abs().max()) > top


def test_numbers_that_no_dtype_holds(tmp_path: Path) -> None:
    huge = {"w": torch.full((3,), 1.7e308, dtype=torch.float64)}
    pool = written(tmp_path / "pool", huge, huge)
    save(pool, Uniform(), tmp_path / "mean", None, "safetensors")
    pool = ModelPool.open([tmp_path / "pool"])
    with pytest.raises(ResultError, match=r"tensor 'w' of the merged model would be inf at \[0\]"):
        save(pool, Weighted(weights=("m0=1", "m1=1"), normalize=False), tmp_path / "sum", None, "safetensors")
    with pytest.raises(ResultError, match=r"would be inf .*leave out `accumulate=float32`"):
        save(ModelPool.open([tmp_path / "pool"]), Uniform(), tmp_path / "f32", None, "float32 sums")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean", "pool"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 70000.0])
@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_overrides_are_looked_at(tmp_path: Path, bad: float, format: str) -> None:
    pool = written(tmp_path / "pool", extreme(torch.float16, 1.0), extreme(torch.float16, 2.0))
    override = torch.ones(2, 3)
    override[1, 2] = bad
    recipe = Recipe(pool.ingredients, Whole().split(pool.tensors), np.full((2, 1), 0.5), {"w": override})
    (tmp_path / "out").mkdir()
    with pytest.raises(ResultError, match=r"tensor 'w' .* (nan|inf|70000) at \[1, 2\]"):
        Writing(format=format).model(recipe, pool, tmp_path / "out", Silent(), lambda: False)
    assert not list((tmp_path / "out").glob("*.pt"))
    with pytest.raises(ResultError, match="tensor 'w'"):
        Writing().state_dict(recipe, pool)
    with pytest.raises(ResultError, match="tensor 'w'"):
        Writing().model(recipe, pool, None, Silent(), lambda: False)


def test_members_of_an_ensemble_are_looked_at(tmp_path: Path) -> None:
    pool = written(tmp_path / "pool", extreme(torch.float32, 1.0), extreme(torch.float32, 70000.0))
    whole = Whole().split(pool.tensors)
    both = Ensemble(tuple(Recipe.single(row, whole) for row in pool.ingredients), (1.0, 1.0))
    (tmp_path / "out").mkdir()
    with pytest.raises(ResultError, match="'w' of the merged model would be 70000"):
        Writing(dtype="float16").ensemble(both, pool, tmp_path / "out", Silent(), lambda: False)


@pytest.mark.parametrize("more", [(), ("--format", "pt"), ("--max-shard-size", "1KB")])
def test_the_command_and_apply(merge: Merge, tmp_path: Path, more: tuple[str, ...]) -> None:
    written(tmp_path / "pool", extreme(torch.float32, 70000.0), extreme(torch.float32, 70000.0))
    ran = merge("run", "--strategy", "uniform", "--models", "pool", "--dtype", "float16", "--output", "out", *more)
    assert ran.code == 2
    assert "tensor 'w' of the merged model would be 70000 at [0, 0], beyond the largest number of float16" in ran.err
    assert not Path("out").exists()
    assert merge("run", "--strategy", "uniform", "--models", "pool", "--output", "out", *more).code == 0
    for name in ("again.safetensors", "again.pt", "again"):
        ran = merge("apply", "out", "--dtype", "float16", "--output", name)
        assert ran.code == 2
        assert "tensor 'w'" in ran.err
        assert "70000" in ran.err
    assert sorted(p.name for p in Path().iterdir()) == ["out", "pool"]


def test_task_arithmetic_of_half_precision(merge: Merge, tmp_path: Path) -> None:
    half = [extreme(torch.float16, value) for value in (60000.0, 60000.0, 1.0)]
    written(tmp_path / "pool", *half[:2], base=half[2])
    words = (
        "run",
        "--strategy",
        "task-arithmetic",
        "-o",
        "strategy.scale=2",
        "--models",
        "pool/m*",
        "--base",
        "pool/base.safetensors",
        "--output",
        "out",
    )
    ran = merge(*words)
    assert ran.code == 2
    assert "'w' of the merged model would be 239997 at [0, 0], beyond the largest number of float16, 65504" in ran.err
    assert not Path("out").exists()
    assert merge(*words, "--dtype", "float32").code == 0
    assert load_file("out/model.safetensors")["w"][0, 0] == 239997.0


def test_a_run_with_a_task_goes_on_with_another_dtype(merge: Merge, tiny: list[str], tmp_path: Path) -> None:
    tiny = ["run", "--models", str(tmp_path / "pool" / "model_*.safetensors"), *tiny[3:]]
    pool = merging.testing.tiny_pool(tmp_path / "pool", models=2)
    for checkpoint in pool.checkpoints:
        state = {name: tensor.clone() for name, tensor in load_file(checkpoint.path).items()}
        state["unused"][0, 0] = 1e5  # it reaches no logit
        save_file(state, checkpoint.path)
    ran = merge(*tiny, "--strategy", "uniform", "--dtype", "float16", "--output", "out")
    assert ran.code == 2
    assert "tensor 'unused'" in ran.err
    assert [path.name for path in Path("out").iterdir()] == ["events.jsonl"]
    again = merge("run", "--resume", "out", "--dtype", "bfloat16", "--trust-code")
    assert again.code == 0, again.err
    assert load_file("out/model.safetensors")["unused"].dtype == torch.bfloat16


@given(
    values=st.lists(st.floats(-4, 4), min_size=1, max_size=5), dtype=st.sampled_from(["float32", "float16", "bfloat16"])
)
def test_negative_variances_are_told(tmp_path: Path, values: list[float], dtype: str) -> None:
    states = [
        {
            "bn.running_var": torch.tensor(values, dtype=torch_dtype(dtype)) * factor,
            "bn.weight": -torch.ones(2),
            "running_var": torch.ones(2, dtype=torch_dtype(dtype)),
            "deep.bn2.running_var": -torch.ones(2, dtype=torch_dtype(dtype)) * factor,
        }
        for factor in (1.0, 0.5)
    ]
    pool, out = written(fresh(tmp_path), *states), fresh(tmp_path)
    out.mkdir()
    found = Writing().model(Recipe.mean(pool.ingredients, Whole().split(pool.tensors)), pool, out, Silent(), bool)
    own = weighted_sum([(state["bn.running_var"], 0.5) for state in states], torch_dtype(dtype))
    assert set(found.negative) == {"deep.bn2", *(["bn"] if bool((own < 0).any()) else [])}


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_negative_variances_are_said(merge: Merge, tmp_path: Path, format: str) -> None:
    models = [{"bn.running_var": torch.tensor([0.2, 1.0]), "bn2.running_var": torch.tensor([0.1])} for _ in range(2)]
    written(tmp_path / "pool", *models, base={name: tensor - 3 for name, tensor in models[0].items()})
    ran = merge(
        "run",
        "--strategy",
        "task-arithmetic",
        "-o",
        "strategy.scale=0.1",
        "--models",
        "pool/m*",
        "--base",
        "pool/base.safetensors",
        "--output",
        "out",
        "--format",
        format,
    )
    assert ran.code == 0, ran.err
    said = "negative variance in 2 layers (bn, bn2)"
    assert said in " ".join(ran.out.split())
    assert said in Path("out/README.md").read_text()
    assert any(said in note for note in json.loads(Path("out/report.json").read_text())["notes"])
    ran = merge("apply", "out", "--output", "again.safetensors")
    assert ran.code == 0, ran.err
    assert said in " ".join(ran.err.split())
    ran = merge("run", "--strategy", "uniform", "--models", "pool/m*", "--output", "mean")
    assert "negative variance" not in ran.out


def rewrite(path: Path) -> None:
    """Other bytes in the same file, in place."""
    content = bytearray(path.read_bytes())
    content[-4:] = np.array([123.0], dtype=np.float32).tobytes()
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize("path", sorted(PATHS))
@pytest.mark.parametrize("form", ["safetensors", "pt"])
@pytest.mark.parametrize("late", [False, True])
def test_inputs_that_change_meanwhile_are_refused(
    tmp_path: Path, path: str, form: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first byte is read, and after the last one of that model."""
    (tmp_path / "pool").mkdir()
    for number in range(2):
        save_model(tmp_path / "pool" / f"m{number}.{form}", {"w": torch.full((5,), float(number))}, form)
        os.utime(tmp_path / "pool" / f"m{number}.{form}", (1e9, 1e9))  # clocks of file systems tick slowly
    pool = ModelPool.open([tmp_path / "pool"])
    target = pool.checkpoints[1].path

    class Meddling(Uniform):
        def mix(self, problem: merging.Problem) -> Recipe:
            found = super().mix(problem)
            if not late:
                rewrite(target)
            return found

    if late:
        real = ModelWriter.write if path != "pt" else merging.mixing.output.InMemory.write

        def write(self: ModelWriter, name: str, offset: int, values: np.ndarray) -> None:
            rewrite(target)
            real(self, name, offset, values)

        monkeypatch.setattr(ModelWriter if path != "pt" else merging.mixing.output.InMemory, "write", write)
    with pytest.raises(merging.MergingError, match="changed since"):
        merging.merge(pool, Meddling(), output=tmp_path / "out", **PATHS[path])  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_with_a_task_too(tmp_path: Path, format: str) -> None:
    pool = merging.testing.tiny_pool(tmp_path / "pool", models=2)

    class Meddling(Uniform):
        def mix(self, problem: merging.Problem) -> Recipe:
            found = super().mix(problem)
            rewrite(pool.checkpoints[1].path)
            return found

    with pytest.raises(merging.MergingError, match="changed since"):
        merging.merge(
            pool, Meddling(), task=merging.testing.tiny_task(), baselines=False, output=tmp_path / "out", format=format
        )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["events.jsonl"]


def test_a_result_in_memory_is_of_the_inputs_that_were_named(tmp_path: Path) -> None:
    pool = written(tmp_path / "pool", {"w": torch.ones(5)}, {"w": torch.zeros(5)})
    result = merging.merge(pool, Uniform())
    assert torch.equal(result.state_dict()["w"], torch.full((5,), 0.5))
    rewrite(pool.checkpoints[0].path)
    with pytest.raises(merging.MergingError, match="changed since"):
        result.state_dict()


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_every_byte_is_read_once(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = written(
        tmp_path / "pool", {"w": torch.ones(50), "b": torch.ones(3)}, {"w": torch.zeros(50), "b": torch.ones(3)}
    )
    read = dict.fromkeys(pool.names, 0)
    real = merging.Checkpoint.read_bytes

    def counted(self: merging.Checkpoint, name: str, offset: int, into: memoryview) -> None:
        read[self.name] += len(into)
        real(self, name, offset, into)

    monkeypatch.setattr(merging.Checkpoint, "read_bytes", counted)
    monkeypatch.setattr(merging.Checkpoint, "read", lambda self, name: pytest.fail(f"{name} is read another time"))
    result = merging.merge(pool, Uniform(), output=tmp_path / "out", format=format)
    assert read == {"m0": 212, "m1": 212}
    monkeypatch.undo()
    again = ModelPool.open([tmp_path / "pool"])
    assert [i.hash for i in result.merge.ingredients] == [i.hash for i in again.ingredients]


def test_the_bits_of_a_pt_are_the_definition(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [
        {dtype: torch.randn(9, 70, generator=generator).to(torch_dtype(dtype)) for dtype in ENDS}
        | {"z": torch.tensor(k), "a": torch.ones(2)}
        for k in range(3)
    ]
    pool = written(tmp_path / "pool", *states)
    result = merging.merge(pool, Uniform(), output=tmp_path / "out", format="pt")
    found = torch.load(tmp_path / "out/model.pt", weights_only=True)
    assert list(found) == list(pool.tensors)
    for name in ENDS:
        wanted = weighted_sum([(state[name], 1 / 3) for state in states], torch_dtype(name))
        assert torch.equal(bits(found[name]), bits(wanted))
    with ModelWriter(fresh_folder(tmp_path), pool.tensors) as writer:
        assert stream(result.merge, pool, writer, Silent()).hash == result.report.content_hash  # type: ignore[arg-type]


def fresh_folder(folder: Path) -> Path:
    made = fresh(folder)
    made.mkdir()
    return made
