"""The goals for what a policy costs, and whether the results meet them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Any

from .jobs import (
    CAPTURED,
    DROPPED,
    IN_LOOP,
    IN_SCOPE,
    MEDIUM,
    SMALL,
    VERTICAL,
    Job,
    same_dropout_of,
)
from .timing import ratio

Result = dict[str, Any]

Row = tuple[str, float]
"""Where, and how much."""


@dataclass(frozen=True)
class Aim:
    """One line of the table.

    Args:
        text: what is to hold.
        limit: the most it may be; or the least, with `at_least`.
        found: every figure that it is about.
        at_least: which way.
        kernels: whose kernels decide it, where they are another library's.
    """

    text: str
    limit: float
    found: Sequence[Row]
    at_least: bool = False
    kernels: str = ""

    @property
    def worst(self) -> Row:
        pick: Callable[..., Row] = min if self.at_least else max
        return pick(self.found, key=lambda row: row[1])

    @property
    def met(self) -> bool:
        value = self.worst[1]
        return value >= self.limit if self.at_least else value <= self.limit


def of(results: Sequence[Result], section: str, **wanted: Any) -> Iterator[tuple[Job, Any]]:
    """The jobs of a section and what they found, of these of its values; on the CPU, if no other
    device is named."""
    wanted = {"device": "cuda" if section == "gpu" else "cpu"} | wanted
    for result in results:
        job = Job.from_dict(result["job"])
        if job.section == section and all(getattr(job, k) == v for k, v in wanted.items()):
            yield job, result["found"]


def aims(results: Sequence[Result]) -> list[Aim]:
    """Those that the results say anything about."""
    found = [
        Aim("LSTM: vertical and weight policies ÷ stock layer with the same dropout, mean over "
            "sizes", 0.75,
            list(means(results, "LSTM", VERTICAL, DROPPED))),
        Aim("GRU: vertical and weight policies ÷ stock layer with the same dropout, mean over "
            "sizes", 0.55,
            list(means(results, "GRU", VERTICAL, DROPPED))),
        Aim("vertical and weight policies ÷ stock layer with the same dropout, any size", 1.10,
            list(_steps(results, VERTICAL, DROPPED))),
        Aim("LSTM: policies inside the recurrence ÷ stock layer, mean over sizes", 0.95,
            list(means(results, "LSTM", IN_LOOP, "stock"))),
        Aim("GRU: policies inside the recurrence ÷ stock layer, mean over sizes", 0.65,
            list(means(results, "GRU", IN_LOOP, "stock"))),
        Aim("policies inside the recurrence ÷ stock layer, any size", 1.10,
            list(_steps(results, IN_LOOP, "stock"))),
        Aim("small layers with a policy ÷ stock layer (for zaremba, with the same dropout)", 1.15,
            list(_small(results))),
        Aim("evaluation, for policies with their own rule ÷ stock layer", 1.0,
            list(_evaluation(results))),
        Aim("on a busy machine, policies ÷ stock layer (for zaremba, with the same dropout)", 0.5,
            list(_busy(results))),
        Aim("variational on a simple RNN ÷ stock layer", 1.0,
            list(_layers(results, "tanh", "relu"))),
        Aim("variational on an LSTM with a projection ÷ stock layer", 1.0,
            list(_layers(results, "projection"))),
        Aim("variational with separate masks for each gate ÷ stock layer", 1.15,
            list(_layers(results, "untied"))),
        Aim("variational under bfloat16 autocast ÷ stock layer", 1.0,
            list(_layers(results, "bfloat16"))),
        Aim(f"loop over PyTorch's cells ÷ variational, {MEDIUM}", 2.0,
            list(_cell_loops(results, shape=MEDIUM)), at_least=True),
        Aim(f"loop over PyTorch's cells ÷ variational, {SMALL}", 2.0,
            list(_cell_loops(results, shape=SMALL)), at_least=True),
        Aim("GPU: vertical and weight policies ÷ stock layer with the same dropout", 1.05,
            list(_on_gpu(results, VERTICAL, "")), kernels="cuDNN's"),
        Aim("GPU, CUDA graph: vertical and weight policies ÷ stock layer with the same dropout",
            1.05,
            list(_on_gpu(results, VERTICAL, CAPTURED)), kernels="cuDNN's"),
        Aim("GPU: policies inside the recurrence ÷ stock layer", 2.0,
            list(_on_gpu(results, IN_LOOP, ""))),
        Aim("GPU, CUDA graph: policies inside the recurrence ÷ stock layer", 2.0,
            list(_on_gpu(results, IN_LOOP, CAPTURED))),
        Aim("Keras: policies ÷ stock layer with its own dropout arguments", 1.05,
            list(_keras(results, own_dropout))),
        Aim("Keras: vertical policies ÷ stock layers and dropout layers at the same places", 1.03,
            list(_keras(results, same_dropout))),
        Aim("Keras: stock layer with recurrent_dropout ÷ variational", 1.2,
            list(_recurrent_dropout(results)), at_least=True),
        Aim("memory: vertical and weight policies ÷ stock layer with the same dropout", 1.0,
            list(_memory(results, VERTICAL, DROPPED))),
        Aim("memory: policies inside the recurrence ÷ stock layer", 1.3,
            list(_memory(results, IN_LOOP, "stock"))),
        Aim("GPU memory: vertical and weight policies ÷ stock layer with the same dropout", 1.0,
            list(_memory(results, VERTICAL, DROPPED, device="cuda"))),
        Aim("GPU memory: policies inside the recurrence ÷ stock layer", 1.3,
            list(_memory(results, IN_LOOP, "stock", device="cuda"))),
        Aim("memory in evaluation ÷ stock layer", 1.0,
            list(_memory(results, (*VERTICAL, *IN_LOOP), "stock", "evaluation"))),
        Aim("Keras memory: vertical policies ÷ stock layers and dropout layers at the same places",
            1.0,
            list(_keras_memory(results, VERTICAL, same_dropout))),
        Aim("Keras memory: policies inside the recurrence ÷ stock layer", 1.3,
            list(_keras_memory(results, IN_LOOP))),
        Aim("Keras memory in evaluation ÷ stock layer", 1.0,
            list(_keras_memory(results, (*VERTICAL, *IN_LOOP), when="evaluation")),
            kernels="the backend's"),
        Aim("time per token at a larger T ÷ at a smaller T", 1.15, list(_rises(results, "T"))),
        Aim("time per token at a larger B ÷ at a smaller B", 1.15, list(_rises(results, "B"))),
        Aim("time per token at a larger T ÷ at a smaller T, freed memory kept", 1.15,
            list(_rises(results, "T", keeps_memory=True))),
        Aim("keyed masks ÷ PyTorch's bernoulli_", 2.0, list(_masks(results, "bernoulli_"))),
        Aim("keyed masks ÷ masks without a seed", 2.0, list(_masks(results, "unkeyed"))),
        Aim("keyed masks ÷ training step", 0.05, list(_masks(results, "step"))),
        Aim("Keras: training step with keyed masks ÷ without a seed", 1.05,
            list(_keras_keyed(results))),
        Aim("loop over steps in dp.sequence ÷ the same loop without it", 1.05,
            list(_scopes(results))),
        Aim("layers of other libraries ÷ this library's",
            1.0, list(_peers(results)), at_least=True),
    ]  # fmt: skip
    return [aim for aim in found if aim.found]


def _named(job: Job, policy: str) -> str:
    return f"{job.cell} {policy}"


def _steps(
    results: Sequence[Result], policies: Sequence[str], baseline: str, **wanted: Any
) -> Iterator[Row]:
    for job, found in of(results, "torch", compiled=True, **wanted):
        (policy,) = job.policies
        if policy in policies and baseline in found:
            yield f"{_named(job, policy)}, {job.shape}", ratio(found[policy], found[baseline])[0]


def means(
    results: Sequence[Result], cell: str, policies: Sequence[str], baseline: str
) -> Iterator[Row]:
    """Of each policy that ran at every one of several sizes: the geometric mean over them."""
    jobs = [(job, found) for job, found in of(results, "torch", compiled=True) if job.cell == cell]
    shapes = {job.shape for job, _ in jobs}
    for policy in policies:
        ratios = {
            job.shape: ratio(found[policy], found[baseline])[0]
            for job, found in jobs
            if job.policies == (policy,)
        }
        if len(ratios) > 1 and ratios.keys() == shapes:
            yield f"{cell} {policy}, {len(shapes)} sizes", geometric_mean(ratios.values())


def small_ratios(found: Any, policy: str) -> dict[str, float]:
    """By size, what a small layer takes ÷ what PyTorch's takes."""
    return {size: ratio(each[policy], each["stock"])[0] for size, each in found.items()}


