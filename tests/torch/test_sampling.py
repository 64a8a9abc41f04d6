"""Masks in evaluation, held or drawn anew; masks recorded and put back in."""

import numpy as np
import pytest
import torch
from dropout_policies_torch import GRU, LSTM, Embedding, LSTMCell, same_masks
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.placement.plans import Placement, Slot, plan_masks
from dropout_policies.policies.sites import Site

T, B, D, H = 6, 4, 3, 5
POLICIES = ["zaremba", "variational", "zoneout", "awd", "rnndrop", "semeniuta"]


class Words(nn.Module):
    """Words to probabilities."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(20, D)
        self.rnn = nn.LSTM(D, H, num_layers=2)
        self.head = nn.Linear(H, 7)

    def forward(self, tokens):
        return self.head(self.rnn(self.words(tokens))[0]).softmax(-1)


TOKENS = torch.randint(0, 20, (T, B), generator=torch.Generator().manual_seed(1))


def state(model):
    return [(layer.seed, layer.calls) for layer in (model.words, model.rnn)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", [3, None])
def test_masks_fall_in_evaluation_until_the_end(policy, seed):
    model = Words().eval()
    dp.apply(model, dp.resolve(policy) | dp.Policy(), seed=seed)
    plain, random = model(TOKENS), torch.get_rng_state()
    with dp.monte_carlo(model, seed=5):
        first, second = model(TOKENS), model(TOKENS)
        assert not torch.equal(first, second)
        assert not torch.equal(first, plain)
    with dp.monte_carlo(model, seed=5):
        assert torch.equal(model(TOKENS), first)
    assert torch.equal(model(TOKENS), plain)
    assert torch.equal(torch.get_rng_state(), random)


def test_training_goes_on_as_if_nothing_had_been():
    outputs = []
    for sampled in (False, True):
        model = Words().train()
        dp.apply(model, "variational", seed=3)
        model(TOKENS)
        before = model.rnn.calls
        if sampled:
            with dp.monte_carlo(model.eval(), seed=5):
                model(TOKENS)
            model.train()
        assert model.rnn.calls == before == 1
        outputs.append(model(TOKENS))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("policy", POLICIES)
def test_held_masks_are_one_network_for_a_whole_test_set(policy):
    """A row in the batch tells samples apart; a smaller last batch has the first ones."""
    model = Words().eval()
    dp.apply(model, policy)
    with dp.monte_carlo(model, hold=True, seed=5):
        whole = model(TOKENS)
        assert torch.equal(model(TOKENS), whole)
        torch.testing.assert_close(model(TOKENS[:, :2]), whole[:, :2])
    with dp.monte_carlo(model, hold=True, seed=6):
        assert not torch.equal(model(TOKENS), whole)


def test_two_stacks_and_both_kinds_of_layer_have_masks_of_their_own():
    model = nn.ModuleList([LSTM(D, D, policy="zaremba"), LSTM(D, D, policy="zaremba")])
    with dp.monte_carlo(model.eval(), seed=5), dp.record(model) as masks:
        for layer in model:
            layer(torch.randn(T, B, D))
    slot = Slot(Site.INPUT, 0, 0)
    assert not np.array_equal(masks["0"][0][slot], masks["1"][0][slot])


def test_without_a_seed_the_frameworks_generator_rules():
    model = Words().eval()
    dp.apply(model, "zaremba")
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with dp.monte_carlo(model):
            found.append(model(TOKENS))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_average_of_samples_and_their_spread():
    model = Words().eval()
    dp.apply(model, "variational")
    mean, spread = dp.average(model, lambda: model(TOKENS), samples=7, seed=5)
    with dp.monte_carlo(model, seed=5):
        each = torch.stack([model(TOKENS) for _ in range(7)])
    torch.testing.assert_close(mean, each.mean(0))
    torch.testing.assert_close(spread, each.std(0, correction=0), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(mean.sum(-1), torch.ones(T, B))
    alone = dp.average(model, lambda: model(TOKENS), samples=1, seed=5)
    assert torch.equal(alone.spread, torch.zeros_like(mean))
    for wrong in (0, 2.5, True):
        with pytest.raises(dp.PolicyError, match="samples must be"):
            dp.average(model, lambda: model(TOKENS), samples=wrong)


def test_a_model_without_a_policy_cannot_be_sampled():
    for some in (dp.monte_carlo, dp.record):
        with pytest.raises(dp.PolicyError, match=r"no layer under a policy. Call dp.apply"):
            some(Words()).__enter__()


def test_recorded_masks_are_the_plans():
    model = Words()
    dp.apply(model, dp.awd() | dp.zoneout(), seed=3)
    with dp.record(model) as masks:
        model(TOKENS)
        model(TOKENS[:, :2])
    model(TOKENS)
    assert {name: len(calls) for name, calls in masks.items()} == {"words": 2, "rnn": 2}
    for call, batch in enumerate((B, 2)):
        rnn, words = masks["rnn"][call], masks["words"][call]
        assert words[Slot(Site.EMBEDDING, 0, 0)].shape == (1, 1, 20)
        assert rnn[Slot(Site.CELL_UPDATE, 1, 0)].shape == (T, batch, H)
        assert rnn[Slot(Site.RECURRENT_WEIGHT, 1, 0)].shape == (1, 4 * H, H)
        wanted = plan_masks(Placement(dp.awd() | dp.zoneout()), model.rnn._geometry(T, batch))
        expected = keyed.masks(wanted, 3, call)
        assert rnn.keys() == expected.keys()
        for slot, mask in rnn.items():
            np.testing.assert_allclose(mask, expected[slot], rtol=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", [3, None])
def test_what_was_recorded_can_be_put_back_in_and_changed(policy, seed):
    model = Words()
    dp.apply(model, policy, seed=seed)
    with dp.record(model) as masks:
        outputs = [model(TOKENS), model(TOKENS)]
    random = torch.get_rng_state()
    with dp.replay(model, masks):
        assert torch.equal(model(TOKENS), outputs[0])
        assert torch.equal(model(TOKENS), outputs[1])
        with pytest.raises(dp.PolicyError, match=r"masks of 2 call\(s\) were given"):
            model(TOKENS)
    assert torch.equal(torch.get_rng_state(), random)
    for calls in masks.values():
        for arrays in calls:
            for slot in arrays:
                arrays[slot] = arrays[slot] * 0.5 + 0.25
    with dp.replay(model, {name: calls[:1] for name, calls in masks.items()}):
        assert not torch.equal(model(TOKENS), outputs[0])


def test_whole_masks_put_in_are_the_stock_layer():
    layer, x = LSTM(D, H, policy="naive", seed=3), torch.randn(T, B, D)
    with dp.record(layer) as masks:
        layer(x)
    ones = {slot: np.ones_like(mask) for slot, mask in masks["model"][0].items()}
    with dp.replay(layer, {"model": [ones]}):
        y = layer(x)[0]
    torch.testing.assert_close(y, layer.eval()(x)[0])


def test_masks_that_do_not_fit_are_refused():
    layer, x = GRU(D, H, policy="naive"), torch.randn(T, B, D)
    with dp.record(layer) as masks:
        layer(x)
    slot = Slot(Site.HIDDEN, 0, 0)
    short = {**masks["model"][0], slot: masks["model"][0][slot][:2]}
    with pytest.raises(dp.PolicyError, match=r"hidden of la"), dp.replay(layer, {"model": [short]}):
        layer(x)
    del short[slot]
    with pytest.raises(dp.PolicyError, match="needs masks"), dp.replay(layer, {"model": [short]}):
        layer(x)
    with pytest.raises(dp.PolicyError, match="no layer under a policy called 'rnn'"):
        dp.replay(layer, {"rnn": []}).__enter__()
    assert layer.tape is None


def test_a_drop_in_embedding_is_sampled_too():
    words = Embedding(20, D, policy="awd", rate={"embedding": 0.5}).eval()
    with dp.monte_carlo(words, seed=1):
        assert not torch.equal(words(TOKENS), words(TOKENS))


def test_a_schedule_stays_where_it_is_while_masks_are_sampled():
    layer, x = (
        LSTM(D, H, policy="zaremba", rate=dp.schedule({0: 0.0, 2: 0.5})),
        torch.randn(T, B, D),
    )
    for _ in range(3):
        layer(x)
    with dp.monte_carlo(layer.eval(), seed=1), dp.record(layer) as masks:
        assert not torch.equal(layer(x)[0], layer(x)[0])
        with dp.monte_carlo(layer, hold=True, seed=1):
            layer(x)
    for call in masks["model"]:
        assert set(np.unique(call[Slot(Site.INPUT, 0, 0)])) == {0.0, 2.0}


def test_neighbouring_seeds_have_nothing_in_common():
    model = nn.ModuleList([LSTM(D, D, policy="zaremba") for _ in range(3)]).eval()
    seen = []
    for seed in (5, 6):
        with dp.monte_carlo(model, seed=seed), dp.record(model) as masks:
            for layer in model:
                layer(torch.zeros(T, B, D))
        seen += [calls[0][Slot(Site.INPUT, 0, 0)].tobytes() for calls in masks.values()]
    assert len(set(seen)) == 6


def test_cells_hold_no_masks():
    cell = LSTMCell(D, H, policy="naive")
    layer = LSTM(D, H, policy="naive")
    both = nn.ModuleList([layer, cell]).eval()
    with pytest.raises(dp.PolicyError, match=r"LSTMCell sees one step.*Use LSTM"):
        dp.monte_carlo(both, hold=True).__enter__()
    assert not layer.masks_apply
    with dp.monte_carlo(both, seed=1):
        assert not torch.equal(cell(torch.ones(B, D))[0], cell(torch.ones(B, D))[0])


def test_a_policy_may_be_removed_within():
    model = nn.ModuleDict({"a": nn.LSTM(D, H), "b": LSTM(H + 1, H, policy="zaremba")}).eval()
    applied = dp.apply(model["a"], "zaremba")
    with dp.monte_carlo(model), dp.record(model):
        applied.remove()
    assert type(model["a"]) is nn.LSTM
    assert not model["b"].masks_apply
    assert model["b"].tape is None


def test_masks_of_any_byte_order_and_layout_are_put_in():
    """As they come from a file that another machine wrote, or as a view of another array."""
    layer, x = LSTM(1, 3, policy="variational"), torch.randn(1, 1, 1)
    with dp.record(layer) as recorded:
        expected = layer(x)[0]
    (name, (call,)) = next(iter(recorded.items()))
    for change in (
        lambda mask: mask.astype(mask.dtype.newbyteorder(">")),
        lambda mask: np.flip(np.flip(mask, -1).copy(), -1),
        lambda mask: np.asfortranarray(mask),
    ):
        masks = {name: [{slot: change(mask) for slot, mask in call.items()}]}
        with dp.replay(layer, masks):
            torch.testing.assert_close(layer(x)[0], expected)


def test_what_is_put_in_can_be_recorded_again_and_not_the_other_way_round():
    layer, x = LSTM(D, H, policy="naive"), torch.randn(T, B, D)
    with dp.record(layer) as masks:
        y = layer(x)[0]
    with dp.replay(layer, masks), dp.record(layer) as again:
        assert torch.equal(layer(x)[0], y)
    for slot, mask in masks["model"][0].items():
        assert np.array_equal(again["model"][0][slot], mask)
    with dp.record(layer), pytest.raises(dp.PolicyError, match="already recorded or replayed"):
        dp.replay(layer, masks).__enter__()


def test_masks_that_are_put_in_fall_in_evaluation_and_must_all_be_used():
    layer, x = LSTM(D, H, policy="naive"), torch.randn(T, B, D)
    with dp.record(layer) as masks:
        y = layer(x)[0]
    layer.eval()
    with dp.replay(layer, masks):
        assert torch.equal(layer(x)[0], y)
    assert layer.calls == 1
    with (
        pytest.raises(dp.PolicyError, match=r"masks of 2 call\(s\) were given, but 1 call"),
        dp.replay(layer, {"model": 2 * masks["model"]}),
    ):
        layer(x)


def test_narrow_layers_are_recorded_and_played():
    layer = LSTM(D, H, policy="naive", dtype=torch.bfloat16)
    x = torch.randn(T, B, D, dtype=torch.bfloat16)
    with dp.record(layer) as masks:
        y = layer(x)[0]
    with dp.replay(layer, masks):
        assert torch.equal(layer(x)[0], y)
    flipped = [{slot: mask[::-1] for slot, mask in call.items()} for call in masks["model"]]
    with dp.replay(layer, {"model": flipped}):
        assert not torch.equal(layer(x)[0], y)


@pytest.mark.parametrize("tape", ["record", "replay"])
def test_what_is_computed_again_is_not_counted_again(tape):
    """Activation checkpointing runs the call a second time, in the backward pass."""
    layer, x = LSTM(D, H, policy="zaremba"), torch.randn(T, B, D)
    with dp.record(layer) as masks:
        for _ in range(2):
            layer(x)
    gradients = []
    for saved in (False, True):
        layer.zero_grad()
        given = dp.record(layer) if tape == "record" else dp.replay(layer, masks)
        torch.manual_seed(1)
        with given as found:
            for _ in range(2):
                if saved:
                    how = {"context_fn": lambda: same_masks(layer)}
                    y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False, **how)
                else:
                    y = layer(x)[0]
                y.pow(2).sum().backward()
        assert tape == "replay" or len(found["model"]) == 2
        gradients.append(layer.weight_ih_l0.grad.clone())
    assert torch.equal(*gradients)
    with dp.record(layer):
        y = checkpoint(lambda x: layer(x)[0], x, use_reentrant=False)
        with pytest.raises(dp.PolicyError, match="checkpointing"):
            y.sum().backward()


def test_what_was_sampled_is_computed_again_with_its_own_masks():
    layer, x = LSTM(D, H, policy="zaremba", seed=3).eval(), torch.randn(T, B, D)
    gradients = []
    for saved in (False, True):
        layer.zero_grad()
        with dp.monte_carlo(layer, seed=5):
            how = {"context_fn": lambda: same_masks(layer)}
            y = (
                checkpoint(lambda x: layer(x)[0], x, use_reentrant=False, **how)
                if saved
                else (layer(x)[0])
            )
        y.pow(2).sum().backward()  # after the sampling has ended
        gradients.append(layer.weight_ih_l0.grad.clone())
    assert torch.equal(*gradients)
    assert layer.calls == 0
