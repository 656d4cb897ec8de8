"""What is wrong with a configuration, or not supported, is one line that names the entry, before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Merge
from tests.storage.test_vocabularies import WORDS, write

TIES = """
merge_method: ties
base_model: base
models:
  - model: first
    parameters: {weight: 0.5}
  - model: second
    parameters: {weight: 0.5}
"""
LINEAR = """
merge_method: linear
models:
  - model: first
    parameters: {weight: 0.5}
  - model: second
    parameters: {weight: 0.5}
"""
SLICED = """
merge_method: linear
parameters: {weight: 1}
slices:
  - sources:
    - {model: first, layer_range: [0, 4]}
    - {model: second, layer_range: [0, 4]}
"""
BAD = {
    # misspelt keys, of which mergekit says nothing
    "key": (TIES + "paramters: {density: 0.5}", "line 9: 'paramters'; did you mean 'parameters'?"),
    "method": (TIES.replace("ties", "tise"), "line 2: 'tise'; did you mean 'ties'?"),
    "parameter": (TIES + "parameters: {densty: 0.5}", "line 9, parameters: 'densty'; did you mean 'density'?"),
    "own": (
        TIES.replace("{weight: 0.5}", "{wieght: 0.5}"),
        "models[0].parameters: 'wieght'; did you mean 'weight'?",
    ),
    "of another": (LINEAR + "parameters: {density: 0.5}", "parameters.density is no parameter of 'linear'"),
    "of the whole": (TIES.replace("{weight: 0.5}", "{normalize: true}"), "belongs to the whole merge, not to a model"),
    "model": (LINEAR.replace("- model: second", "- modl: second"), "models[1]: 'modl'; did you mean 'model'?"),
    "filter": (
        LINEAR + "parameters: {normalize: [{filtr: mlp, value: 1}]}",
        "parameters.normalize[0]: 'filtr'; did you mean 'filter'?",
    ),
    "dtype": (LINEAR + "dtype: bfloat61", "line 8: 'bfloat61'; did you mean 'bfloat16'?"),
    "beside": (
        LINEAR.replace("    parameters: {weight: 0.5}", "    weight: 0.5", 1),
        "models[0].weight belongs into the model's",
    ),
    "above": (LINEAR + "normalize: true", "line 8: normalize belongs into 'parameters'"),
    "below": (LINEAR + "parameters: {dtype: bfloat16}", "parameters.dtype belongs to the file's top"),
    # not supported
    "modules": ("merge_method: linear\nmodules: {vision: {models: []}}", "line 2: modules is not supported but for"),
    "two of them": (LINEAR + "modules: {}", "has models and modules; it has to have 'models' or 'slices'"),
    "passthrough": (
        LINEAR.replace("linear", "passthrough"),
        "merge_method is 'passthrough', which is not supported: layers",
    ),
    "slices": (SLICED.replace("[0, 4]", "[0, 2]"), "slices[0] ends at layer 2, and the models have 4"),
    "shifted": (SLICED.replace("second, layer_range: [0, 4]", "second, layer_range: [1, 5]"), "layer_range is [1, 5]"),
    "stacked": (
        SLICED + "  - sources:\n    - {model: second, layer_range: [0, 4]}\n    - {model: first, layer_range: [0, 4]}",
        "slices[1] has other models than the first slice",
    ),
    "template": (LINEAR + "chat_template: chatml", "line 8: chat_template is chatml, and 'auto' alone is supported"),
    "tokens": (LINEAR + "tokenizer: {source: union, tokens: {}}", "line 8: tokenizer.tokens is not supported"),
    "tokenizers": (LINEAR + "tokenizer: {source: base}\ntokenizer_source: base", "stands beside 'tokenizer_source'"),
    "multiple": (LINEAR + "tokenizer: {pad_to_multiple_of: half}", "tokenizer.pad_to_multiple_of is 'half', not a"),
    "residual": (SLICED + "    residual_weight: 0.5", "slices[0].residual_weight is not supported"),
    "architecture": (
        LINEAR.replace("- model: first", "- model: {model: first, override_architecture: Llama}"),
        "models[0].model.override_architecture is not supported",
    ),
    # values
    "value": (LINEAR.replace("weight: 0.5", "weight: half", 1), "models[0].parameters.weight is 'half', not a number"),
    "not finite": (
        LINEAR.replace("weight: 0.5", "weight: .nan", 1),
        "models[0].parameters.weight is 'nan', not a number",
    ),
    "switch": (TIES + "parameters: {normalize: 3}", "parameters.normalize is '3', not true or false"),
    "nothing": (
        LINEAR.replace("weight: 0.5", "weight: []", 1),
        "models[0].parameters.weight is empty, not a list of a number",
    ),
    "mixed": (
        LINEAR.replace("weight: 0.5", "weight: [{value: 1}, 2]", 1),
        "models[0].parameters.weight[1] is '2', not",
    ),
    "no value": (LINEAR.replace("weight: 0.5", "weight: {filter: mlp}", 1), "models[0].parameters.weight has no value"),
    "no weight": (
        LINEAR.replace("    parameters: {weight: 0.5}\n", "", 1),
        "line 4: models[0] has no parameter 'weight', and 'linear' needs one",
    ),
    "some weight": (
        LINEAR.replace("{weight: 0.5}", "{weight: {filter: mlp, value: 1}}", 1),
        "models[0].parameters.weight gives no value for tensor",
    ),
    # models
    "no models": ("merge_method: linear", "has no models; it has to have"),
    "no list": ("merge_method: linear\nmodels: first", "line 2: models is 'first', not a list of models"),
    "no base": (TIES.replace("base_model: base\n", ""), "has no 'base_model', and 'ties' needs one"),
    "twice": (LINEAR.replace("model: second", "model: ./first"), "models[1] stands twice"),
    "not there": (
        LINEAR.replace("model: second", "model: secnd"),
        "models[1].model is 'secnd', and no such file or folder",
    ),
    "three": (LINEAR.replace("linear", "nuslerp") + "  - model: third", "names 3 models; 'nuslerp' merges 2"),
    "one": (
        TIES.replace("ties", "model_stock")
        .replace("- model: second", "- model: base")
        .replace("    parameters: {weight: 0.5}\n", ""),
        "names 1 models besides the base",
    ),
    "many": (LINEAR.replace("model: second", "model: ."), "a folder of 4 models, not one"),
    "adapter": (LINEAR.replace("model: second", "model: a+b+c"), "is 'a+b+c', neither MODEL nor MODEL+ADAPTER"),
    "nobody": (LINEAR.replace("model: second", "model: ~nobody-at-all/x"), "no such file or folder is there"),
    "too long": (LINEAR.replace("model: second", f"model: {'x' * 300}"), "no such file or folder is there"),
    "tokenizer of": (LINEAR + "tokenizer_source: third", "which is none of the models of this merge"),
    # YAML
    "empty": ("", "is empty"),
    "no mapping": ("- a\n- b", "is a list, not a configuration of mergekit"),
    "duplicate": (LINEAR + "merge_method: ties", "line 8: the key 'merge_method' stands twice"),
    "several": (LINEAR + "---" + LINEAR, "holds several documents"),
    "no YAML": ("models: [", "line 1: no YAML"),
    "code": ("models: !!python/object/apply:os.system [ls]", "line 1: no YAML: could not determine a constructor"),
    "number as key": (LINEAR + "1: 2", "line 8: the key '1' is no text"),
    "in itself": ("models: &a [*a]", "an alias stands for what it is in"),
    "bomb": (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{x}: &{x} [*{y},*{y},*{y},*{y},*{y},*{y},*{y},*{y},*{y}]\n"
            for y, x in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "with what its aliases stand for, the file has more than",
    ),
    "deep": ("[" * 1500, "nested deeper"),
    "binary": ("models: \x00", "no YAML"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line(name: str, merge: Merge, models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(models)
    text, said = BAD[name]
    file = tmp_path / "config.yml"
    file.write_text(text, encoding="utf-8")
    ran = merge("run", str(file), "--output", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert said in line
    assert str(file) in line
    assert len(line.replace(str(tmp_path), "").replace(str(models), "")) < 300
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "config.yml", "first"], "leave models out"),
        (["run", "config.yml", "--models", "first"], "leave --models out"),
        (["run", "config.yml", "--base", "base"], "leave --base out"),
        (["run", "config.yml", "other.yml"], "leave another one out"),
        (["run", "config.yml", "--resume", "out"], "leave --resume out"),
        (["run", "sub/beside.yml"], "relative to the working folder, and it is sub/model"),
        (["run", "sub/org.yml"], "relative to the working folder, and it is sub/org/model"),
        (["run", "nowhere.yml"], "nowhere.yml: No such file or directory"),
        (["inspect", "config.yml"], "merge run config.yml"),
        (["convert", "config.yml", "--output", "config.yml"], "exists and is not overwritten"),
        (["convert", "config.yml", "--output", "merge.tml"], "the name ends with .toml"),
    ],
)
def test_beside_a_configuration(
    words: list[str], said: str, merge: Merge, models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text(LINEAR.replace("model: ", f"model: {models}/"), encoding="utf-8")
    for name in ("model", "org/model"):
        Path("sub", name).mkdir(parents=True)
    Path("sub/beside.yml").write_text(LINEAR.replace("model: first", "model: model"), encoding="utf-8")
    Path("sub/org.yml").write_text(LINEAR.replace("model: first", "model: org/model"), encoding="utf-8")
    ran = merge(*words)
    assert ran.code == 2
    assert said in ran.err


def test_a_model_that_is_called_as_a_word_of_the_setting(
    merge: Merge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "union", "second"):
        write(Path(name), [*WORDS, name])
    text = LINEAR.replace("first", "union") + "tokenizer_source: "
    Path("config.yml").write_text(text + "./union", encoding="utf-8")
    ran = merge("convert", "config.yml")
    assert (ran.code, "is a model called 'union', a word that means another" in ran.err) == (2, True)
    for source, said in {"union": '"union"', "./second": '"second"'}.items():
        Path("config.yml").write_text(text + source, encoding="utf-8")
        assert f"tokenizer_source = {said}" in merge("convert", "config.yml").out
    Path("config.yml").write_text(LINEAR.replace("first", "base") + "tokenizer_source: base", encoding="utf-8")
    assert 'tokenizer_source = "first"' in merge("convert", "config.yml").out


def test_other_names_of_templates(merge: Merge, models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("first", "second", "third")):
        shutil.copytree(models / name, name)
        template = "{{ a }}" if number == 0 else "{{ b }}"
        Path(name, "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    Path("config.yml").write_text(LINEAR + "chat_template: auto", encoding="utf-8")
    assert merge("convert", "config.yml").code == 0, "of two the first, which goes along"
    Path("config.yml").write_text(LINEAR + "  - {model: third, parameters: {weight: 1}}\nchat_template: auto")
    ran = merge("convert", "config.yml")
    assert ran.code == 2
    assert "is 'auto', the template of second, and that of first goes along" in ran.err
