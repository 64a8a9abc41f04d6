"""`dp.sequence` and `dp.hold`: many calls of a layer that share their masks."""

# ruff: noqa: ARG005 - a mutant has the signature of what it replaces

import contextvars
import copy
import threading
import warnings

import dropout_policies_torch as dpt
import numpy as np
import pytest
import torch
from dropout_policies_torch.policy_layer import PolicyLayer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import dropout_policies as dp
from dropout_policies.masks import keyed
from dropout_policies.masks.sequences import RowGroup, SharedMasks
from dropout_policies.policies import cell_types
from dropout_policies.testing.strategies import policies

H = 6
KINDS = (dpt.LSTM, dpt.GRU, dpt.RNN)
CELLS = dict(zip(KINDS, (cell_types.LSTM, cell_types.GRU, cell_types.RNN), strict=True))


def chunks(total, cuts):
    ends = [*sorted({cut % total for cut in cuts} - {0}), total]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def run_in_chunks(layer, x, sizes, state=None):
    out = []
    for part in x.split(sizes):
        y, state = layer(part, state)
        out.append(y)
    return torch.cat(out), state


def flat(state):
    return state if isinstance(state, tuple) else (state,)


def check_split(layer, x, sizes):
    """A split of a sequence is the whole one: outputs, states, gradients, the number of calls."""
    before = layer.calls
    seen = []
    for is_split in (False, True):
        layer.calls = before
        inputs = x.clone().requires_grad_()
        if is_split:
            with dp.sequence(layer):
                y, state = run_in_chunks(layer, inputs, sizes)
        else:
            y, state = layer(inputs)
        layer.zero_grad()
        (y.square().sum() + sum(part.sum() for part in flat(state))).backward()
        grads = [p.grad.clone() for p in layer.parameters()]
        calls = torch.tensor(float(layer.calls))
        seen.append((calls, y, *flat(state), inputs.grad, *grads))
    for whole, parts in zip(*seen, strict=True):
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_of_a_sequence_is_the_whole_one(data):
    kind = data.draw(st.sampled_from(KINDS))
    layers, steps = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    policy = data.draw(policies(CELLS[kind], layers))
    cuts = data.draw(st.lists(st.integers(1, 8), max_size=8))
    torch.manual_seed(0)
    layer = kind(5, H, layers, policy=policy, seed=data.draw(st.integers(0, 2**32 - 1)))
    layer.calls = data.draw(st.integers(0, 3))
    check_split(layer, torch.randn(steps, 2, 5), chunks(steps, cuts))


MUTANTS = {
    "masks drawn anew in each call": (PolicyLayer, "shared", property(lambda self: None)),
    "steps that do not go on": (SharedMasks, "advance", lambda self, steps: None),
    "steps that go on one by one": (
        SharedMasks,
        "advance",
        lambda self, steps: setattr(self, "step", self.step + 1),
    ),
    "masks of the step before": (
        SharedMasks,
        "advance",
        lambda self, steps: setattr(self, "step", self.step + steps - 1),
    ),
    "another call": (
        SharedMasks,
        "whole",
        lambda self, rows, o=0, b=0: RowGroup(rows, 99, o, self.step),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name, monkeypatch):
    owner, attribute, value = MUTANTS[name]
    layer = dpt.LSTM(5, H, policy="naive", rate=0.5, seed=1)
    check_split(layer, torch.ones(5, 2, 5), [2, 3])
    monkeypatch.setattr(owner, attribute, value)
    with pytest.raises(AssertionError):
        check_split(layer, torch.ones(5, 2, 5), [2, 3])


def test_a_counter_that_moves_in_each_call_is_caught(monkeypatch):
    layer = dpt.LSTM(5, H, policy="variational", seed=1)
    advance = SharedMasks.advance

    def counts(self, steps):
        advance(self, steps)
        layer.calls += 1

    monkeypatch.setattr(SharedMasks, "advance", counts)
    with pytest.raises(AssertionError):
        check_split(layer, torch.ones(5, 2, 5), [2, 3])


def has_sites(kind, name):
    """Whether a kind of layer has the sites of a policy; `zoneout` adapts."""
    return name == "zoneout" or not {*dp.resolve(name)} - CELLS[kind].sites - {dp.Site.EMBEDDING}


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in KINDS for n in dp.names() if has_sites(k, n)]
)
@pytest.mark.parametrize("more", [{}, {"batch_first": True}, {"num_layers": 2}])
def test_every_policy_of_the_catalogue_can_be_run_step_by_step(name, kind, more):
    torch.manual_seed(0)
    layer = kind(H, H, policy=name, seed=3, **more)
    axis = 1 if more.get("batch_first") else 0
    x = torch.randn(7, 7, H)
    whole, _ = layer(x)
    layer.calls = 0
    out, state = [], None
    with dp.sequence(layer):
        for part in x.split([1, 2, 1, 3], axis):
            y, state = layer(part, state)
            out.append(y)
    torch.testing.assert_close(torch.cat(out, axis), whole, atol=1e-6, rtol=1e-5)


