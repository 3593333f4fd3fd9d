"""How long do the commands take that only read? Each in a fresh interpreter, in turns."""

import argparse
import subprocess
import sys
import time

import pandas as pd

COMMANDS = {
    "--help": ["--help"],
    "usage error": ["sweep", "--arms", "senet"],
    "results": ["results", "data/results/study"],
    "compare": ["compare", "--study", "ladder"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    seconds = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            command = [sys.executable, "-m", "eca_lab", *arguments]
            subprocess.run(command, capture_output=True, check=name != "usage error")
            seconds[name].append(time.perf_counter() - start)
    table = pd.DataFrame(seconds).agg(["median", "min", "max"]).T
    print(table.to_string(float_format="{:.2f} s".format))


if __name__ == "__main__":
    main()
