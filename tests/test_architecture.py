"""The house: imports point downward only, files stay small. Read from the source, by AST."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Low to high; modules of one line are siblings, which never import each other.
LAYERS = [
    {"jaxnn.errors"},
    {
        "jaxnn.activations",
        "jaxnn.arrays",
        "jaxnn.augment",
        "jaxnn.bytes_product",
        "jaxnn.calibration",
        "jaxnn.compile_cache",
        "jaxnn.config",
        "jaxnn.files",
        "jaxnn.data",
        "jaxnn.terminal",
        "jaxnn.expressions",
        "jaxnn.novelty",
    },
    {"jaxnn.recipes", "jaxnn.surfaces", "jaxnn.plots"},
    {"jaxnn.plots.style"},
    {"jaxnn.plots.network", "jaxnn.plots.surfaces", "jaxnn.plots.calibration", "jaxnn.plots.sweep"},
    {"jaxnn.plots.read", "jaxnn.plots.picture"},
    {"jaxnn.plots.results"},
    {"jaxnn.costs"},
    {"jaxnn.cnn_products"},
    {"jaxnn.cnn_layers", "jaxnn.cnn_convolve", "jaxnn.lstm_cell"},
    {"jaxnn.cnn_network", "jaxnn.lstm_network"},
    {"jaxnn.mlp", "jaxnn.cnn", "jaxnn.lstm"},
    {"jaxnn.spread"},
    {"jaxnn.models"},
    {"jaxnn.gradients", "jaxnn.metrics", "jaxnn.checkpoint", "jaxnn.differences"},
    {"jaxnn.ready_made"},
    {"jaxnn.teacher"},
    {"jaxnn.answers", "jaxnn.compiled"},
    {"jaxnn.optimizers"},
    {"jaxnn.explain"},
    {f"jaxnn.explain.{name}" for name in ("chain", "digit", "batch", "saliency", "maps", "gates")},
    {
        f"jaxnn.plots.explain_{name}"
        for name in ("chain", "digit", "batch", "saliency", "maps", "gates")
    },
    {"jaxnn.epoch", "jaxnn.gradcheck"},
    {"jaxnn.checks", "jaxnn.stack"},
    {"jaxnn.feed"},
    {"jaxnn.train", "jaxnn.ensemble", "jaxnn.curvature"},
    {"service.pool"},
    {"service.pb"},
    {"service.config", "service.errors"},
    {"service.fields", "service.process", "service.rpc", "service.tls", "service.token_file"},
    {"service.access_log", "service.gate", "service.parameters"},
    {"service.contents", "service.inputs", "service.preparing"},
    {"service.codec", "service.predictor", "service.queues", "service.settings"},
    {"service.batching", "service.listener", "service.repository", "service.security"},
    {"service.status", "service.telemetry", "service.tracing"},
    {"service.edge", "service.metrics_page", "service.registry", "service.tensors"},
    {"service.aio", "service.dataplane", "service.described", "service.health"},
    {"service.http2", "service.http2.begun", "service.http2.frames", "service.http2.messages"},
    {"service.http2.headers", "service.http2.reader"},
    {"service.http2.stream"},
    {"service.http2.sending"},
    {"service.http2.calls"},
    {"service.http2.connection"},
    {"service.http2.listener"},
    {"service.digits", "service.outputs"},
    {"service.catalogue", "service.statistics"},
    {"service.inference"},
    {"service.server", "service.workers"},
    {"service.worker"},
    {"service.calling.connection"},
    {f"service.calling.{name}" for name in ("channels", "failures", "load", "parts", "steps")},
    {f"service.calling.{name}" for name in ("calls", "performers", "questions")},
    {"service.calling.base"},
    {"service.client"},
    {f"jaxnn.commands.{name}" for name in ("output", "inputs", "record", "hearing")},
    {"jaxnn.commands.training_data", "jaxnn.commands.tensorboard", "jaxnn.commands.settings"},
    {"jaxnn.commands.verdicts"},
    {"jaxnn.commands.run_folder"},
    {"jaxnn.commands.sweep_results"},
    {
        f"jaxnn.commands.{name}"
        for name in (
            "train",
            "bench_serve",
            "evaluate",
            "classify",
            "read",
            "listen",
            "serve",
            "data",
            "info",
            "descend",
            "gradcheck",
        )
    },
    {"jaxnn.commands.sweep"},
    {"jaxnn.commands.plot_inputs"},
    {"jaxnn.commands.plot_families"},
    {"jaxnn.commands.plot"},
    {"jaxnn.commands.explain_text"},
    {"jaxnn.commands.explain_saliency"},
    {"jaxnn.commands.explain"},
    {"jaxnn.commands.demo"},
    {"jaxnn.cli"},
    {"jaxnn.__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FACADES = {
    "jaxnn",
    "service",
    "service.calling",
    "jaxnn.commands",
}  # packages that import nothing of the house


def modules() -> dict[str, Path]:
    """Every module of the house by its dotted name, generated code left out."""
    found = {}
    for package in ("jaxnn", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name == "pb":
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def house(name: str) -> str | None:
    """The entry of the table that a module belongs to; data and pb count as one module each."""
    for package in ("jaxnn.data", "service.pb"):
        if name == package or name.startswith(package + "."):
            return package
    return name if name in RANK or name in FACADES else None


def imports(path: Path) -> set[str]:
    """The house's modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(
                    inner
                    if house(inner) not in (None, house(node.module or ""))
                    else node.module or ""
                )
    return {name for name in names if name.split(".")[0] in ("jaxnn", "service")}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downward(name: str) -> None:
    own = house(name)
    assert own is not None, f"{name} has no place in the table of layers"
    for imported in imports(MODULES[name]):
        target = house(imported)
        assert target is not None, f"{name} imports {imported}, which has no place in the table"
        if target in FACADES or target == own:
            continue
        assert own not in FACADES, f"{name} imports {imported}"
        assert RANK[target] < RANK[own], f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize(
    "name", [n for n in MODULES if n.startswith("jaxnn") and not n.startswith("jaxnn.c")]
)
def test_the_network_knows_nothing_of_the_service(name: str) -> None:
    text = MODULES[name].read_text()
    assert not {"service", "grpc"} & {name.split(".")[0] for name in imports(MODULES[name])}
    assert "import grpc" not in text


def test_the_service_knows_the_network_through_few_doors() -> None:
    doors = {
        f"jaxnn.{name}"
        for name in (
            *("answers", "bytes_product", "checkpoint", "compile_cache", "compiled"),
            *("data", "errors", "lstm", "models", "ready_made"),
        )
    }
    for name in MODULES:
        if name.startswith("service."):
            used = {found for found in imports(MODULES[name]) if found.startswith("jaxnn.")}
            assert used <= doors, f"{name} imports {used - doors}"


@pytest.mark.parametrize("name", MODULES)
def test_no_file_is_much_above_250_lines(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 260
    assert MODULES[name].name != "utils.py"
