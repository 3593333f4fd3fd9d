"""What attention costs in time: forward pass and training step of ResNet-50, relative to plain.

    python benchmarks/attention_cost.py [SIZE [BATCH_SIZE [REPEATS]]]

By default 8 images of 64 x 64 pixels and 10 rounds: about a minute on two CPU cores, which is a
small part of the paper's work per image, with the same number of modules. On a GPU if there is one.
Prints the median of the ratios to the plain network, their quartiles, and beside them what the
frames per second of the paper's Table 3 give. The paper's were measured on four GPUs, elsewhere, at
224 pixels; only ratios can be compared, and those with caution.

Measured on one thread of a shared CPU (8 images of 64 x 64, 6 rounds; median ratio and quartiles):

            forward              training step
    SE      1.06 (1.03 to 1.08)  1.02 (1.00 to 1.06)
    CBAM    1.15 (1.14 to 1.16)  1.14 (1.13 to 1.15)
    ECA     1.06 (1.04 to 1.06)  1.02 (1.01 to 1.03)
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from eca_lab.cost import step_seconds
from eca_lab.models import build_model

ARMS = {"ResNet": "none", "SENet": "se", "CBAM": "cbam", "ECA-Net": "eca(k=3-5-5-7)"}
TABLE_3 = Path(__file__).resolve().parents[1] / "data" / "paper" / "table3_backbones.csv"


def published_ratios():
    """Time per image relative to plain by Table 3, ResNet-50, one row a method."""
    table = pd.read_csv(TABLE_3)
    table = table[table["backbone"] == "ResNet-50"].set_index("method").loc[list(ARMS)]
    return pd.concat(
        {
            "forward": table["inference_fps"].iloc[0] / table["inference_fps"],
            "training": table["training_fps"].iloc[0] / table["training_fps"],
        },
        names=["step", "name"],
    )


def main(size=64, batch_size=8, repeats=10):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    models = {method: build_model("resnet50", arm).to(device) for method, arm in ARMS.items()}
    table = step_seconds(models, size, batch_size, repeats)
    table["published"] = published_ratios()
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    print(f"{batch_size} images of {size} x {size}, {repeats} rounds, on {device}{threads}")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
