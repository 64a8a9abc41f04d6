"""The published policies by name, each with its citation and default rates."""

from __future__ import annotations

from typing import Literal

from ..argument_checks import short_repr
from ..errors import PolicyError
from .policy import Policy
from .policy_errors import describe_wrong_policy
from .rates import LayerRates, Rates, parse_rates, rate_to_write
from .rules import Gates, Lifetime, Rule, drop
from .sites import Site

PolicyName = (
    Literal[
        "none",
        "zaremba",
        "naive",
        "variational",
        "locked",
        "semeniuta",
        "rnndrop",
        "zoneout",
        "weight_drop",
        "awd",
    ]
    | str
)
"""The name of a policy: a published one, which editors complete, or a registered one."""

ZAREMBA = (
    "Zaremba, Sutskever & Vinyals (2014), Recurrent Neural Network Regularization, arXiv:1409.2329"
)
GAL = (
    "Gal & Ghahramani (2016), A Theoretically Grounded Application of Dropout in Recurrent Neural "
    "Networks, arXiv:1512.05287"
)
SEMENIUTA = (
    "Semeniuta, Severyn & Barth (2016), Recurrent Dropout without Memory Loss, arXiv:1603.05118"
)
MOON = (
    "Moon, Choi, Lee & Song (2015), RnnDrop: A Novel Dropout for RNNs in ASR, IEEE Workshop on "
    "Automatic Speech Recognition and Understanding"
)
KRUEGER = (
    "Krueger et al. (2017), Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations, "
    "arXiv:1606.01305"
)
MERITY = (
    "Merity, Keskar & Socher (2018), Regularizing and Optimizing LSTM Language Models, "
    "arXiv:1708.02182"
)


def none() -> Policy:
    """No masks at any site."""
    return Policy(name="none")


def zaremba(rate: LayerRates = 0.5) -> Policy:
    """Dropout on the vertical connections only, with a new mask at every step.

    Information is masked L+1 times on its way from any x_s to any y_t, whatever the distance
    t − s. Zaremba et al. 2014, section 3.2. The paper's rates are 0.5 (medium) and 0.65 (large).

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.

    Raises:
        PolicyError: the rate is out of range.
    """
    rule = drop(rate)
    return Policy(name="zaremba", citation=ZAREMBA, input=rule, between=rule, output=rule)


def naive(rate: LayerRates = 0.5) -> Policy:
    """`zaremba` plus a mask on the hidden state, where it enters the gates.

    This placement fails: information is masked once more at every step for which it is kept.
    Zaremba et al. 2014, section 3.2, explain why. It is included for comparison.

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.

    Raises:
        PolicyError: the rate is out of range.
    """
    rule = drop(rate)
    return Policy(
        name="naive", citation=ZAREMBA, input=rule, between=rule, output=rule, hidden=rule
    )


def variational(
    vertical: LayerRates = 0.5,
    hidden: LayerRates = 0.3,
    embedding: LayerRates = 0.5,
    *,
    gates: Gates = "tied",
) -> Policy:
    """Variational dropout: each sample keeps one mask for all steps.

    The masks are on the vertical connections and on the hidden state. In addition, each sample
    drops whole word types from the embedding. Gal & Ghahramani 2016, section 4.

    Args:
        vertical: the rate of the vertical connections, in [0, 1): a number, a `Schedule`, or a
            list with one of these for each layer of the stack.
        hidden: the rate of the hidden state, likewise.
        embedding: the rate of the word types: a number in [0, 1) or a `Schedule`.
        gates: `"tied"`: all gates share one mask. `"untied"`: each gate has its own (the paper's
            equation for the untied LSTM).

    Raises:
        PolicyError: a rate is out of range, `embedding` is a list, or `gates` is another word.
    """
    vertical = parse_rates(vertical, "vertical")
    into = drop(vertical, per="sequence", gates=gates)
    return Policy(
        name="variational",
        citation=GAL,
        embedding=drop(parse_rates(embedding, "embedding"), per="sequence"),
        input=into,
        between=into,
        output=drop(vertical, per="sequence"),
        hidden=drop(parse_rates(hidden, "hidden"), per="sequence", gates=gates),
    )


