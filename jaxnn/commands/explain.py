"""`jaxnn explain`: what a gradient means, for a chain of neurons, one digit, and many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxnn.commands.output import write_json
from jaxnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Chain:
    """One neuron a layer: every derivative as a product, checked by moving a number a little."""

    weights: tuple[float, ...] = (1.5, -2.0, 3.0)
    """Three weights, the first layer's first."""
    biases: tuple[float, ...] = (-1.0, 1.0, -0.5)
    """Three biases."""
    x: float = 1.0
    """The input."""
    y: float = 1.0
    """What the last neuron should say."""
    nudge: float = 0.5
    """How far a weight is moved to see what comes of it."""
    plot: Path | None = None
    """Draw it, as .png or .svg."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self) -> None:
        """Prints the forward pass, the derivatives and two travelling nudges."""
        _check_plot(self.plot)
        from jaxnn.commands import explain_text
        from jaxnn.explain import chain

        if len(self.weights) != 3 or len(self.biases) != 3:
            raise ConfigError(
                f"{len(self.weights)} weights and {len(self.biases)} biases, expected 3 of each: "
                "the chain has three layers"
            )
        found = chain.explain(self.weights, self.biases, self.x, self.y)
        travels = [chain.travel(found, layer, self.nudge) for layer in (3, 1)]
        if self.plot:
            from jaxnn.plots import explain_chain, style

            style.save(explain_chain.chain(found, travels), self.plot)
        if self.json != "-":
            explain_text.chain(found, travels)
        derivatives = [d._asdict() | {"factors": dict(d.factors)} for d in found.derivatives]
        write_json(
            self.json,
            found._asdict()
            | {
                "derivatives": derivatives,
                "travels": [[stop._asdict() for stop in stops] for stops in travels],
            },
        )


@dataclass(frozen=True)
class Digit:
    """One digit through the network: activations, cost, and what the example wants changed.

    Of a cnn or an lstm: its scores, and the pixels that its answer hangs on.
    """

    image: Annotated[Path | None, tyro.conf.Positional] = None
    """A picture file, with --label; without, a held-out image of the data."""
    label: int | None = None
    """What the picture shows, or should be read as."""
    index: int | None = None
    """Which held-out image of the data, from 0 (that one where nothing is given)."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA."""
    model: Path | None = None
    """A model file; the one that ships with jaxnn where not given."""
    plot: Path | None = None
    """Draw it, as .png or .svg."""
    json: str | None = None
    """Write the result, all nudges included, to this file, or to standard output for -."""

    def run(self) -> None:
        """Prints the digit, its cost and its nudges, the last layer first."""
        _check_plot(self.plot)
        from jaxnn.commands import explain_text, inputs, plot_inputs
        from jaxnn.explain import digit

        image, label = self._example()
        file = inputs.load_model(self.model)
        if file.spec.family != "mlp":
            from jaxnn.commands import explain_saliency

            explain_saliency.explain(file, image, label, self.plot, self.json)
            return
        file = plot_inputs.looked_into(self.model, "mlp")
        found = digit.explain(file.params, file.spec, image, label)
        if self.plot:
            from jaxnn.plots import explain_digit, style

            style.save(explain_digit.digit(found), self.plot)
        if self.json != "-":
            explain_text.digit(found, file.spec.cost)
        result = {
            "label": found.label,
            "answer": found.answer,
            "cost": found.cost,
            "terms": found.terms.tolist(),
            "target": found.target.tolist(),
            "pixel_wishes": found.pixel_wishes.tolist(),
            "layers": [
                {name: values.tolist() for name, values in layer._asdict().items()}
                for layer in found.layers
            ],
        }
        write_json(self.json, result)

    def _example(self) -> "tuple[np.ndarray, int]":
        """The picture, uint8 [28, 28], and its label."""
        from jaxnn import data as datasets
        from jaxnn.data import preprocess

        if self.image is None:
            dataset = datasets.load(self.data)
            index, count = self.index or 0, len(dataset.test_labels)
            if not 0 <= index < count:
                raise ConfigError(
                    f"--index is {index}, but the held-out images are numbered 0 to {count - 1}"
                )
            known = int(dataset.test_labels[index])
            return dataset.test_images[index], known if self.label is None else self.label
        if self.index is not None:
            raise ConfigError(f"both {self.image} and --index {self.index} are given: choose one")
        if self.label is None:
            raise ConfigError(f"say what {self.image} shows, as in --label 2")
        try:
            blob = self.image.read_bytes()
        except OSError as error:
            raise DataError(f"{self.image} could not be read: {error.strerror}") from error
        return preprocess.prepare(preprocess.decode(blob, str(self.image))), self.label


