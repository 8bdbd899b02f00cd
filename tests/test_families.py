"""What goes with a network of any family: its file, its first settings, the command it had."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
import safetensors.numpy
from trees import same_bytes

from jaxnn import checkpoint, checks, cli, models
from jaxnn.commands.inputs import load_model
from jaxnn.commands.plot_inputs import looked_into
from jaxnn.commands.run_folder import command_of
from jaxnn.commands.settings import reparsed
from jaxnn.commands.sweep import Sweep, beginning_with
from jaxnn.commands.train import Train
from jaxnn.config import TrainConfig
from jaxnn.epoch import spec_of
from jaxnn.errors import CheckpointError, ConfigError
from jaxnn.models import Spec
from jaxnn.recipes import SPEECH, STARTS

SPECS = {
    "mlp": Spec("mlp", (784, 2, 3)),
    "cnn": Spec("cnn", (784, 3), "relu", "softmax", "cross_entropy", architecture="tiny"),
    "lstm": Spec("lstm", (784, 2, 3), "tanh", "softmax", "quadratic", architecture="rows"),
}


def drawn(spec: Spec) -> Any:
    init = jax.jit(models.build(spec).init, compiler_options={"xla_backend_optimization_level": 0})
    return jax.device_get(init(jax.random.key(1)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model file of each family."""
    folder = tmp_path_factory.mktemp("files")
    for family, spec in SPECS.items():
        checkpoint.save(folder / family, drawn(spec), spec)
    return {family: folder / family for family in SPECS}


def header(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["jaxnn"])


@pytest.mark.parametrize("family", SPECS)
def test_what_is_saved_is_loaded(family: str, files: dict[str, Path]) -> None:
    file = load_model(files[family])
    assert file.spec == SPECS[family]
    assert same_bytes(file.params, drawn(SPECS[family]))


def test_the_architecture_stands_in_a_file_only_where_there_is_one(files: dict[str, Path]) -> None:
    """So that files of an mlp stay as they were, and are read by what knows no other family."""
    found = {family: header(path)["spec"].get("architecture") for family, path in files.items()}
    assert found == {"mlp": None, "cnn": "tiny", "lstm": "rows"}


@pytest.mark.parametrize("architecture", ["deepest", 5, None, "", ["tiny"]])
def test_a_file_with_an_architecture_that_is_none_is_refused(
    architecture: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    about = header(files["cnn"])
    about["spec"]["architecture"] = architecture
    arrays = safetensors.numpy.load_file(files["cnn"])
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(arrays, path, {"jaxnn": json.dumps(about)})
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


@pytest.mark.parametrize("family", ["cnn", "lstm"])
def test_commands_that_look_into_layers_refuse_other_families(
    family: str, files: dict[str, Path]
) -> None:
    with pytest.raises(ConfigError, match=f"is of the family {family}, but this looks"):
        looked_into(files[family], "mlp")
    assert looked_into(files["mlp"], "mlp").spec == SPECS["mlp"]


def test_every_family_begins_with_settings_that_can_be(standard_promotion: None) -> None:
    assert set(STARTS) == set(models.FAMILIES)
    for family, config in STARTS.items():
        assert config.family == family
        checks.check_settings(config, 60_000, 784, 9)
        shapes = jax.eval_shape(models.build(spec_of(config)).init, jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) > 10_000


CONFIGS = {
    "a cnn as it begins": STARTS["cnn"],
    "a cnn that is changed": dataclasses.replace(
        STARTS["cnn"], architecture="deep", gradient="autodiff", epochs=30, seed=4, l2=0.01
    ),
    "an lstm with the settings of an mlp": dataclasses.replace(
        TrainConfig(), family="lstm", architecture="rows", sizes=(784, 5, 10)
    ),
    "an mlp": dataclasses.replace(TrainConfig(), sizes=(784, 5, 10)),
    "speech": dataclasses.replace(SPEECH, epochs=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_in_a_file_asks_for_the_same_settings(name: str) -> None:
    config = CONFIGS[name]
    flags = ("--task", "speech") if name == "speech" else ()
    words = command_of(config, SimpleNamespace(flags=flags)).split()[1:]  # type: ignore[arg-type]
    asked = cli.parse(words)
    assert isinstance(asked, Train)
    begin = SPEECH if asked.task == "speech" else STARTS[asked.config.family]  # as Train.run
    assert reparsed(Train, words, begin) == config


def test_the_command_of_a_sweep_begins_with_the_family_too() -> None:
    config = dataclasses.replace(STARTS["lstm"], shuffle_seed=0, validation=9, epochs=2)
    source = SimpleNamespace(flags=())
    words = command_of(config, source, swept=3).split()[1:]  # type: ignore[arg-type]
    assert words[:3] == ["sweep", "--seeds", "3"]
    asked = cli.parse(words)
    assert isinstance(asked, Sweep)
    swept = beginning_with(STARTS[asked.config.family], words)
    assert swept.settings(100) == [config]
    assert swept.seeds == 3
