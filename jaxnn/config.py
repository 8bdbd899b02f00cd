"""Settings, as frozen dataclasses: flags, help and file headers derive from them. No JAX here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """How a network is made and trained; everything that decides the numbers it ends with."""

    family: Literal["mlp", "cnn", "lstm"] = "mlp"
    """Family of networks: layers of neurons, convolutions for images, or memory cells for
    sequences."""
    architecture: str = ""
    """The layers of a cnn or lstm, by a name that the family knows; an mlp has its sizes only."""
    sizes: tuple[int, ...] = (784, 16, 16, 10)
    """Neurons in each layer, the inputs first; of a cnn, the inputs and the classes only."""
    activation: Literal["sigmoid", "tanh", "relu", "leaky_relu", "gelu"] = "sigmoid"
    """Activation of the hidden layers."""
    output: Literal["sigmoid", "softmax"] = "sigmoid"
    """Activation of the last layer."""
    cost: Literal["quadratic", "cross_entropy", "competing"] = "quadratic"
    """Cost of one example; a batch's is the mean. competing lets sigmoid outputs compete as in a
    softmax."""
    l2: float = 0.0
    """Weight decay: adds l2/2 times the sum of the squared weights, biases left alone, to a batch's
    mean cost."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 100
    """Images in a mini-batch; what is left over at an epoch's end waits for the next shuffle."""
    learning_rate: float = 3.0
    """Step size: the parameters move by this times the negative gradient (for plain sgd)."""
    optimizer: str = "sgd"
    """Any optax optimiser by its name there: sgd, adam, adamw, rmsprop, lion ..."""
    momentum: float | None = None
    """Passed on to an optimiser that takes it, such as sgd."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rate changes over the run: not at all, or down to 0 along a cosine."""
    gradient: Literal["autodiff", "backprop"] = "autodiff"
    """Where the gradient comes from: jax.grad, or the explicit chain rule."""
    shift: int = 0
    """Moves each training image at random by up to this many pixels, anew in every epoch: whole
    pixels, unless the changes below read between pixels anyway."""
    rotate: float = 0.0
    """Turns each training image at random by up to this many degrees."""
    scale: float = 0.0
    """Stretches each training image at random by up to this part of its width, and of its height:
    0.05 is 5 percent."""
    shear: float = 0.0
    """Slants each training image at random by up to this much: 0.1 moves a row 10 pixels from the
    middle by 1."""
    elastic: float = 0.0
    """Bends each training image by a smooth random displacement of about this many pixels."""
    fade: float = 0.0
    """Part of the changes above that is gone by the end: 0.8 lets them weaken evenly from all to a
    fifth."""
    teacher: str = ""
    """Learn from a trained network, too: a model file, or the name of one that comes with jaxnn,
    such as cnn. It looks at each training image once, unchanged."""
    teacher_weight: float = 0.5
    """Part of the target that is the teacher's answer; the rest is the label."""
    teacher_temperature: float = 4.0
    """Divides the teacher's logarithms of chances: above 1 its answers show more of what else an
    image looks like."""
    teacher_checksum: str = ""
    """Refuse any teacher but the file with this SHA-256; a run writes down the one that it had."""
    devices: int = 0
    """Parts of a batch that are computed side by side, each on a device of its own; with 0 a cnn or
    an lstm takes two cores as two devices."""
    half: bool = False
    """Keep 16 bits of each weight and bias of the trained network, for a file of half the size."""
    validation: int = 0
    """Images taken from the end of the training set to choose the best epoch by."""
    seed: int = 0
    """Decides the first parameters, and every shuffle and change of the images."""
    shuffle_seed: int | None = None
    """Decides the shuffles and changes in place of seed; a sweep's networks share theirs."""
