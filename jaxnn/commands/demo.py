"""`jaxnn demo`: the whole story in under a minute."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from jaxnn.errors import RunError
from jaxnn.recipes import BEST

CONFIG = replace(BEST, epochs=100, batch_size=100)  # short enough to watch
SHOWN = 6


@dataclass(frozen=True)
class Demo:
    """Train on real digits, start the server, ask it about digits it has never seen."""

    def run(self, argv: list[str]) -> None:
        """Trains, evaluates, serves, classifies, draws, stops."""
        import numpy as np
        from rich.console import Console

        from jaxnn import data, metrics
        from jaxnn.commands.run_folder import RunFolder
        from jaxnn.commands.train import Train
        from jaxnn.terminal import gallery
        from service.client import DigitClient

        console = Console(highlight=False)
        dataset = data.load("embedded")
        console.print(
            f"[bold]1. Train[/] 784-16-16-10, 13,002 weights and biases, on "
            f"{len(dataset.train_images):,} handwritten digits"
        )
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "run"
            Train(config=CONFIG, data="embedded", out=out).run(["train"])
            console.print("\n[bold]2. Serve[/] the trained network over gRPC")
            with Server(RunFolder(out).model) as address, DigitClient(address) as client:
                console.print(f"listening on {address}")
                labels, scores, *_ = client.classify(dataset.test_images)
                rate = metrics.accuracy(labels, dataset.test_labels)
                console.print(
                    f"\n[bold]3. Classify[/] {len(labels):,} held-out digits through the client: "
                    f"[bold]{rate:.2%}[/] right\n"
                )
        shown = np.linspace(0, len(labels) - 1, SHOWN).astype(int)  # evenly spread, not chosen
        console.print(
            gallery(
                console,
                list(dataset.test_images[shown]),
                list(scores[shown]),
                dataset.test_labels[shown].tolist(),
            )
        )


class Server:
    """`jaxnn serve` on a free port as a child process, stopped at the end."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, "-m", "jaxnn", "serve", "--model", str(model), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603

    def __enter__(self) -> str:
        """Waits until the server is ready and returns its HOST:PORT."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line.startswith("listening on "):
            self.__exit__()
            raise RunError("the server did not start: run `jaxnn serve` to see why")
        return line.removeprefix("listening on ").strip()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
