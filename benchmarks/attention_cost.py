"""What attention costs in time: a training step, and the end of a block alone, relative to plain.

    python benchmarks/attention_cost.py
    python benchmarks/attention_cost.py --device cuda --backbone resnet50 --blocks-of resnet50 \\
        --sizes 224 --batch-size 64 --repeats 30

A step is forward pass, cross-entropy, backward pass and SGD of a network in channels last. The end
of a block is BatchNorm, attention, shortcut and ReLU, forward and backward, on random maps of the
shapes that the stages of a network have. By modules, by modules under torch.compile ("compiled"),
and fused, as `eca_lab.networks.fused` does it; each in float32 and in bfloat16 autocast.

In every round each takes its turn, in the opposite order in every second round, and ratios are of
one round, to plain by modules in the same precision: the median and the quartiles. Where other
programs disturb the clock, the ratios of CPU time (of all threads) say more. "passes" is the time
of the end of a block in units of a pass over one map, which is half a copy: fused takes 11 at best.

Results are in benchmarks/README.md. By default about three minutes on two CPU cores.
"""

import argparse
import itertools
import time
from contextlib import ExitStack

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from eca_lab.attention.modules import make_attention
from eca_lab.networks import fused
from eca_lab.networks.backbones import build_model
from eca_lab.provenance import provenance
from eca_lab.training.train import check_device, stem_for

ARMS = ("none", "eca", "se")
PRECISIONS = ("float32", "bfloat16")


def measure(functions, repeats, *, device, reference="none, modules"):
    """Time the functions in turn, for so many rounds after one that does not count.

    Returns:
        DataFrame indexed by name: ms, the median; its ratio to the reference, the quartiles of
        that, and the ratio of CPU times.
    """
    seconds = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            _synchronize(device)
            start = time.perf_counter(), time.process_time()
            functions[name]()
            _synchronize(device)
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, cpu = (
        pd.DataFrame({name: [pair[clock] for pair in pairs[1:]] for name, pairs in seconds.items()})
        for clock in (0, 1)
    )
    ratios = wall.div(wall[reference], axis=0)
    table = pd.DataFrame({"ms": 1e3 * wall.median(), "ratio": ratios.median()})
    table["low"], table["high"] = ratios.quantile(0.25), ratios.quantile(0.75)
    table["cpu ratio"] = cpu.div(cpu[reference], axis=0).median()
    return table


def steps(backbone, size, *, batch_size, precision, device, stack):
    """Name -> a training step, of every arm by its modules and fused."""
    x = torch.randn(batch_size, 3, size, size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % 10
    functions = {}
    for arm, fuse in itertools.product(ARMS, (False, True)):
        model = build_model(backbone, arm, num_classes=10, stem=stem_for(size))
        model = model.to(device, memory_format=torch.channels_last).train()
        path = stack.enter_context(
            fused.training_path(model, fused=fuse, dtype=getattr(torch, precision))
        )
        optimizer = torch.optim.SGD(model.parameters(), 0, momentum=0.9, fused=True)

        def step(model=model, optimizer=optimizer):
            with _autocast(device, precision):
                loss = F.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        functions[f"{arm}, {path}"] = step
    return functions


def ends(shape, precision, *, device):
    """Name -> forward and backward pass of the end of a block, and "copy" of one of its maps."""
    dtype = getattr(torch, precision)
    maps = torch.randn(3, *shape, device=device)
    x, shortcut, upstream = (each.contiguous(memory_format=torch.channels_last) for each in maps)
    x, shortcut = (each.to(dtype).requires_grad_() for each in (x, shortcut))
    upstream = upstream.to(dtype)
    target = torch.empty_like(upstream)
    functions = {"copy": lambda: target.copy_(upstream)}

    def add(name, end, arm):
        bn = nn.BatchNorm2d(shape[1], device=device)
        attention = make_attention(arm, shape[1]).to(device)
        inputs = [x, shortcut, *bn.parameters(), *attention.parameters()]

        def run():
            with _autocast(device, precision):
                out = end(x, shortcut, bn, attention)
            torch.autograd.grad(out, inputs, upstream)

        functions[f"{arm}, {name}"] = run

    for arm in ARMS:
        add("modules", _by_modules, arm)
        if arm != "se":  # each takes its time to compile
            add("compiled", _compiled, arm)
        add("fused", fused.bn_attention_add_relu, arm)
    return functions


def _by_modules(x, shortcut, bn, attention):
    return torch.relu_(attention(bn(x)) + shortcut)


# One graph for all widths, as the fused operation has it, and none given up for their number.
torch._dynamo.config.force_parameter_static_shapes = False
torch._dynamo.config.recompile_limit = 64
_compiled = torch.compile(_by_modules, dynamic=True)


def stage_shapes(backbone, size, batch_size):
    """(N, C, H, W) of the maps that the blocks of each stage give, in order."""
    shapes = {}

    def note(_, __, out):
        shapes.setdefault(out.shape[1], (batch_size, *out.shape[1:]))

    with torch.device("meta"):
        model = build_model(backbone, "none", num_classes=10, stem=stem_for(size)).eval()
        for module in model.modules():
            if hasattr(module, "attention"):
                module.register_forward_hook(note)
        model(torch.empty(1, 3, size, size))
    return list(shapes.values())


def _autocast(device, precision):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def _synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--backbone", default="tiny", help="of the steps")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 16], help="pixels a side")
    parser.add_argument("--blocks-of", default="resnet18", help="network of the block shapes")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10, help="rounds that count")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--csv", metavar="PATH", help="file to write the tables to")
    options = parser.parse_args(arguments)
    device = check_device(options.device)
    here = provenance(device)
    print(here["device"], *(f"{name} {each}" for name, each in here["versions"].items()), sep=", ")
    torch.manual_seed(0)
    tables = {}
    for size, precision in itertools.product(options.sizes, options.precisions):
        with ExitStack() as stack:
            functions = steps(
                options.backbone,
                size,
                batch_size=options.batch_size,
                precision=precision,
                device=device,
                stack=stack,
            )
            table = measure(functions, options.repeats, device=device)
        tables[f"step of {options.backbone}, {size} px, {precision}"] = table
        keep(tables, options.csv, here)
    shapes = stage_shapes(options.blocks_of, options.sizes[0], options.batch_size)
    for shape, precision in itertools.product(shapes, options.precisions):
        table = measure(ends(shape, precision, device=device), options.repeats, device=device)
        table["passes"] = 2 * table["ms"] / table.loc["copy", "ms"]
        tables[f"end of a block, {' x '.join(map(str, shape))}, {precision}"] = table
        keep(tables, options.csv, here)


def keep(tables, path, here):
    """Print the last of the tables, and write all to the path, if any: it may be cut off next."""
    title, table = list(tables.items())[-1]
    print(f"\n{title}\n{table.round(2).to_string()}", flush=True)
    if path:
        whole = pd.concat(tables, names=["what", "arm"]).round(3)
        versions = {name: here["versions"][name] for name in ("python", "torch")}
        whole.assign(device=here["device"], **versions).to_csv(path)


if __name__ == "__main__":
    main()