def test_the_masks_are_those_of_the_oracle_bit_for_bit():
    layer = dpt.LSTM(5, H, policy="naive", rate=0.5, seed=7)
    with dp.record(layer) as masks, dp.sequence(layer):
        run_in_chunks(layer, torch.ones(6, 3, 5), [1, 3, 2])
    (calls,) = masks.values()
    for slot in calls[0]:
        key = keyed.mask_key(7, 0, slot)
        got = np.concatenate([call[slot] for call in calls])
        expected = keyed.keep_bits(key, 0.5, got.shape) * 2.0
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seed", [None, 1])
def test_masks_per_sequence_are_held_and_masks_per_step_are_new(seed):
    held, anew = dp.drop(0.5, per="sequence"), dp.drop(0.5)
    policy = dp.Policy(input=anew, hidden=held, recurrent_weight=dp.drop(0.5, per="call"))
    layer = dpt.LSTM(H, H, policy=policy, seed=seed)
    with dp.record(layer) as masks:
        for _ in range(2):
            with dp.sequence(layer):
                run_in_chunks(layer, torch.ones(4, 3, H), [1, 1, 1, 1])
    (calls,) = masks.values()
    sites = {slot.site.value: [call[slot] for call in calls] for slot in calls[0]}
    for site in ("hidden", "recurrent_weight"):
        assert all(np.array_equal(mask, sites[site][0]) for mask in sites[site][:4])
        assert all(np.array_equal(mask, sites[site][4]) for mask in sites[site][4:])
        assert not np.array_equal(sites[site][0], sites[site][4])
    assert len({mask.tobytes() for mask in sites["input"]}) == 8
    assert layer.calls == 2


def test_without_a_seed_the_frameworks_seed_repeats_it():
    layer = dpt.GRU(H, H, policy="variational")
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        with dp.sequence(layer):
            outputs.append(run_in_chunks(layer, torch.ones(4, 3, H), [1, 3])[0])
    assert torch.equal(*outputs)


def test_packed_chunks_are_the_packed_whole():
    torch.manual_seed(0)
    layer = dpt.LSTM(H, H, policy="variational", seed=2)
    x = torch.randn(6, 3, H)
    whole, _ = pad_packed_sequence(layer(pack_padded_sequence(x, [6, 6, 6]))[0])
    layer.calls = 0
    state, out = None, []
    with dp.sequence(layer):
        for part in x.split([2, 4]):
            y, state = layer(pack_padded_sequence(part, [len(part)] * 3), state)
            out.append(pad_packed_sequence(y)[0])
    torch.testing.assert_close(torch.cat(out), whole)


class Model(nn.Module):
    """Words, a layer and a cell, step by step."""

    def __init__(self, policy="variational", **more):
        super().__init__()
        self.embedding = dpt.Embedding(20, H, policy=dp.variational(0.5), **more)
        self.rnn = dpt.LSTM(H, H, policy=policy, **more)
        inside = dp.Policy(hidden=dp.drop(0.5, per="sequence"), input=dp.drop(0.5, per="sequence"))
        self.cell = dpt.GRUCell(H, H, policy=inside, **more)
        self.own = dpt.Unrolled(nn.GRUCell(H, H), policy="locked", **more)

    def forward(self, words, state=None):
        rnn, h, own, out = *(state or (None,) * 3), []
        for word in words:
            y, rnn = self.rnn(self.embedding(word[None]), rnn)
            h = self.cell(y[0], h)
            z, own = self.own(h[None], own)
            out.append(z)
        return torch.cat(out), (rnn, h, own)