def _small(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "small"):
        (policy,) = job.policies
        for size, value in small_ratios(found, policy).items():
            yield f"{_named(job, policy)}, {size}", value


def _evaluation(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "evaluation"):
        for policy in job.policies:
            yield f"{_named(job, policy)}, {job.shape}", ratio(found[policy], found["stock"])[0]


def _busy(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "busy"):
        for policy, seconds in found.items():
            value = ratio(seconds["policy, busy"], seconds["stock, busy"])[0]
            yield f"{_named(job, policy)}, {job.shape}", value


def _layers(results: Sequence[Result], *kinds: str) -> Iterator[Row]:
    for job, found in of(results, "layers"):
        for kind in kinds:
            if kind in found:
                by_name = found[kind]
                where = f"{job.cell} {kind}, {job.shape}"
                yield where, ratio(by_name["variational"], by_name["stock"])[0]


def _on_gpu(results: Sequence[Result], policies: Sequence[str], how: str) -> Iterator[Row]:
    for job, found in of(results, "gpu"):
        for policy in (name for name in job.policies if name in policies):
            other = same_dropout_of(policy) if policy in VERTICAL else "stock"
            yield (
                f"{_named(job, policy)}, {job.shape}",
                ratio(found[policy + how], found[other + how])[0],
            )