def locked(rate: LayerRates = 0.4) -> Policy:
    """Dropout on the vertical connections only; each sample keeps one mask for all steps.

    Merity et al. 2018, section 4. Their LSTM on Penn Treebank has rate 0.4 at its input and output.

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.

    Raises:
        PolicyError: the rate is out of range.
    """
    rule = drop(rate, per="sequence")
    return Policy(name="locked", citation=MERITY, input=rule, between=rule, output=rule)


def semeniuta(rate: LayerRates = 0.25, *, per: Lifetime = "step") -> Policy:
    """Dropout on the update of the state only, never on the memory itself.

    In an LSTM c = f⊙c + i⊙D(g); in a GRU D is on the candidate. Semeniuta et al. 2016, section 3.

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.
        per: `"step"`: a new mask at every step. `"sequence"`: one mask per sample for all steps.

    Raises:
        PolicyError: the rate is out of range, or `per` is another word.
    """
    return Policy(name="semeniuta", citation=SEMENIUTA, candidate=drop(rate, per=per))


def rnndrop(rate: LayerRates = 0.5) -> Policy:
    """Dropout on the cell state; each sample keeps one mask for all steps.

    The mask is not scaled in training, because the scale would compound as (1−p)^−t. Instead,
    evaluation multiplies the cell state by 1 − p. Moon et al. 2015, section 3.

    Args:
        rate: p in [0, 1): a number, a `Schedule`, or a list with one of these for each layer of
            the stack.

    Raises:
        PolicyError: the rate is out of range.
    """
    return Policy(name="rnndrop", citation=MOON, cell=drop(rate, per="sequence", scaled=False))


def zoneout(cell: LayerRates = 0.25, hidden: LayerRates = 0.025) -> Policy:
    """Zoneout: at random, units keep their previous value instead of the new one.

    Evaluation mixes the two values in the same proportion. Krueger et al. 2017, section 3. The
    defaults are the paper's rates on word-level Penn Treebank, on top of `zaremba`.

    Args:
        cell: the probability, in [0, 1), that an element of c keeps its previous value: a number,
            a `Schedule`, or a list with one of these for each layer of the stack. For layers
            without a cell state, use `zoneout(cell=0, ...)`.
        hidden: the probability for h, likewise.

    Raises:
        PolicyError: a rate is out of range.
    """
    return Policy(
        name="zoneout",
        citation=KRUEGER,
        hidden_update=Rule(parse_rates(hidden, "hidden"), kind="zoneout"),
        cell_update=Rule(parse_rates(cell, "cell"), kind="zoneout"),
    )


def weight_drop(rate: LayerRates = 0.5) -> Policy:
    """DropConnect: dropout on single entries of the recurrent weights, drawn once per call.

    All samples and steps share the mask. Biases are never masked. Merity et al. 2018, section 2.

    Args:
        rate: the dropout rate in [0, 1): a number, a `Schedule`, or a list with one of these for
            each layer of the stack.

    Raises:
        PolicyError: the rate is out of range.
    """
    return Policy(name="weight_drop", citation=MERITY, recurrent_weight=drop(rate, per="call"))


def awd(
    input: LayerRates = 0.4,
    between: LayerRates = 0.25,
    output: LayerRates = 0.4,
    embedding: LayerRates = 0.1,
    weight: LayerRates = 0.5,
) -> Policy:
    """The AWD-LSTM: `weight_drop`, `locked` vertical connections, and dropped word types.

    Merity et al. 2018, sections 2 and 4. The defaults are starting points for word-level Penn
    Treebank.

    Every rate is in [0, 1): a number, a `Schedule`, or (except `embedding`) a list with one of
    these for each layer of the stack.

    Args:
        input: the rate at the input of the stack.
        between: the rate between layers.
        output: the rate at the output of the stack.
        embedding: the rate of the word types; one mask per call.
        weight: the rate of the recurrent weights; one mask per call.

    Raises:
        PolicyError: a rate is out of range, or `embedding` is a list.
    """
    return Policy(
        name="awd",
        citation=MERITY,
        embedding=drop(parse_rates(embedding, "embedding"), per="call"),
        input=drop(parse_rates(input, "input"), per="sequence"),
        between=drop(parse_rates(between, "between"), per="sequence"),
        output=drop(parse_rates(output, "output"), per="sequence"),
        recurrent_weight=drop(parse_rates(weight, "weight"), per="call"),
    )