WORDS = torch.randint(20, (5, 3), generator=torch.Generator().manual_seed(0))


def test_a_model_of_every_kind_of_layer_is_one_sequence():
    torch.manual_seed(0)
    model = Model(seed=1)
    with dp.sequence(model):
        whole, _ = model(WORDS)
    with dp.sequence(model):
        other, _ = model(WORDS)
    assert not torch.equal(whole, other)
    for layer in (model.embedding, model.rnn, model.cell, model.own):
        assert layer.calls == 2
        layer.calls = 0
    with dp.sequence(model):
        first, state = model(WORDS[:2])
        rest, _ = model(WORDS[2:], state)
    assert torch.equal(torch.cat([first, rest]), whole)


def test_a_cell_inside_is_the_layer():
    torch.manual_seed(0)
    policy = dp.zaremba(0.5) | dp.Policy(hidden=dp.drop(0.5, per="sequence"))
    cell, layer = dpt.LSTMCell(H, H, policy=policy, seed=1), dpt.LSTM(H, H, policy=policy, seed=1)
    for name, weight in cell.named_parameters():
        getattr(layer, f"{name}_l0").data.copy_(weight.data)
    x, state, out = torch.randn(6, 3, H), None, []
    with dp.sequence(cell):
        for step in x:
            state = cell(step, state)
            out.append(cell.mask_output(state[0]))
    torch.testing.assert_close(torch.stack(out), layer(x)[0])


@pytest.mark.parametrize("apply", [True, False])
def test_a_cell_outside_names_the_scope(apply):
    policy = dp.Policy(hidden=dp.drop(0.5, per="sequence"))
    cell = nn.GRUCell(H, H) if apply else dpt.GRUCell(H, H, policy=policy)
    if apply:
        dp.apply(cell, policy)
    with pytest.raises(dp.PolicyError, match=r"GRUCell sees one step.*with dp.sequence\(model\)"):
        cell(torch.ones(3, H))
    cell.eval()(torch.ones(3, H))
    with dp.monte_carlo(cell), dp.sequence(cell):
        assert torch.equal(cell(torch.ones(3, H)), cell(torch.ones(3, H)))


def test_an_output_that_a_cell_cannot_mask_names_the_ways_out():
    with pytest.raises(dp.PolicyError) as error:
        dp.apply(nn.LSTMCell(H, H), "zaremba")
    assert all(way in str(error.value) for way in ("rate={'output': 0}", "mask_output", "skip="))


# --- reset ---------------------------------------------------------------------------------------


def test_rows_that_are_reset_begin_anew_and_the_others_go_on():
    torch.manual_seed(0)
    both = dp.naive(0.5) | dp.Policy(cell=dp.drop(0.5, per="sequence"))
    layer = dpt.LSTM(H, H, policy=both, seed=4)
    done = torch.tensor([False, True, False])
    x = torch.ones(1, 3, H)
    with dp.record(layer) as masks, dp.sequence(layer) as scope:
        for t in range(6):
            if t == 3:
                scope.reset(done)
            layer(x)
    with dp.record(layer) as whole:
        layer.calls = 0
        with dp.sequence(layer):
            for _ in range(6):
                layer(x)
    (got,), (expected,) = masks.values(), whole.values()
    for t in range(6):
        for slot, mask in got[t].items():
            np.testing.assert_array_equal(mask[:, [0, 2]], expected[t][slot][:, [0, 2]])
            same = np.array_equal(mask[:, 1], expected[t][slot][:, 1])
            assert same == (t < 3), (t, slot)
    cell = dp.Slot(dp.Site.CELL, 0, 0)
    assert all(np.array_equal(got[t][cell][:, 1], got[3][cell][:, 1]) for t in (4, 5))
    # A replay of the recorded episodes draws the same masks, as part of another batch too.
    for rows in (None, [1], [2, 1]):
        layer.calls = 0
        picked = [0, 1, 2] if rows is None else rows
        with dp.record(layer) as again, dp.sequence(layer, rows=rows) as scope:
            for t in range(6):
                if t == 3:
                    scope.reset(done[picked])
                layer(x[:, picked])
        (replayed,) = again.values()
        for t in range(6):
            for slot, mask in replayed[t].items():
                np.testing.assert_array_equal(mask, got[t][slot][:, picked])