def _cell_loops(results: Sequence[Result], **wanted: Any) -> Iterator[Row]:
    for job, found in of(results, "torch", compiled=True, **wanted):
        if "cell loop" in found:
            yield job.cell, ratio(found["cell loop"], found["variational"])[0]


def own_dropout(policy: str) -> str:
    """What of Keras's own layer a policy is held against."""
    return "dropout" if policy in VERTICAL else "recurrent_dropout"


def same_dropout(policy: str) -> str | None:
    """The layers of Keras that together drop the same as a policy; None where there are none."""
    return {"zaremba": "Dropout layers", "locked": "SpatialDropout1D layers"}.get(policy)


def _keras(results: Sequence[Result], against: Callable[[str], str | None]) -> Iterator[Row]:
    for job, found in of(results, "keras"):
        for policy in job.policies:
            baseline = against(policy)
            if baseline is not None:
                where = f"{_named(job, policy)}, {job.backend}"
                yield where, ratio(found[policy], found[baseline])[0]


def _recurrent_dropout(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "keras"):
        value = ratio(found["recurrent_dropout"], found["variational"])[0]
        yield f"{job.cell}, {job.backend}", value


def _keras_keyed(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "keras"):
        for name in found:
            policy, comma, _ = name.partition(", keyed")
            if comma:
                where = f"{_named(job, policy)}, {job.backend}"
                yield where, ratio(found[name], found[policy])[0]


def _memory(
    results: Sequence[Result],
    policies: Sequence[str],
    baseline: str,
    when: str = "training",
    device: str = "cpu",
) -> Iterator[Row]:
    for job, found in of(results, "memory", device=device):
        (policy,) = job.policies
        if policy in policies and baseline in found:
            yield _named(job, policy), found[policy][when] / found[baseline][when]


def _keras_memory(
    results: Sequence[Result],
    policies: Sequence[str],
    against: Callable[[str], str | None] = lambda _: "stock",
    when: str = "training",
) -> Iterator[Row]:
    for job, found in of(results, "keras-memory"):
        for policy in (name for name in job.policies if name in policies):
            baseline = against(policy)
            if baseline is not None:
                where = f"{_named(job, policy)}, {job.backend}"
                yield where, found[policy][when] / found[baseline][when]


def per_token(job: Job, axis: str, by_size: Any, name: str) -> dict[int, list[float]]:
    """Seconds for each token, by T or by B, in each round."""
    other = job.shape.batch if axis == "T" else job.shape.steps
    return {
        int(size): [each / (int(size) * other) for each in seconds[name]]
        for size, seconds in by_size.items()
    }


def by_smallest(by_size: dict[int, list[float]]) -> dict[int, float]:
    """Of each larger size, its time per token ÷ that of the smallest."""
    first = by_size[min(by_size)]
    return {size: ratio(each, first)[0] for size, each in by_size.items() if size > min(by_size)}


def rises(by_size: dict[int, list[float]]) -> dict[int, float]:
    """Of each larger size, its time per token ÷ that of the smaller one where this is most."""
    return {
        size: max(ratio(each, by_size[smaller])[0] for smaller in by_size if smaller < size)
        for size, each in by_size.items()
        if size > min(by_size)
    }


def _rises(results: Sequence[Result], axis: str, keeps_memory: bool = False) -> Iterator[Row]:
    for where, size, times in _by_policy(results, axis, keeps_memory):
        yield f"{where}, {axis}={size}", rises(times)[size]


def _by_policy(
    results: Sequence[Result], axis: str, keeps_memory: bool = False
) -> Iterator[tuple[str, int, dict[int, list[float]]]]:
    """Every policy's times per token, for every size but the smallest."""
    for job, found in of(results, "growth", keeps_memory=keeps_memory):
        (policy,) = job.policies
        times = per_token(job, axis, found[axis], policy)
        for size in sorted(times)[1:]:
            yield _named(job, policy), size, times


def _masks(results: Sequence[Result], baseline: str) -> Iterator[Row]:
    for job, found in of(results, "masks"):
        for policy in job.policies:
            yield _named(job, policy), ratio(found[policy]["keyed"], found[policy][baseline])[0]


def _scopes(results: Sequence[Result]) -> Iterator[Row]:
    for job, found in of(results, "scopes"):
        for name in found:
            if name.endswith(IN_SCOPE):
                outside = found[name.removesuffix(IN_SCOPE)]
                where = f"{job.cell} {name.removesuffix(IN_SCOPE)}, {job.shape}"
                yield where, ratio(found[name], outside)[0]


def _peers(results: Sequence[Result]) -> Iterator[Row]:
    for _, found in of(results, "peers"):
        for name, seconds in found.items():
            if "missing" not in seconds:
                yield name, ratio(seconds["peer"], seconds["ours"])[0]
