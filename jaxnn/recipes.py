"""Training settings with a name: `jaxnn train --recipe NAME`. No JAX here."""

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

RECIPES = {"classic": CLASSIC, "best": BEST}