def test_a_reset_row_is_at_step_0():
    """Its masks per step are those of a sequence of the derived seed, from the first step on."""
    layer = dpt.RNN(H, H, policy="zaremba", rate=0.5, seed=9)
    with dp.record(layer) as masks, dp.sequence(layer) as scope:
        layer(torch.ones(2, 3, H))
        scope.reset([0, 0, 1])
        layer(torch.ones(2, 3, H))
    slot = dp.Slot(dp.Site.INPUT, 0, 0)
    key = keyed.mask_key(keyed.derived_seed(9, 1), 0, slot)
    expected = keyed.keep_bits(key, 0.5, (2, 1, H), row_offset=2) * 2.0
    np.testing.assert_array_equal(masks["model"][1][slot][:, 2:], expected)


@pytest.mark.parametrize("rows", [True, [2, 0, 0], [[True]], "all", [], [0.5, 0, 0]])
def test_what_is_no_row_is_refused(rows):
    layer = dpt.RNN(H, H, policy="zaremba")
    with dp.sequence(layer) as scope, pytest.raises(dp.PolicyError, match=r"reset\(done\)"):
        scope.reset(rows)


def test_other_numbers_of_rows_are_refused():
    layer = dpt.RNN(H, H, policy="zaremba", seed=1)
    with dp.sequence(layer) as scope:
        layer(torch.ones(1, 3, H))
        scope.reset([True, False, False])
        with pytest.raises(dp.PolicyError, match=r"each of the 3 rows.*Received: 2"):
            scope.reset([True, False])
        with pytest.raises(dp.PolicyError, match=r"has 3 rows\. Received: a call with 4"):
            layer(torch.ones(1, 4, H))
    for wrong in ([-1], [1.5], 3, [], [2**32], "ab"):
        with (
            pytest.raises(dp.PolicyError, match="rows takes the number"),
            dp.sequence(layer, rows=wrong),
        ):
            pass


# --- scopes --------------------------------------------------------------------------------------


def masks_of(layer, calls=1, x=None):
    x = torch.ones(2, 3, H) if x is None else x
    with dp.record(layer) as masks:
        for _ in range(calls):
            layer(x)
    (found,) = masks.values()
    return found


def same(a, b):
    return all(np.array_equal(a[slot], b[slot]) for slot in a)


def test_nested_scopes_are_sequences_of_their_own():
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    with dp.sequence(layer):
        outer = masks_of(layer)[0]
        with dp.sequence(layer):
            inner = masks_of(layer, 2)
        assert same(masks_of(layer)[0], outer)
    assert same(*inner)
    assert not same(inner[0], outer)
    assert layer.calls == 2


def test_an_empty_scope_is_no_call_and_an_exception_ends_one():
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    with dp.sequence(layer):
        pass
    assert layer.calls == 0
    held = []

    def fails():
        with dp.sequence(layer):
            held.append(masks_of(layer)[0])
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert layer.calls == 1
    assert not same(masks_of(layer)[0], held[0])


def test_models_and_threads_do_not_share():
    one, other = (dpt.LSTM(H, H, policy="variational", seed=1) for _ in range(2))
    found = {}

    def elsewhere():
        found["outside"] = masks_of(one, 2)

    with dp.sequence(one):
        held = masks_of(one, 2)
        assert not same(*masks_of(other, 2))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert same(masks_of(one)[0], held[0])
        copied = contextvars.copy_context().run(masks_of, one)
    assert same(*held)
    assert not same(*found["outside"])
    assert same(copied[0], held[0])


def test_evaluation_is_not_concerned():
    layer = dpt.LSTM(H, H, policy="variational", seed=1).eval()
    x = torch.randn(4, 3, H)
    expected = layer(x)[0]
    with dp.sequence(layer):
        assert torch.equal(run_in_chunks(layer, x, [2, 2])[0], expected)
    assert layer.calls == 0


