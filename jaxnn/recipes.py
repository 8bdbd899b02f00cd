"""Training settings with a name: `jaxnn train --recipe NAME`. No JAX here."""

from dataclasses import replace

from jaxnn.config import TrainConfig

CLASSIC = TrainConfig(epochs=30, batch_size=100, learning_rate=3.0)
"""The one that people know: plain stochastic gradient descent on the quadratic cost."""

BEST = TrainConfig(
    cost="competing",
    optimizer="adam",
    learning_rate=0.007,
    schedule="cosine",
    batch_size=250,
    epochs=1000,
    shift=1,
    rotate=8.0,
    scale=0.1,
    shear=0.1,
    elastic=0.75,
    fade=0.5,
)
"""The most that 13,002 parameters have given here; docs/accuracy.md tells how it was found."""

STARTS = {
    "mlp": TrainConfig(),
    "cnn": TrainConfig(
        family="cnn",
        architecture="lenet",
        sizes=(784, 10),
        activation="relu",
        output="softmax",
        cost="cross_entropy",
        optimizer="adam",
        learning_rate=0.002,
        schedule="cosine",
        gradient="backprop",
        epochs=10,
    ),
    "lstm": TrainConfig(
        family="lstm",
        architecture="rows",
        sizes=(784, 64, 10),
        activation="tanh",
        output="softmax",
        cost="cross_entropy",
        optimizer="adam",
        learning_rate=0.005,
        schedule="cosine",
        gradient="backprop",
        epochs=10,
    ),
}
"""What each family begins with where no recipe is named; other flags change it."""

SPEECH = replace(
    STARTS["lstm"],
    architecture="speech",
    sizes=(1600, 64, 10),
    learning_rate=0.01,
    batch_size=50,
    epochs=12,
    validation=270,
)
"""What `jaxnn train --task speech` begins with; docs/speech.md tells how it was found."""

COPIES = 4
"""Variations of each recording, beside itself, for `SPEECH`."""

RECIPES = {"classic": CLASSIC, "best": BEST}
