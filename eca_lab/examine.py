"""A report on the channel attention of any network: a folder with a page to read."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy
import torch
from torch import Tensor, nn

from eca_lab import figures
from eca_lab.explorers.alone import page
from eca_lab.explorers.channel_weights import explore
from eca_lab.files import check_folder, written_whole
from eca_lab.looking.probe import record_weights
from eca_lab.looking.ranking import Ranking, rank_attention
from eca_lab.looking.table import AttentionTable, attention_table
from eca_lab.networks.cost import parameters
from eca_lab.networks.fold import folding
from eca_lab.networks.passes import Prepare
from eca_lab.provenance import code_version, provenance

WITHIN = 0.5  # points of top-1: what the set that the page folds may cost where it was chosen
EXAMPLES = 8  # images that tables and folding run on


def examine(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[str],
    prepare: Prepare,
    out: str | Path,
    title: str,
    about: Mapping[str, str],
    say: Callable[[str], None] = print,
) -> Path:
    """Write what the channel attention of a classifier is, does and is worth into a folder.

    The folder gets, one after the other, each as soon as it is there: attention.csv, the table of
    `eca_lab.looking.table.attention_table`; weights.safetensors, the weights of every image; of
    `eca_lab.looking.ranking.rank_attention` layers.csv, sets.csv and constants.safetensors, what
    `eca_lab.fold` takes; and index.html, a page with all of it and the explorer, which needs no
    kernel and fetches nothing. Files of these names are replaced.

    Args:
        model: any with channel attention, which gives logits (N, classes); it is left as it was.
        images: (N, 3, H, W), N of at least 4.
        labels: (N,) integers from 0.
        classes: their names.
        prepare: makes the input of the model of a batch of images.
        out: the folder; it is made, if it is not there.
        title: of the page, what the model is called.
        about: what else the page says of how it was made: word -> text.
        say: is told what is being done.

    Returns:
        The path of the page.

    Raises:
        TypeError, ValueError: as these functions, before anything is written if there is no
            attention.
        OSError: where the folder cannot be written.
    """
    check_folder("out", out)
    example = images[:EXAMPLES]
    say("Looking for channel attention")
    table = attention_table(model, example, prepare=prepare)
    say(str(table))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "attention.csv", table.table)

    say(f"Recording the weights of {len(images):,} images")
    record = record_weights(model, images, prepare=prepare)
    _write_tensors(
        folder / "weights.safetensors",
        {**record.weights, "labels": labels.cpu().numpy()},
        model=title,
    )

    say(f"Ranking: {2 * len(table.table) - 1} passes of {len(images):,} images")
    ranking = rank_attention(model, images, labels, prepare=prepare)
    _write_csv(folder / "layers.csv", ranking.layers)
    _write_csv(folder / "sets.csv", ranking.sets)
    _write_tensors(folder / "constants.safetensors", dict(ranking.constants), model=title)
    say(ranking.sets.round(2).to_string())

    say("Writing the page")
    explorer = explore(model, images, labels, classes=classes, prepare=prepare)
    made = {**about, **_made_with(images)}
    sections = [
        _section("How it was made", _facts(made)),
        _section("Where its attention is, and which k it has", _of_table(table)),
        _section("What each is worth", _of_ranking(ranking)),
        _section("What can be taken out", _of_folding(model, ranking, example, prepare)),
    ]
    file = folder / "index.html"
    with written_whole(file) as stream:
        stream.write(page(explorer, title=title, body="\n".join(sections)).encode())
    return file


def _of_table(table: AttentionTable) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    words = (
        "k is the size of the convolution over the channels, where there is one; ties_up and "
        "ties_down are what Equation 12 of the ECA paper gives for C channels, released what its "
        "authors' networks have there. The parameters are those that the weights are computed with."
    )
    return f"<p>{words}</p>{_html_table(table.written())}<ul>{notes}</ul>"


def _of_ranking(ranking: Ranking) -> str:
    chose, told = ranking.images
    words = (
        f"Each row freezes attention: every image gets the mean weights of {chose:,} images. These "
        f"choose the order of the rows. The other {told:,} tell the cost, in points of top-1, with "
        f"a 95% interval; of them the network as it is classifies {ranking.top1:.2f}% rightly. An "
        "interval is for one row that was picked beforehand, not for the best of many."
    )
    figure = figures.frozen_figure(ranking.layers, ranking.sets)
    png = base64.b64encode(figure._repr_png_()[0]).decode()
    picture = f'<img alt="The same costs, drawn" src="data:image/png;base64,{png}">'
    alone = _html_table(ranking.layers.round(2).reset_index())
    together = _html_table(ranking.sets.round(2).reset_index())
    return (
        f"<p>{words}</p>{picture}<h3>One alone</h3>{alone}<h3>The cheapest together</h3>{together}"
    )


def _of_folding(model: nn.Module, ranking: Ranking, example: Tensor, prepare: Prepare) -> str:
    chosen = ranking.cheapest(WITHIN)
    if not chosen:
        return f"<p>Nothing: frozen, each costs more than {WITHIN} points where it was chosen.</p>"
    row = ranking.sets.loc[len(chosen)]
    words = (
        f"The {len(chosen)} cheapest cost at most {WITHIN} points together where they were chosen. "
        f"On the other half of the images they cost {row['told']:.2f} points "
        f"({row['low']:.2f} to {row['high']:.2f})."
    )
    try:
        folded, how, error = folding(model, chosen, example, prepare=prepare)
    except ValueError as refused:
        return f"<p>{words}</p><p>They cannot be folded as they are: {escape(str(refused))}.</p>"
    before, after = parameters(model), parameters(folded)
    told = (
        f"Folded, the network has {after:,} parameters, and had {before:,}. It gives what the "
        f"frozen one gives, within {error:.0e} (relative). <code>eca_lab.fold(model, constants, "
        "images)</code> makes it; the constants are in constants.safetensors."
    )
    rows = pd.DataFrame(how.items(), columns=["attention", "folded"])
    return f"<p>{words}</p><p>{told}</p>{_html_table(rows)}"


def _made_with(images: Tensor) -> dict[str, str]:
    where = provenance(torch.device("cpu"))
    return {
        "images": f"{len(images):,} of {images.shape[-2]} x {images.shape[-1]} pixels",
        "by": f"eca_lab {code_version().get('commit', '')[:8]}, torch {where['versions']['torch']}",
        "on": where["device"],
        "ended": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _facts(facts: Mapping[str, str]) -> str:
    rows = (f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _section(head: str, body: str) -> str:
    return f"<section><h2>{escape(head)}</h2>{body}</section>"


def _html_table(table: pd.DataFrame) -> str:
    return f'<div class="scroll">{table.to_html(index=False, border=0)}</div>'


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with written_whole(path) as file:
        file.write(table.to_csv().encode())


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray], *, model: str) -> None:
    about = {"model": model, "code": json.dumps(code_version())}
    with written_whole(path) as file:
        file.write(safetensors.numpy.save(dict(arrays), about))