_PUBLISHED = (
    none,
    zaremba,
    naive,
    variational,
    locked,
    semeniuta,
    rnndrop,
    zoneout,
    weight_drop,
    awd,
)

_CATALOG: dict[str, Policy] = {make.__name__: make() for make in _PUBLISHED}


def names() -> tuple[str, ...]:
    """The names of all policies: the published ones and the registered ones."""
    return tuple(_CATALOG)


def register(policy: Policy) -> Policy:
    """Make your own policy available by its name, as the published ones are.

    Args:
        policy: a policy with a name of its own.

    Returns:
        The registered policy.

    Raises:
        PolicyError: it is not a `Policy`, it has no name of its own, or a different policy already
            has that name.
    """
    if not isinstance(policy, Policy):
        raise PolicyError(
            f"register takes a Policy. Received: {short_repr(policy)}; write: "
            f"dp.register(dp.Policy(input=dp.drop(0.5), name='mine'))"
        )
    if policy.name in ("", "custom"):
        raise PolicyError(
            f"Give the policy a name first: dp.Policy(..., name='mine'). Received: {policy!r}"
        )
    if _CATALOG.get(policy.name, policy) != policy:
        raise PolicyError(
            f"There is a policy {policy.name!r} already: {_CATALOG[policy.name]!r}. Received: "
            f"{policy!r}; choose another name for it."
        )
    return _CATALOG.setdefault(policy.name, policy)


def resolve(policy: PolicyName | Policy, rate: Rates | None = None) -> Policy:
    """Return the policy for a name and a rate. A `Policy` is returned as it is.

    Args:
        policy: a name, or a `Policy`.
        rate: rates that replace the policy's defaults, in any form that `Policy.with_rates` takes.

    Raises:
        PolicyError: the name is unknown (the message lists similar ones), a rate is outside
            [0, 1) or is for a site without a rule, or `rate` is given together with a `Policy` or
            with `"none"`.
    """
    return resolve_argument("policy", policy, rate)


def resolve_argument(argument: str, policy: PolicyName | Policy, rate: Rates | None) -> Policy:
    """The same as `resolve`, for an argument with another name.

    Every policy that a user gives passes through this function.

    Args:
        argument: what errors call the policy.
        policy: a name, or a `Policy`.
        rate: rates that replace the policy's defaults, or None.

    Raises:
        PolicyError: see `resolve`.
    """
    if isinstance(policy, Policy):
        if rate is not None:
            raise PolicyError(
                f"rate goes with a policy's name, and a Policy has its rates already. Received: "
                f"{argument}={policy!r}, rate={short_repr(rate)}; write: "
                f"{_with_its_rate(policy, rate)}"
            )
        return policy
    named = _CATALOG.get(str.__str__(policy)) if isinstance(policy, str) else None
    if named is None or isinstance(policy, Site):
        raise PolicyError(describe_wrong_policy(policy, names(), argument))
    if rate is None:
        return named
    if not named:
        raise PolicyError(
            f"Policy {policy!r} has no rate. Received: rate={short_repr(rate)}; leave it out."
        )
    return named.with_rates(rate)


def _with_its_rate(policy: Policy, rate: Rates) -> str:
    """What to write for a `Policy` with another rate."""
    text = rate_to_write(rate)
    if policy.name in _CATALOG and _CATALOG[policy.name].keys() == policy.keys():
        return f"policy={policy.name!r}, rate={text}"
    return f"policy=my_policy.with_rates({text})"
