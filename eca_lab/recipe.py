"""How a trial trains. Needs no torch, so that the command line can tell its defaults at once."""

from dataclasses import dataclass

from eca_lab.checks import check_choice, check_integer, check_number

PRECISIONS = ("auto", "float32", "bfloat16")
DECAYS = {"linear": "linear", "cosine": "cos"}  # ours -> torch's name


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, warm-up, then decay to zero; refuses values out of range.

    learning_rate is the peak, for this batch_size. warmup is the share of all steps that the
    learning rate takes to rise. Weight decay leaves out biases and BatchNorm.
    """

    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.2
    decay: str = "linear"

    def __post_init__(self):
        check_integer("epochs", self.epochs)
        check_integer("batch_size", self.batch_size)
        check_number("learning_rate", self.learning_rate, above=0)
        for name in ("momentum", "label_smoothing", "warmup"):
            check_number(name, getattr(self, name), least=0, below=1)
        check_number("weight_decay", self.weight_decay, least=0)
        check_choice("decay", self.decay, DECAYS)