def test_samples_are_taken_step_by_step_inside_of_one():
    layer = dpt.LSTM(H, H, policy="variational", seed=1).eval()
    with dp.monte_carlo(layer, seed=1):
        whole = layer(torch.ones(4, 3, H))[0]
    with dp.monte_carlo(layer, seed=1), dp.sequence(layer):
        assert torch.equal(run_in_chunks(layer, torch.ones(4, 3, H), [1, 3])[0], whole)
    with (
        dp.sequence(layer),
        pytest.raises(dp.PolicyError, match="Sample first"),
        dp.monte_carlo(layer),
    ):
        pass


def test_schedules_stay_where_the_sequence_began():
    rates = dp.schedule({0: 0.0, 1: 0.9})
    layer = dpt.LSTM(H, H, policy="zaremba", rate=rates, seed=1)
    with dp.sequence(layer):
        for _ in range(3):
            assert all((mask == 1).all() for mask in masks_of(layer)[0].values())
    assert any((mask == 0).any() for mask in masks_of(layer)[0].values())


def test_a_bidirectional_layer_is_called_once():
    layer = dpt.LSTM(H, H, bidirectional=True, policy="zaremba", seed=1)
    x = torch.randn(4, 3, H)
    whole = layer(x)[0]
    layer.calls = 0
    with dp.sequence(layer):
        assert torch.equal(layer(x)[0], whole)
        with pytest.raises(dp.PolicyError, match="needs the whole sequence in one call"):
            layer(x)


def test_checkpointing_draws_the_masks_again():
    torch.manual_seed(0)
    layer = dpt.LSTM(H, H, policy="naive", seed=1)
    gradients = []
    for is_checkpointed in (False, True):
        layer.calls = 0
        layer.zero_grad()
        state, total = None, 0.0
        with dp.sequence(layer):
            for part in torch.ones(6, 3, H).split(2):
                if is_checkpointed:
                    y, state = checkpoint(
                        layer,
                        part,
                        state,
                        use_reentrant=False,
                        context_fn=lambda: dpt.same_masks(layer),
                    )
                else:
                    y, state = layer(part, state)
                total = total + y.sum()
        total.backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    assert all(map(torch.equal, *gradients))
    assert layer.calls == 1


@pytest.mark.parametrize("kind", ["layer", "cell"])
def test_compiled_models_run_as_written_inside(kind):
    torch.manual_seed(0)
    inside = dp.Policy(hidden=dp.drop(0.5, per="sequence"))
    layer = dpt.LSTM(H, H, policy=inside, seed=1)
    if kind == "cell":
        layer = dpt.GRUCell(H, H, policy=inside, seed=1)
    compiled = torch.compile(layer, backend="eager")
    x = torch.ones(3, H) if kind == "cell" else torch.ones(1, 3, H)
    outputs = []
    for run in (layer, compiled):
        layer.calls = 0
        with dp.sequence(layer):
            state = None
            for _ in range(3):
                state = run(x, state) if kind == "cell" else run(x, state)[1]
        outputs.append(flat(state)[0])
    assert torch.equal(*outputs)
    assert layer.calls == 1


def test_copies_of_a_model_inside_are_no_part_of_it():
    layer = dpt.LSTM(H, H, policy="variational", seed=1)
    with dp.sequence(layer):
        twin = copy.deepcopy(layer)
        assert same(*masks_of(layer, 2))
        assert not same(*masks_of(twin, 2))


# --- hold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("name", ["zaremba", "variational", "awd", "zoneout"])
def test_calls_that_hold_their_masks_are_one(name, seed):
    layer = dpt.LSTM(H, H, 2, policy=name, seed=seed)
    x = torch.randn(4, 3, H)
    with dp.hold(layer):
        one, other = layer(x)[0], layer(x)[0]
    assert torch.equal(one, other)
    assert layer.calls == 1
    with dp.hold(layer):
        assert not torch.equal(layer(x)[0], one)


