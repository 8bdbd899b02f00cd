"""Training settings with a name: `jaxnn train --recipe NAME`. No JAX here."""

from jaxnn.config import TrainConfig

CLASSIC = TrainConfig(epochs=30, batch_size=100, learning_rate=3.0)
"""The one that people know: plain stochastic gradient descent on the quadratic cost."""

BEST = TrainConfig(
    cost="competing",
    optimizer="adam",
    schedule="cosine",
    learning_rate=0.003,
    batch_size=125,
    epochs=700,
    shift=1,
    rotate=6.0,
    scale=0.08,
    shear=0.05,
)
"""The most that 13,002 parameters have given here; docs/accuracy.md tells how it was found."""

RECIPES = {"classic": CLASSIC, "best": BEST}
