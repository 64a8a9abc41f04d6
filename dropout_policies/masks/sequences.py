"""`dropout_policies.sequence` and `hold`: several calls that share their masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..argument_checks import short_repr
from ..errors import PolicyError, PolicyWarning
from ..placement.adapters import find_adapter
from .keyed import derived_seed

Shared = TypeVar("Shared")
"""The type of what calls of a layer share."""

_models: ContextVar[tuple[Any, ...]] = ContextVar("models_in_sequence", default=())


def models_in_sequence() -> tuple[Any, ...]:
    """The models whose calls form one sequence now, under a policy or not."""
    return _models.get()


class RowGroup(NamedTuple):
    """Rows of a batch whose masks are drawn together.

    Args:
        rows: how many rows.
        seed: the seed of their masks.
        row_offset: the number of the first row, which is part of the key of its masks.
        first_step: the step of the sequence at which the call begins.
    """

    rows: int
    seed: int
    row_offset: int
    first_step: int

    def next_row(self) -> RowGroup:
        """The group of the next single row, if it has the same seed and step."""
        return self._replace(rows=1, row_offset=self.row_offset + self.rows)


@dataclass
class SharedMasks:
    """What calls of one layer share inside `sequence` or `hold`.

    Args:
        goes_on: True: each call continues at the step where the previous call ended, as in
            `sequence`. False: each call begins at step 0, as in `hold`.
        rows: the numbers of the batch's rows, which are part of the keys of masks. None: 0, 1, ...

    Attributes:
        seed: the seed of the masks. None before the first call.
        call: the number of the call that all of these calls count as, in the keys of their masks.
        rates_at: the call whose rates apply.
        step: how many steps have been made.
        episodes, starts: for each row, how often it was reset, and at which step last. None if no
            row was reset.
        drawn: what the adapter keeps of the masks that it has drawn, by slot.
    """

    goes_on: bool
    rows: npt.NDArray[np.int64] | None = None
    seed: int | None = None
    call: int = 0
    rates_at: int = 0
    step: int = 0
    episodes: npt.NDArray[np.int64] | None = None
    starts: npt.NDArray[np.int64] | None = None
    drawn: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def advance(self, steps: int) -> None:
        """Note that a call of some steps has ended."""
        if self.goes_on:
            self.step += steps

    def reset(self, rows: Any) -> None:
        """Begin a new episode in some rows. See `SequenceScope.reset`."""
        flags = row_flags(rows)
        if not flags.any():
            return
        if self.episodes is None or self.starts is None:
            self.episodes = np.zeros(len(flags), np.int64)
            self.starts = np.zeros(len(flags), np.int64)
        check_row_count(len(flags), len(self.episodes))
        self.episodes = self.episodes + flags
        self.starts = np.where(flags, self.step, self.starts)

    def row_groups(self, batch: int, row_offset: int, back: int = 0) -> list[RowGroup]:
        """Group the rows of a call so that each group's masks can be drawn together.

        Args:
            batch: B.
            row_offset: the number of the first row, if the rows have no numbers of their own.
            back: how many steps before the next step the call begins.

        Raises:
            PolicyError: there are more rows than the sequence began with.
        """
        step = self.step - back
        if self.rows is None and self.episodes is None:
            return [self.whole(batch, row_offset, back)]
        known = [len(x) for x in (self.rows, self.episodes) if x is not None]
        if batch > min(known):
            raise PolicyError(
                f"The sequence has {min(known)} rows. Received: a call with {batch}. Write "
                f"dp.sequence(model, rows=[...]) with a number for each row."
            )
        numbers = self.rows if self.rows is not None else np.arange(batch) + row_offset
        groups: list[RowGroup] = []
        for row in range(batch):
            episode = 0 if self.episodes is None else int(self.episodes[row])
            start = 0 if self.starts is None else int(self.starts[row])
            seed = self._seed if episode == 0 else derived_seed(self._seed, episode)
            group = RowGroup(1, seed, int(numbers[row]), max(step - start, 0))
            # Rows that are alike are drawn together.
            if groups and group == groups[-1].next_row():
                groups[-1] = groups[-1]._replace(rows=groups[-1].rows + 1)
            else:
                groups.append(group)
        return groups

    def whole(self, rows: int, row_offset: int = 0, back: int = 0) -> RowGroup:
        """One group of rows that have no numbers or episodes of their own. Arguments as above."""
        return RowGroup(rows, self._seed, row_offset, self.step - back)

    @property
    def _seed(self) -> int:
        assert self.seed is not None, "masks are drawn in a call"
        return self.seed


class Resettable(Protocol):
    """What calls of a layer share. `reset` begins a new episode in some rows."""

    def reset(self, rows: Any) -> None: ...


class SharingLayer(Protocol):
    """A layer under a policy whose calls can share masks.

    `prepare_to_share` gets the layer ready. It returns whether compiled versions of its model are
    now out of date. `share_masks` returns a context in which the layer's calls share masks, within
    the current thread or task. Its arguments are the fields of `SharedMasks`.
    """

    def prepare_to_share(self) -> bool: ...

    def share_masks(
        self, goes_on: bool, rows: npt.NDArray[np.int64] | None
    ) -> AbstractContextManager[Resettable]: ...


class SharedState(Generic[Shared]):
    """What the calls of layers share now: one value for each thread and each asyncio task."""

    def __init__(self) -> None:
        self.entered = 0
        """How many scopes are open now, in all threads."""
        self._now: ContextVar[dict[int, tuple[object, Shared]]] = ContextVar("shared")

    def of(self, keys: object) -> Shared | None:
        """What the calls that draw with these keys share, or None."""
        _, shared = self._now.get({}).get(id(keys), (None, None))
        return shared

    @contextmanager
    def enter(self, keys: object, shared: Shared) -> Iterator[Shared]:
        """Let the calls that draw with these keys share masks."""
        # With the keys, so that no other object gets their number meanwhile.
        token = self._now.set({**self._now.get({}), id(keys): (keys, shared)})
        self.entered += 1
        try:
            yield shared
        finally:
            self.entered -= 1
            self._now.reset(token)


class SequenceScope:
    """The object that `with dropout_policies.sequence(model) as scope` returns."""

    def __init__(self, shared: Sequence[Resettable]) -> None:
        self._shared = shared

    def reset(self, rows: Any) -> None:
        """Begin a new sequence in some rows of the batch, with new masks and at step 0.

        Args:
            rows: a boolean for each row, `[B]`, for example an environment's `done`.

        Raises:
            PolicyError: `rows` is not an array of booleans, or its length has changed.
        """
        for shared in self._shared:
            shared.reset(rows)


@contextmanager
def sequence(model: Any, *, rows: Any = None) -> Iterator[SequenceScope]:
    """Treat all calls in the block as one sequence.

    A model that runs step by step then has the masks that it would have in one call over the whole
    sequence.

    ```python
    with dp.sequence(model):
        for x in steps:
            y, state = model(x, state)
    ```

    Masks per sequence and per call are drawn once and kept. Masks per step continue from step to
    step. `calls` advances by one. With a seed, the masks are bit for bit those of one call over
    the whole sequence.

    A model without a layer under a policy runs as usual. So the same code trains the network with
    and without dropout.

    Args:
        model: a model, or one of its layers.
        rows: the number of each row of the batch, `[B]`, which is part of the key of its masks;
            integers in [0, 2**32). Use it for batches that are parts of a larger one. None: 0, 1,
            ...

    Yields:
        A scope. Its `reset(rows)` begins a new sequence in some rows.

    Raises:
        PolicyError: no adapter handles the model, or `rows` are not such numbers.
    """
    numbers = None if rows is None else _row_numbers(rows)
    with _sharing(model, goes_on=True, rows=numbers) as shared:
        token = _models.set((*_models.get(), model))
        try:
            yield SequenceScope(shared)
        finally:
            _models.reset(token)


@contextmanager
def hold(model: Any) -> Iterator[None]:
    """Give all calls in the block the same masks.

    Use it for the two twins of a siamese network, or to look at one batch a second time.

    ```python
    with dp.hold(model):
        loss = distance(model(first), model(second))
    ```

    Each call begins at step 0, and all calls together count as one. Pass the same rows in every
    call, because a mask belongs to its row of the batch.

    Args:
        model: a model, or one of its layers. Without a layer under a policy it runs as usual.

    Raises:
        PolicyError: no adapter handles the model.
    """
    with _sharing(model, goes_on=False):
        yield


@contextmanager
def _sharing(
    model: Any, goes_on: bool, rows: npt.NDArray[np.int64] | None = None
) -> Iterator[list[Resettable]]:
    adapter = find_adapter(model)
    layers = adapter.under_policy(model)
    if not all(hasattr(layer, "share_masks") for layer in layers.values()):
        raise PolicyError(
            f"{type(adapter).__name__} cannot have calls share masks. Give the layer the whole "
            f"sequence in one call."
        )
    sharing = cast(Sequence[SharingLayer], list(layers.values()))
    outdated = [layer.prepare_to_share() for layer in sharing]
    if any(outdated):
        adapter.changed(model)
    with ExitStack() as stack:
        yield [stack.enter_context(layer.share_masks(goes_on, rows)) for layer in sharing]


MOST_STEPS_AT_ONCE = 64
"""The largest number of steps whose masks are drawn in advance."""

FEW_STEPS = 8
"""A call with more steps than this draws only its own masks."""


def steps_to_draw(steps: int, before: int, goes_on: bool) -> int:
    """How many steps a call draws masks for. Short calls draw in advance, so that not each draws.

    Args:
        steps: T of the call.
        before: the number of steps that were drawn last time, or 0.
        goes_on: whether the next call continues where this one ends.
    """
    if not goes_on or steps > FEW_STEPS:
        return steps
    return max(steps, min(2 * before, MOST_STEPS_AT_ONCE))


def warn_of_steps(layer: str, policy: str, sites: Sequence[str]) -> None:
    """Warn that a layer is called step by step outside of a scope.

    Args:
        layer: the name of the layer.
        policy: the name of the policy.
        sites: the sites where the policy keeps masks for longer than a step.
    """
    warnings.warn(
        f"{layer} is called for one step from a given state, and policy {policy!r} draws masks "
        f"anew in every call, although they should last ({', '.join(dict.fromkeys(sites))}). If "
        "these steps are one sequence, run them inside with dp.sequence(model): ...",
        PolicyWarning,
        stacklevel=7,
    )


def row_flags(rows: Any) -> npt.NDArray[np.bool_]:
    """The argument of `SequenceScope.reset` as an array `[B]`.

    Raises:
        PolicyError: it is not an array of booleans.
    """
    array = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    if array.ndim != 1 or not len(array) or not np.isin(array, (0, 1)).all():
        raise PolicyError(
            f"reset takes a truth value for each row of the batch: reset(done). "
            f"Received: {short_repr(rows)}"
        )
    return array.astype(bool)


def check_row_count(given: int, before: int) -> None:
    """Check that `reset` receives as many rows as before.

    Raises:
        PolicyError: it does not.
    """
    if given != before:
        raise PolicyError(
            f"reset takes one truth value for each of the {before} rows of the batch. "
            f"Received: {given}"
        )


def _row_numbers(rows: Any) -> npt.NDArray[np.int64]:
    array = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    is_valid = array.ndim == 1 and array.dtype.kind in "iu" and len(array) > 0
    if not is_valid or (array < 0).any() or (array >= 2**32).any():
        raise PolicyError(
            f"rows takes the number of each row of the batch, from 0 on: rows=[4, 5, 6]. "
            f"Received: rows={short_repr(rows)}"
        )
    return array.astype(np.int64)