@dataclass(frozen=True)
class Batch:
    """From one example to many: nudges that disagree, their mean, and how few examples suffice."""

    model: Path | None = None
    """The model file of an mlp; without, a new network trained here for a moment."""
    epochs: int = 1
    """How long the new network is trained first; 0 leaves it as it was drawn at random."""
    data: str | None = None
    """embedded, mnist (see `jaxnn data download`), or a folder of IDX files; else $JAXNN_DATA."""
    plot: Path | None = None
    """Draw it, as .png or .svg."""
    json: str | None = None
    """Write the result to this file, or to standard output for -."""

    def run(self) -> None:
        """Prints nudges side by side, the proof of their mean, and angle and time by batch size."""
        _check_plot(self.plot)
        import numpy as np

        from jaxnn import data as datasets
        from jaxnn.commands import explain_text
        from jaxnn.explain import batch

        dataset = datasets.load(self.data)
        params, model, network = self._network(dataset)
        examples = dataset.train_images, dataset.train_labels
        shown, proof = batch.disagreement(params, *examples, model)
        agreements = batch.agreement(params, *examples, model)
        if self.plot:
            from jaxnn.plots import explain_batch, style

            style.save(explain_batch.batch(shown, proof, agreements, network), self.plot)
        if self.json != "-":
            explain_text.batch(shown, proof, agreements, network)
        result = {
            "network": network,
            "labels": shown.labels,
            "indices": shown.indices,
            "parameters": [
                {"name": name, "nudges": each, "average": average, "everyone": everyone}
                for name, each, average, everyone in zip(
                    shown.names,
                    shown.nudges.tolist(),
                    shown.average.tolist(),
                    shown.everyone.tolist(),
                    strict=True,
                )
            ],
            "mean_of_nudges": proof._asdict(),
            "batches": [
                {
                    "size": one.size,
                    "cosine": float(np.median(one.cosines)),
                    "angle": float(np.median(one.angles)),
                    "seconds": one.seconds,
                    "cosines": one.cosines.tolist(),
                }
                for one in agreements
            ],
        }
        write_json(self.json, result)

    def _network(self, dataset: Any) -> tuple[Any, Any, str]:
        """Parameters, their model, and what to call it.

        A network that has seen each digit once: before, all examples want nearly the same (every
        output down), and at the end of training hardly anything is left to want.
        """
        from jaxnn import models, train
        from jaxnn.commands import plot_inputs

        if self.model is not None:
            file = plot_inputs.looked_into(self.model, "mlp")
            return file.params, models.build(file.spec), self.model.name
        config = train.TrainConfig(epochs=self.epochs)
        params = train.fit(config, dataset).params
        after = {0: "an untrained network", 1: "a network after one epoch"}
        name = after.get(self.epochs, f"a network after {self.epochs} epochs")
        return params, models.build(train.spec_of(config)), name


@dataclass(frozen=True)
class Explain:
    """Show what a gradient means; `jaxnn explain IMAGE --label 2` is short for `explain digit`."""

    topic: (
        Annotated[Chain, tyro.conf.subcommand("chain")]
        | Annotated[Digit, tyro.conf.subcommand("digit")]
        | Annotated[Batch, tyro.conf.subcommand("batch")]
    )

    def run(self, argv: list[str]) -> None:
        """Runs the topic."""
        self.topic.run()


def full_spelling(words: Sequence[str]) -> list[str]:
    """The words after `explain` with the topic named: `digit` where they name none."""
    named = words[:1] and words[0] in ("chain", "digit", "batch", "-h", "--help")
    return list(words) if named else ["digit", *words]


def _check_plot(path: Path | None) -> None:
    if path is not None:
        from jaxnn.plots import style

        style.check_path(path)
