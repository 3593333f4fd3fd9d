"""The channel attention of any network, told in a table: what stands where, and which k it has.

Shapes: N images, C channels of a map, k the kernel size of an ECA.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from eca_lab.attention.architectures import ARCHITECTURES
from eca_lab.attention.kernel_size import adaptive_kernel_size
from eca_lab.attention.modules import ECANS
from eca_lab.networks import passes
from eca_lab.networks.sites import Site, none_found, watching, without_product


@dataclass(frozen=True, eq=False, repr=False)
class AttentionTable:
    """The channel attention of a network; made by `attention_table`.

    Attributes:
        table: a row a site, in the order of the pass. module, the class in which it stands;
            channels C; map, the size of the map that it weighs, "14 x 14"; parameters, how many its
            weights are computed with; kernel_size k of a convolution over the channels, missing
            without one; ties_up and ties_down, k of Equation 12 for C; released, the kernel sizes
            that the authors' networks have at C channels.
        notes: what the kernel sizes say together, and what was left out and why, a line each.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    def written(self) -> pd.DataFrame:
        """The table as it is shown: the sites in a column, and "-" for what is missing."""
        return self.table.reset_index().astype(object).fillna("-")

    def __repr__(self) -> str:
        table = self.written().to_string(index=False)
        return "\n".join([table, *(f"- {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.written().to_html(index=False)
        return table + "".join(f"<div>{escape(note)}</div>" for note in self.notes)


def attention_table(
    model: nn.Module, example: Any, *, prepare: passes.Prepare | None = None
) -> AttentionTable:
    """What channel attention a network has, with what parameters, and whether k is Equation 12's.

    The model runs once, in evaluation mode, and is left as it was found.

    Args:
        model: any, see `eca_lab.looking.probe.record_weights`.
        example: a batch of two images or so.
        prepare: makes what the model is called with of the example.

    Raises:
        TypeError, ValueError: a model without channel attention that could be found, with what was
            looked for; an example that it cannot be called with.
    """
    found: dict[str, tuple[Site, list[Tensor]]] = {}

    def keep(site: Site) -> None:
        found[site.name] = site, _parameters_behind(site)

    learning = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        for weight, _ in learning:
            # So that the graph, of which the parameters behind a weight are read, has them all.
            weight.requires_grad_(weight.is_floating_point())
        with passes.evaluating(model), watching(model, keep) as sites, torch.enable_grad():
            passes.call(model, example, prepare)
    finally:
        for weight, learns in learning:
            weight.requires_grad_(learns)
    left_out = sites.left_out | without_product(model, [*found, *sites.left_out])
    rows = {name: _row(model, *found[name]) for name in sites.found}
    if not rows:
        raise ValueError(none_found(model, left_out))
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")
    table["kernel_size"] = table["kernel_size"].astype("Int64")
    notes = [f"{name or 'the model'} is left out: {reason}" for name, reason in left_out.items()]
    return AttentionTable(table, (*_about_kernels(table), *notes))


def _row(model: nn.Module, site: Site, behind: list[Tensor]) -> dict[str, Any]:
    channels = site.map.shape[site.dimension]
    module = model.get_submodule(site.name.partition("#")[0])
    sizes = [k for weight in behind if (k := _kernel_size(weight)) is not None]
    if isinstance(module, ECANS):  # whose parameters, (C, k), look like those of a layer
        sizes = [module.kernel_size]
    return {
        "module": type(module).__name__,
        "channels": channels,
        "map": " x ".join(map(str, site.channels_first.shape[2:])),
        "parameters": sum(weight.numel() for weight in behind),
        "kernel_size": sizes[0] if sizes else pd.NA,
        "ties_up": adaptive_kernel_size(channels),
        "ties_down": adaptive_kernel_size(channels, ties="down"),
        "released": _released(channels),
    }


def _parameters_behind(site: Site) -> list[Tensor]:
    """What the weights are computed with, from the map on or from what came before it."""
    before = set(_graph(site.map.grad_fn, set()))
    nodes = _graph(site.factor.grad_fn, before)
    return [node.variable for node in nodes if hasattr(node, "variable")]


def _graph(end: Any, known: set[Any]) -> list[Any]:
    """The nodes of an autograd graph behind this one, not beyond known ones; leaves are new."""
    nodes: dict[Any, None] = {}
    stack = [end]
    while stack:
        node = stack.pop()
        is_leaf = hasattr(node, "variable")
        if node is not None and node not in nodes and (is_leaf or node not in known):
            nodes[node] = None
            stack += [behind for behind, _ in node.next_functions]
    return [*nodes]


def _kernel_size(weight: Tensor) -> int | None:
    """k of a convolution over the channels: of one channel to one, (1, 1, k), or each its own."""
    if weight.dim() < 3 or weight.shape[1] != 1:
        return None
    longest = max(weight.shape[2:])
    return longest if weight.shape[2:].numel() == longest else None


def _released(channels: int) -> str:
    """The kernel sizes that the released networks have at so many channels, "3, 5"."""
    sizes = {
        k
        for network in ARCHITECTURES.values()
        for width, k in zip(network.channels, network.released, strict=False)
        if width == channels
    }
    return ", ".join(map(str, sorted(sizes)))


def _about_kernels(table: pd.DataFrame) -> list[str]:
    """What the kernel sizes say together, in a line."""
    kernels = table.dropna(subset="kernel_size")
    if kernels.empty:
        return []
    sizes = kernels["kernel_size"].unique()
    fits = {ties: (kernels["kernel_size"] == kernels[f"ties_{ties}"]) for ties in ("up", "down")}
    of_equation = kernels[["ties_up", "ties_down"]].to_numpy()
    if fits["up"].all() or fits["down"].all():
        ties = "up" if fits["up"].all() else "down"
        line = f"The kernel sizes are those of Equation 12 with ties {ties}."
        if len(sizes) == 1:
            line += (
                f" It gives {sizes[0]} for all of these widths: no site tells it from a fixed k."
            )
        return [line]
    if len(sizes) == 1:
        least, most = of_equation.min(), of_equation.max()
        span = f"{least} to {most}" if least < most else f"{least}"
        fixed = f"every kernel has size {sizes[0]}, where Equation 12 gives {span}"
        return [f"Adaptive in name only, if it is said to be adaptive: {fixed} for these widths."]
    apart = kernels.index[~(fits["up"] | fits["down"])]
    named = ", ".join(apart[:3]) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")
    if not len(apart):
        return ["The kernel sizes are those of Equation 12, its ties sometimes up, sometimes down."]
    return [f"The kernel sizes are not those of Equation 12: {named}."]
