"""Makes service/pb from protos/, or says whether it is up to date.

    python scripts/generate_protos.py            write the generated code
    python scripts/generate_protos.py --check    compare only; exit 1 where they differ

Needs grpcio-tools in exactly this version (protos/requirements.txt; `make protos` sets it up apart
from the rest). It is an old one on purpose: what it generates runs with every newer protobuf and
grpcio that the package allows, but not with an older one.
"""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = "1.73.1"
PROTOS = ("digits", "open_inference_grpc")
PACKAGE = Path("service/pb")
INIT = '"""Generated from protos/ by scripts/generate_protos.py: do not edit."""\n'
# The compiler writes for protobuf's default pool only; service/pool.py says why we want another.
DEFAULT_POOL = (
    "from google.protobuf import descriptor_pool as _descriptor_pool\n",
    "_descriptor_pool.Default()",
)
OWN_POOL = ("from service.pool import POOL as _POOL\n", "_POOL")


def generate(root: Path) -> None:
    """Write PACKAGE below `root`."""
    (root / PACKAGE).mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    # Mapping protos/ onto service/pb makes the imports read `from service.pb import ...`.
    names = [f"{PACKAGE}/{name}.proto" for name in PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PACKAGE}=protos", *outputs, *names]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603 - a fixed command of our own
    (root / PACKAGE / "__init__.py").write_text(INIT)
    for name in PROTOS:
        path = root / PACKAGE / f"{name}_pb2.py"
        path.write_text(with_own_pool(path.read_text()))


def with_own_pool(code: str) -> str:
    """Generated code that puts its messages into the pool of service/pool.py.

    Raises:
      ValueError: the code is not what this compiler used to write.
    """
    for default, own in zip(DEFAULT_POOL, OWN_POOL, strict=True):
        if code.count(default) != 1:
            raise ValueError(
                f"generated code has {default!r} {code.count(default)} times, expected once: "
                "the compiler has changed, and this script must follow it"
            )
        code = code.replace(default, own)
    return code


def drift() -> list[str]:
    """Names of files that differ from what the protos generate now."""
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        names = {
            path.name
            for folder in (Path(fresh) / PACKAGE, ROOT / PACKAGE)
            for path in folder.glob("*.py*")
        }
        _, differing, absent = filecmp.cmpfiles(
            Path(fresh) / PACKAGE, ROOT / PACKAGE, sorted(names), shallow=False
        )
    return sorted(differing + absent)


def main() -> int:
    """Generate, or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on drift")
    arguments = parser.parse_args()
    try:
        installed = version("grpcio-tools")
    except PackageNotFoundError:
        installed = "absent"
    if installed != TOOLS:
        print(
            f"grpcio-tools is {installed}, expected {TOOLS}: pip install grpcio-tools=={TOOLS}",
            file=sys.stderr,
        )
        return 1
    if not arguments.check:
        generate(ROOT)
        return 0
    differing = drift()
    if differing:
        print(
            f"{PACKAGE} does not match protos/ ({', '.join(differing)}): "
            "run python scripts/generate_protos.py and commit the result",
            file=sys.stderr,
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
