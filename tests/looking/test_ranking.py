import numpy as np
import pandas as pd
import pasted
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import eca_lab
from eca_lab.looking import probe
from eca_lab.looking.ranking import load_ranking, paired_interval, save_ranking


class Needed(nn.Module):
    """The class is in what its second attention does, and its first attention does nothing."""

    def __init__(self):
        super().__init__()
        self.idle = pasted.SELayer(2)
        self.needed = pasted.SELayer(2)
        nn.init.zeros_(self.idle.fc[2].weight)
        nn.init.zeros_(self.idle.fc[2].bias)
        self.needed.fc = nn.Linear(2, 2, bias=False)
        self.needed.fc.weight.data = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])

    def forward(self, x):
        weighed = self.needed(self.idle(x))
        return weighed.mean((2, 3)) / x.mean((2, 3))  # the weights, but for a constant


@pytest.fixture
def labelled():
    torch.manual_seed(0)
    images = torch.rand(240, 2, 4, 4) + torch.rand(240, 2, 1, 1)
    labels = images.mean((2, 3)).argmax(1)
    flipped = torch.rand(240) < 0.1
    return images, torch.where(flipped, 1 - labels, labels)


def test_costs_are_those_of_freezing(labelled):
    images, labels = labelled
    model = Needed()
    ranking = eca_lab.rank_attention(model, images, labels, batch_size=50, seed=3)
    choosing = np.isin(np.arange(240), np.random.default_rng(3).permutation(240)[:120])
    assert ranking.images == (120, 120)
    assert ranking.left_out == {}
    weights = probe.record_weights(model, images).weights
    for layer, constants in ranking.constants.items():
        np.testing.assert_allclose(constants, weights[layer][choosing].mean(0), rtol=1e-5)

    def right(layers):
        with torch.no_grad():
            x = images
            for layer in ("idle", "needed"):
                own = torch.from_numpy(weights[layer])
                applied = torch.from_numpy(ranking.constants[layer]) if layer in layers else own
                x = x * applied.expand_as(own)[:, :, None, None]
            return ((x / images).mean((2, 3)).argmax(1) == labels).numpy()

    plain = right([])
    assert ranking.top1 == pytest.approx(100 * plain[~choosing].mean())
    assert [*ranking.layers.index] == [*ranking.sets["layer"]] == ["idle", "needed"]
    for row, frozen in (
        (ranking.layers.loc["idle"], ["idle"]),
        (ranking.layers.loc["needed"], ["needed"]),
        (ranking.sets.loc[1], ["idle"]),
        (ranking.sets.loc[2], ["idle", "needed"]),
    ):
        lost = right(frozen)
        assert row["chosen"] == pytest.approx(
            100 * (plain[choosing].mean() - lost[choosing].mean())
        )
        assert row["told"] == pytest.approx(
            100 * (plain[~choosing].mean() - lost[~choosing].mean())
        )
        low, high = paired_interval(plain[~choosing], lost[~choosing])
        assert (row["low"], row["high"]) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert ranking.layers.loc["idle", "told"] == 0
    assert ranking.layers.loc["needed", "low"] > 20
    assert [*ranking.cheapest(0.5)] == ["idle"]
    assert [*ranking.cheapest(100)] == ["idle", "needed"]
    assert ranking.cheapest(-1) == {}
    np.testing.assert_array_equal(ranking.cheapest()["idle"], ranking.constants["idle"])


def test_batches_bring_their_labels(labelled):
    model = Needed()
    expected = eca_lab.rank_attention(model, *labelled)
    loader = DataLoader(TensorDataset(*labelled), batch_size=64)
    for images in (loader, [*loader]):
        found = eca_lab.rank_attention(model, images)
        assert found.layers.equals(expected.layers)


def test_networks_that_cannot_be_ranked(labelled):
    images, labels = labelled
    shuffled = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)
    with pytest.raises(ValueError, match="DataLoader with a RandomSampler; accepted is one with"):
        eca_lab.rank_attention(Needed(), shuffled)
    with pytest.raises(TypeError, match="can be gone through more than once"):
        eca_lab.rank_attention(Needed(), iter([(images, labels)]))

    class Otherwise:
        def __iter__(self):
            order = torch.randperm(240)
            yield images[order], labels[order]

    with pytest.raises(ValueError, match="they come in another order every time"):
        eca_lab.rank_attention(Needed(), Otherwise())
    for given_labels, message in (
        (None, "labels: missing"),
        (labels[:7], r"torch.int64 \(7,\): accepted are 240 integers"),
        (torch.cat([labels, labels]), "labels: 480; accepted are 240"),
        (labels.float(), "torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            eca_lab.rank_attention(Needed(), images, given_labels)
    with pytest.raises(
        ValueError, match="number of images=3: accepted is an integer of at least 4"
    ):
        eca_lab.rank_attention(Needed(), images[:3], labels[:3])
    with pytest.raises(TypeError, match=r"a tensor \(240, 2, 4, 4\): accepted are logits"):
        eca_lab.rank_attention(nn.Sequential(pasted.SELayer(2)), images, labels)
    with pytest.raises(ValueError, match="no channel attention that could be found"):
        eca_lab.rank_attention(nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), images, labels)


def test_a_file_gives_back_what_was_ranked(labelled, tmp_path):
    made = eca_lab.rank_attention(Needed(), *labelled)
    card = {"arm": "se", "sha256": "1" * 64, "trial": {}}
    path = tmp_path / "network.json"
    save_ranking(path, made, card)
    found = load_ranking(path, card)
    assert (found.top1, found.images, found.left_out) == (made.top1, made.images, {})
    pd.testing.assert_frame_equal(found.layers, made.layers)
    pd.testing.assert_frame_equal(found.sets, made.sets, check_index_type=False)
    for layer, constants in made.constants.items():
        np.testing.assert_allclose(found.constants[layer], constants, atol=6e-7)
    assert [*found.cheapest()] == [*made.cheapest()]
    for text in ("", "[]", "{}", path.read_text().replace("1" * 64, "2" * 64)):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no ranking of this network"):
            load_ranking(path, card)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_interval_is_about_what_is_lost(pairs):
    before, after = np.array(pairs).T
    low, high = paired_interval(before, after)
    assert -1 <= low < high <= 1
    assert low <= before.mean() - after.mean() <= high
    assert paired_interval(after, before) == (pytest.approx(-high), pytest.approx(-low))


@pytest.mark.parametrize(("lost", "won"), [(0.0, 0.0), (0.01, 0.01), (0.05, 0.02), (0.3, 0.1)])
@pytest.mark.parametrize("images", [100, 1000])
def test_nineteen_of_twenty_intervals_hold_the_truth(images, lost, won):
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        kind = random.random(images)
        before = kind < 0.6 + lost
        after = (kind < 0.6) | (kind > 1 - won)
        low, high = paired_interval(before, after)
        covered += low <= lost - won <= high
    assert covered >= 930  # 950 in the mean, or more where next to nothing changes


def test_halves_do_not_flatter(labelled):
    """Of layers that do nothing but at random, the cheapest looks better where it was chosen."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([pasted.SELayer(2) for _ in range(4)])
            for layer in self.layers:
                nn.init.normal_(layer.fc[2].weight, std=3)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x.mean((2, 3))

    images, labels = labelled
    flattered = told = 0
    for seed in range(10):
        torch.manual_seed(seed)
        ranking = eca_lab.rank_attention(Noisy(), images, labels, seed=seed)
        flattered += ranking.layers["chosen"].iloc[0]
        told += ranking.layers["told"].iloc[0]
    assert flattered < told
