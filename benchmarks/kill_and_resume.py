"""Kill a sweep of 24 trials at random moments, resume it each time, and look what was lost.

    python benchmarks/kill_and_resume.py [--kills 20] [--workers 2]

The sweep is killed with SIGKILL. Afterwards every trial that was ever finished must still be there,
byte for byte, and the results must equal those of a run that nobody disturbed. Prints a line for
each kill, and takes about ten seconds for each on two cores.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from eca_lab.evidence.results import load_records, load_results

SWEEP = (
    *(sys.executable, "-m", "eca_lab", "sweep", "--data", "shapes", "--classes", "disc,frame"),
    *("--size", "8", "--per-class", "100", "--epochs", "4", "--batch-size", "16"),
    *("--learning-rate", "0.05", "--device", "cpu", "--seeds", "4"),
    *("--arms", "none", "se", "eca", "eca(k=1)", "eca(k=3)", "eca(k=9)"),
)
TRIALS = 24
# What a trial computes; times and machines may differ.
COMPUTED = ["arm", "seed", "top1", "top5", "loss", "parameters", "identity"]


def start(out, workers):
    command = [*SWEEP, "--out", str(out), *(["--workers", str(workers)] if workers else [])]
    # One thread each: with another number of threads the last digits differ.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


def finished(out):
    return {path.name: path.read_bytes() for path in Path(out).glob("*.json")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, help="kill only the sweep; workers must follow it")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        quiet, killed = Path(folder, "quiet"), Path(folder, "killed")
        begin = time.monotonic()
        process = start(quiet, options.workers)
        while process.poll() is None and not finished(quiet):
            time.sleep(0.05)
        first = time.monotonic() - begin
        assert process.wait() == 0
        whole = time.monotonic() - begin
        print(
            f"undisturbed: {TRIALS} trials in {whole:.1f} s, the first of them after {first:.1f} s"
        )
        lost = repeated = 0
        for number in tqdm(range(1, options.kills + 1), disable=None):
            before = finished(killed)
            process = start(killed, options.workers)
            # While it starts, too, but mostly at work, and such that there is work for all kills.
            moment = chance.uniform(0.5 * first, first + 3 * (whole - first) / options.kills)
            try:
                process.wait(moment)
                ended = "after its end"
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                ended = f"after {moment:.1f} s"
            after = finished(killed)
            lost += len(before.keys() - after.keys())
            repeated += sum(after.get(name) != content for name, content in before.items())
            tqdm.write(f"kill {number:2} {ended}: {len(before)} -> {len(after)} trials")
        assert start(killed, options.workers).wait() == 0
        assert len(finished(killed)) == len(load_records(killed)) == TRIALS
        one = load_results(quiet)[COMPUTED]
        other = load_results(killed)[COMPUTED]
        right = [
            [record["correct"] for record in load_records(folder).values()]
            for folder in (quiet, killed)
        ]
        same = one.equals(other) and right[0] == right[1]
        left = [path.name for path in killed.iterdir() if path.suffix not in (".json", ".lock")]
        print(
            f"{options.kills} kills: {lost} trials lost, {repeated} run again or changed, "
            f"table {'equal' if same else 'DIFFERENT'}, other files left: {left or 'none'}"
        )
        return 0 if same and not lost and not repeated else 1


if __name__ == "__main__":
    sys.exit(main())