def test_with_a_seed_what_is_held_is_the_ordinary_call():
    layer = dpt.LSTM(H, H, policy="zaremba", seed=1)
    x = torch.randn(4, 3, H)
    ordinary = [layer(x)[0] for _ in range(2)]
    layer.calls = 1
    with dp.hold(layer):
        assert torch.equal(layer(x)[0], ordinary[1])


def test_bidirectional_twins_hold_their_masks():
    layer = dpt.GRU(H, H, bidirectional=True, policy="variational", seed=1)
    with dp.hold(layer):
        assert same(*masks_of(layer, 2))


# --- the warning ---------------------------------------------------------------------------------


def told(layer, steps=3, x=None):
    x = torch.ones(1, 3, H) if x is None else x
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        state = None
        for _ in range(steps):
            _, state = layer(x, state)
    return [str(w.message) for w in found if issubclass(w.category, dp.PolicyWarning)]


def test_masks_that_do_not_last_are_told_once_for_each_layer():
    for name in ("variational", "locked", "weight_drop", "awd"):
        layer = dpt.LSTM(H, H, policy=name)
        (text,) = told(layer)
        assert "LSTM is called for one step" in text
        assert "with dp.sequence(model)" in text
        assert told(layer) == []


def test_nothing_is_told_where_there_is_nothing_to_hold():
    assert told(dpt.LSTM(H, H, policy="zaremba")) == []
    assert told(dpt.LSTM(H, H, policy="variational").eval()) == []
    assert told(dpt.LSTM(H, H, policy="variational"), x=torch.ones(2, 3, H)) == []
    assert told(dpt.LSTM(H, H, policy="variational"), steps=1) == []
    layer = dpt.LSTM(H, H, policy="variational")
    with dp.sequence(layer):
        assert told(layer) == []
    with dp.hold(layer):
        assert told(layer) == []


def test_apply_sees_it_in_advance():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(H, H)

        def forward(self, x):
            return run_in_chunks(self.rnn, x, 1)[0]

    text = str(dp.apply(Loop(), "variational", example=torch.ones(4, 3, H)))
    assert "rnn is called 4 times over one sequence" in text
    assert "drawn anew each time, unless the calls are inside dp.sequence(model)" in text


def test_the_audit_of_a_loop_inside_a_scope_names_the_policy():
    class Scoped(nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.rnn = dpt.LSTM(16, 16, policy=policy)

        def forward(self, x):
            with dp.sequence(self):
                return run_in_chunks(self.rnn, x, 1)[0]

    torch.manual_seed(0)
    for name in ("variational", "locked"):
        assert dp.audit(Scoped(name)).policy == name


def test_a_model_without_a_policy_runs_as_ever_inside_a_scope():
    plain, x = nn.LSTM(2, 2), torch.randn(4, 3, 2)
    expected = plain(x)[0]
    for scope in (dp.sequence, dp.hold):
        with scope(plain):
            assert torch.equal(plain(x)[0], expected)
        with (
            pytest.raises(dp.PolicyError, match=r"Received: model='a model'"),
            scope("a model"),
        ):
            pass
    with dp.sequence(plain) as sequence:
        sequence.reset([True, False, True])


class Scoped(nn.Module):
    def __init__(self):
        super().__init__()
        self.low, self.high = nn.LSTM(4, 4), nn.LSTM(4, 4)

    def forward(self, x):
        with dp.sequence(self):
            return run_in_chunks(self.high, run_in_chunks(self.low, x, 1)[0], 1)[0]


def test_a_model_that_opens_the_scope_itself_can_be_seen_and_gets_a_policy():
    model, x = Scoped(), torch.randn(4, 3, 4)
    with dp.apply(model, "variational", rate=0.5, seed=1, example=x) as applied:
        assert (
            "low is called 4 times over one sequence, each from the state that the call before "
            "left, inside dp.sequence\n" in str(applied)
        )
        y = model(x)
        assert model.low.calls == model.high.calls == 1
    stack = dpt.LSTM(4, 4, 2, policy="variational", rate=0.5, seed=1)
    for layer, inner in enumerate((model.low, model.high)):
        for name, weight in inner.named_parameters():
            getattr(stack, name.replace("l0", f"l{layer}")).data.copy_(weight)
    torch.testing.assert_close(y, stack(x)[0])
