"""`jaxnn plot`: the network as pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxnn.commands import inputs, plot_families, plot_inputs
from jaxnn.errors import ConfigError


@dataclass(frozen=True)
class Weights(plot_inputs.OfModel):
    """What each neuron of an mlp's first layer looks for: its 784 weights as a picture."""

    out: Path = Path("weights.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the weights."""
        import numpy as np

        from jaxnn.plots import network, style

        style.check_path(self.out)
        file = plot_inputs.looked_into(self.model, "mlp")
        plot_inputs.save(network.weights(np.asarray(file.params[0].weights)), self.out)


@dataclass(frozen=True)
class Activations(plot_inputs.OfModelAndDigits):
    """One digit, and how strongly every neuron of an mlp answers to it, layer by layer."""

    index: int = 0
    """Which of the test images, counted from 0."""
    out: Path = Path("activations.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the layers."""
        from functools import partial

        import jax
        import numpy as np

        from jaxnn import data as datasets
        from jaxnn import metrics, mlp
        from jaxnn.plots import network, style

        style.check_path(self.out)
        file, dataset = plot_inputs.looked_into(self.model, "mlp"), datasets.load(self.data)
        inputs.check_labels(file, dataset)
        count = len(dataset.test_labels)
        if not 0 <= self.index < count:
            raise ConfigError(f"index is {self.index}, expected 0 to {count - 1}: one test image")
        trace = jax.jit(
            partial(mlp.trace, activation=file.spec.activation, output=file.spec.output)
        )
        pixels = metrics.pixels_to_input(jax.numpy.asarray(dataset.test_images[self.index].ravel()))
        layers = [np.asarray(layer) for layer in trace(file.params, pixels).a]
        label, answer = int(dataset.test_labels[self.index]), int(np.argmax(layers[-1]))
        title = f"Test image {self.index}: a {label}, read as {answer}"
        plot_inputs.save(network.activations(layers, label, title), self.out)


@dataclass(frozen=True)
class Costs:
    """How cost and accuracy changed from epoch to epoch."""

    run_folder: Annotated[Path | None, tyro.conf.Positional] = None
    """The folder of a run, made by `jaxnn train`; a short run is trained where not given."""
    out: Path = Path("costs.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the curves."""
        from jaxnn.plots import results, style

        style.check_path(self.out)
        if self.run_folder is None:
            history, title = plot_inputs.short_run()
        else:
            history, title = (
                plot_inputs.read_log(self.run_folder / "log.jsonl"),
                f"The run in {self.run_folder}",
            )
        plot_inputs.save(results.costs(history, title), self.out)


@dataclass(frozen=True)
class Sweep:
    """Every network of a sweep: which settings are better than which, and by how much."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """The folder of a sweep, made by `jaxnn sweep`; a short one is run where not given."""
    out: Path = Path("sweep.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the accuracies."""
        from jaxnn.plots import style
        from jaxnn.plots import sweep as drawing

        style.check_path(self.out)
        if self.folder is None:
            result = plot_inputs.short_sweep()
        else:
            result = plot_inputs.read_sweep(self.folder / "sweep.json")
        plot_inputs.save(drawing.sweep(result), self.out)


@dataclass(frozen=True)
class Confusion(plot_inputs.OfModelAndDigits):
    """Which digits are read as which others."""

    out: Path = Path("confusion.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the matrix."""
        from jaxnn import data as datasets
        from jaxnn.plots import results, style

        style.check_path(self.out)
        file, dataset = inputs.load_model(self.model), datasets.load(self.data)
        plot_inputs.save(results.confusion(inputs.evaluate(file, dataset).confusion), self.out)


@dataclass(frozen=True)
class Reliability(plot_inputs.OfModelAndDigits):
    """How often the network is right against how sure it is of its answer."""

    out: Path = Path("reliability.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws the bins, before and after the model's temperature where it has one."""
        from jaxnn import calibration
        from jaxnn import data as datasets
        from jaxnn.plots import calibration as drawing
        from jaxnn.plots import style

        style.check_path(self.out)
        file, dataset = inputs.load_model(self.model), datasets.load(self.data)
        scores = inputs.evaluate(file, dataset).scores
        columns = {}
        for temperature in dict.fromkeys((1.0, file.temperature)):
            chances = calibration.probabilities(scores, file.spec.output, temperature)
            columns[temperature] = calibration.reliability(chances, dataset.test_labels)
            error = columns[temperature].ece
            print(f"temperature {temperature:<8.4g} expected calibration error {error:.4f}")
        plot_inputs.save(drawing.reliability(columns), self.out)


@dataclass(frozen=True)
class Worst(plot_inputs.OfModelAndDigits):
    """The digits that are read most wrongly, and those read least surely, with their scores."""

    out: Path = Path("worst.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws two rows, and prints which images they are."""
        from jaxnn import data as datasets
        from jaxnn.plots import results, style

        style.check_path(self.out)
        file, dataset = inputs.load_model(self.model), datasets.load(self.data)
        scores, labels = inputs.evaluate(file, dataset).scores, dataset.test_labels
        wrong, unsure = results.most_wrong(scores, labels), results.least_sure(scores)
        for name, chosen in (("most wrong", wrong), ("least sure", unsure)):
            print(f"{name}:")
            for index in chosen:
                answer, label = int(scores[index].argmax()), int(labels[index])
                print(
                    f"  image {index:5d}: a {label} (score {scores[index, label]:.2f}), "
                    f"read as {answer} (score {scores[index, answer]:.2f})"
                )
        legend = "Bars: the ten scores; blue: the true digit; red: a wrong answer"
        groups = {
            f"The most wrong. {legend}": wrong,
            "The least sure: the two highest scores are closest": unsure,
        }
        plot_inputs.save(results.worst(dataset.test_images, labels, scores, groups), self.out)


@dataclass(frozen=True)
class Untrained(plot_inputs.OfModelAndDigits):
    """An mlp with random weights beside the trained one."""

    seed: int = 0
    """Decides the random weights."""
    out: Path = Path("untrained.png")
    """The figure: .png or .svg."""

    def run(self) -> None:
        """Draws both, and prints how good they are."""
        import jax
        import numpy as np

        from jaxnn import data as datasets
        from jaxnn import models
        from jaxnn.plots import results, style

        style.check_path(self.out)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")
        trained, dataset = plot_inputs.looked_into(self.model, "mlp"), datasets.load(self.data)
        random = models.build(trained.spec).init(jax.random.key(self.seed))
        first = np.unique(dataset.test_labels, return_index=True)[1]  # of each digit
        shown = np.sort(first)[:4]
        snapshots = []
        for name, file in (("Untrained", trained._replace(params=random)), ("Trained", trained)):
            measured = inputs.evaluate(file, dataset, note=name == "Trained")
            print(f"{name.lower():9}  accuracy {measured.accuracy:6.2%}  cost {measured.cost:.4f}")
            first_layer = np.asarray(file.params[0].weights)
            scores = measured.scores[shown]
            snapshots.append(
                results.Snapshot(name, first_layer, measured.accuracy, measured.cost, scores)
            )
        images, labels = dataset.test_images[shown], dataset.test_labels[shown]
        cost = trained.spec.cost.replace("_", "-")
        count = len(dataset.test_labels)
        plot_inputs.save(results.side_by_side(snapshots, images, labels, count, cost), self.out)


@dataclass(frozen=True)
class Plot:
    """Draw a network, its training or its mistakes; needs matplotlib."""

    picture: (
        Annotated[Weights, tyro.conf.subcommand("weights")]
        | Annotated[Activations, tyro.conf.subcommand("activations")]
        | Annotated[plot_families.Filters, tyro.conf.subcommand("filters")]
        | Annotated[plot_families.Features, tyro.conf.subcommand("features")]
        | Annotated[plot_families.Gates, tyro.conf.subcommand("gates")]
        | Annotated[plot_families.Saliency, tyro.conf.subcommand("saliency")]
        | Annotated[Costs, tyro.conf.subcommand("costs")]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Confusion, tyro.conf.subcommand("confusion")]
        | Annotated[Reliability, tyro.conf.subcommand("reliability")]
        | Annotated[Worst, tyro.conf.subcommand("worst")]
        | Annotated[Untrained, tyro.conf.subcommand("untrained")]
    )

    def run(self, argv: list[str]) -> None:
        """Draws the picture."""
        self.picture.run()
