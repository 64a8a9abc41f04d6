"""What a layer under a policy has besides its weights: its placement, its keys and its masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dropout_policies.adapter import (
    Placement,
    Plan,
    PolicyError,
    Tape,
    plan_at_call,
)

from . import masks, tracing
from .call_counting import CountingLayer
from .masks import Masks
from .shared_calls import SHARED

POLICY_ATTRIBUTES = (
    "placement",
    "mask_seed",
    "row_offset",
    "tape",
    "sampling",
    "hold_masks",
    "rates_at",
    "native_rates",
    "dropouts_taken_over",
    "told_of_steps",
    "_mask_generator",
    "_call_counter",
    "_before_policy",
)
"""The attributes that a policy adds to a layer."""


class SavedKeys(NamedTuple):
    """A layer's own keys while `sample` has replaced them."""

    state: Any
    sampling: bool
    hold_masks: bool
    rates_at: int | None


class PolicyLayer(CountingLayer):
    """A layer that can be under a policy: a mixin of `keras.layers.Layer`."""

    placement: Placement | None = None
    mask_seed: int | None = None
    row_offset: int = 0
    tape: Tape | None = None
    sampling: bool = False
    """Whether masks apply in evaluation too."""
    hold_masks: bool = False
    """Whether every call has the masks of the first."""
    rates_at: int | None = None
    """The call whose rates all calls use, while a schedule does not advance. None: their own."""
    told_of_steps: bool = False
    """Whether a warning was given that masks are not kept from step to step."""
    native_rates: Sequence[tuple[float, float]] = ()
    """The `dropout` and `recurrent_dropout` of each of Keras's cells that a policy took over."""
    dropouts_taken_over: Mapping[str, Sequence[Any]] = MappingProxyType({})
    """The dropout layers next to this one that the policy has switched off: by name, the attribute
    and the value to restore. They are saved with the policy."""
    name: str

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        """Put the layer under a policy. With a seed, its masks are keyed.

        This adds only plain attributes, so that it also works on a layer that is built.
        """
        self.placement, self.mask_seed = placement, seed
        if self.generator is None:
            # Not by setattr: a built layer takes no new state. The generator is no weight.
            self.__dict__["_mask_generator"] = self._new_generator()
        if self.keyed:
            self._set_state(self._seed_and_call()[0] if seed is None else seed, 0)

    def add_generator(self: Any) -> None:
        """Give a layer without a generator one for its masks. This is for constructors.

        Keras counts it among the layer's own seed generators. It does not count the one that
        `set_placement` adds.
        """
        if self.generator is None and not self.built:  # a built layer takes no new state
            self._mask_generator = self._new_generator()

    def remove_generator(self: Any) -> None:
        """Remove the generator that came with the policy, if there is one."""
        own = self.__dict__.pop("_mask_generator", None)
        if own is not None:
            # Private, because nothing public removes a seed generator from a layer.
            self._tracker.untrack(own)
            self._untrack_variable(own.state)

    def _new_generator(self) -> keras.random.SeedGenerator:
        return keras.random.SeedGenerator(name=f"{self.name}_masks")

    @property
    def native_generator(self) -> Any:
        """The generator of the stock layer's own dropout, or None."""
        return None

    @property
    def generator(self) -> Any:
        """The source of the masks. With keyed masks, its state is the pair (seed, call)."""
        return self.__dict__.get("_mask_generator", self.native_generator)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the stock layer, and the state of a generator that came with the policy
        or of calls that share masks.

        A compiled function must return that state. Weights do not change, and so checkpoints do not
        either.
        """
        generator, counter = (self.__dict__.get(n) for n in ("_mask_generator", "_call_counter"))
        own = [] if generator is None else [generator.state]
        own += [] if counter is None else [counter.variable]
        stock = [v for v in super().variables if not any(v is each for each in own)]  # type: ignore[misc]
        return [*stock, *own]  # last in any case

    @property
    def seed(self) -> int | None:
        """The seed of keyed masks, or None."""
        return self.mask_seed

    @property
    def keyed(self) -> bool:
        """Whether masks are a function of (seed, call).

        They are if the user gave a seed. They also are if a rate changes with the call, because
        calls must then be counted.
        """
        scheduled = self.placement is not None and self.placement.policy.scheduled
        return self.sampling or self.mask_seed is not None or scheduled

    @property
    def calls(self) -> int:
        """The number of training calls so far. It is part of the key of the masks.

        Without a seed or a schedule no mask depends on it. Then it is the number of masks drawn.
        """
        return 0 if self.generator is None else self._seed_and_call()[1]

    @calls.setter
    def calls(self, calls: int) -> None:
        assert self.placement is not None, "calls are counted under a policy"
        if SHARED.of(self) is not None:
            raise PolicyError(
                f"{self.name}: inside dp.sequence and dp.hold the calls are counted by the scope. "
                f"Set calls before the scope, or after it. Received: calls={calls!r}"
            )
        self._set_state(self._seed_and_call()[0], calls)

    def _seed_and_call(self) -> tuple[int, int]:
        seed, call = ops.convert_to_numpy(self.generator.state)
        return int(seed) % 2**32, int(call) % 2**32

    def _set_state(self, seed: int, call: int) -> None:
        """Set the generator's state (seed, call), whatever integer type the backend uses."""
        state = self.generator.state
        words = np.array([seed % 2**32, call % 2**32], np.int64)
        state.assign(words.astype(np.uint32).astype(keras.backend.standardize_dtype(state.dtype)))

    def sample(self, seed: int, hold: bool) -> SavedKeys:
        """Apply masks in evaluation too, keyed by a seed. See `PolicyLayer` of the core."""
        if SHARED.of(self) is not None:
            raise PolicyError(
                f"{self.name}: its calls share masks already. Sample first, and share inside: "
                f"with dp.monte_carlo(model), dp.sequence(model): ..."
            )
        state = ops.convert_to_numpy(self.generator.state).copy()
        before = SavedKeys(state, self.sampling, self.hold_masks, self.rates_at)
        if self.rates_at is None:
            self.rates_at = self.calls
        self._set_state(seed, 0)
        self.sampling, self.hold_masks = True, hold
        return before

    def resume(self, before: SavedKeys) -> None:
        """Restore the layer's own masks."""
        self.generator.state.assign(before.state)
        self.sampling, self.hold_masks = before.sampling, before.hold_masks
        self.rates_at = before.rates_at

    def is_active(self, training: bool) -> bool:
        """Whether a policy has any effect on a call."""
        if self.placement is None or not self.placement.policy.active:
            return False
        return self.masks_apply(training) or self.placement.policy.evaluation != "identity"

    def masks_apply(self, training: bool) -> bool:
        """Whether masks apply in a call."""
        plays = self.tape is not None and self.tape.plays
        return bool(training) or self.sampling or plays

    def masks(self, plan: Plan, training: bool, dtype: str, inputs: Any, steps: Any) -> Masks:
        """The masks of a call, or their means in evaluation.

        They are drawn outside of any loop, and the call is counted.

        Args:
            plan: which masks the call needs, and their shapes.
            training: whether the call is in training mode.
            dtype: the dtype of the masks.
            inputs: the call's inputs that belong to samples, nested in any way.
            steps: T.

        Raises:
            PolicyError: the masks are recorded or replayed, and the call is traced. The call runs
                on several replicas, or is mapped over samples, and its masks would not be those of
                its rows. JAX compiles it without its random state. Or it cannot share masks with
                the other calls of its sequence.
        """
        if not plan:
            return {}
        if self.rates_at is not None:
            plan = plan_at_call(plan, self.rates_at)
        if not self.masks_apply(training):
            return masks.means(plan, ops.cast(self.generator.state, "int32"), dtype)
        outside = tracing.value_outside_scope(self.generator.state)
        replica = tracing.replica_number()
        if replica is not None:
            self._check_replicas(plan)
        before = tracing.value_now(self.generator.state)
        shared = SHARED.of(self)
        if shared is not None and tracing.asks_for_shapes_in_torch():
            shared = None
        is_shared = shared is not None and not shared.is_left_to_graph
        if shared is not None and is_shared:
            is_counted = training or self.sampling
            source = shared.source(plan, self.row_offset, is_counted)
            if is_counted:
                shared.count(steps)
        else:
            source = self._count(before, training, steps, replica)
        per_sample = [x for x in keras.tree.flatten(inputs) if ops.is_tensor(x)]
        check_not_shared = partial(
            tracing.check_not_shared, per_sample=per_sample, error=self._vmap_error
        )

        kept = shared.kept if shared is not None and is_shared else None

        def draw() -> Masks:
            return masks.draw(plan, self.generator, source, dtype, replica, check_not_shared, kept)

        try:
            drawn = self._taped(plan, draw, dtype)
        except PolicyError:
            if self.keyed and not is_shared:
                self.generator.state.assign(before)  # a refused call is not counted
            raise
        if not is_shared and self.tape is None:
            self._check_state_is_returned(outside)
        return drawn

    def _taped(self, plan: Plan, draw: Callable[[], Masks], dtype: str) -> Masks:
        """Masks that are drawn, or that a tape gives in their place."""
        if self.tape is None:
            return draw()
        if tracing.is_traced():
            raise PolicyError(
                f"{self.name}: masks can be recorded or replayed only in calls that are not "
                "compiled, and this one is. Call the model itself once it is built, as in "
                "model(x, training=True), or compile(run_eagerly=True)."
            )
        return self.tape.masks(
            plan,
            draw,
            lambda mask: np.asarray(ops.convert_to_numpy(ops.cast(mask, "float32"))),
            lambda array: ops.convert_to_tensor(array, dtype=dtype),
        )

    def _check_replicas(self, plan: Plan) -> None:
        """Make sure that masks are right where several replicas run this call at the same time.

        Args:
            plan: the masks of the call.

        Raises:
            PolicyError: they depend on the number of a row, which no replica knows.
        """
        by_row = any(mask.by_sample for mask in plan.values())
        if self.tape is not None or (by_row and (self.sampling or self.mask_seed is not None)):
            what = "masks with a seed"
            instead = "Train with keras.distribution.DataParallel on JAX, or leave out seed=."
            if self.tape is not None or self.sampling:
                what = "sampled masks" if self.sampling else "recorded and replayed masks"
                instead = "Call the model itself on the whole batch, as in model(x)."
            raise PolicyError(
                f"{self.name}: {what} belong to the rows of the whole batch, and this call runs on "
                f"several replicas or devices (a tf.distribute strategy, jax.pmap, "
                f"jax.shard_map), none of which knows which rows it has. {instead}"
            )

    def _vmap_error(self) -> PolicyError:
        has_seed = self.mask_seed is not None or self.sampling
        shared = "the masks of row 0" if has_seed else "the same masks"
        return PolicyError(
            f"{self.name}: this call is mapped over samples (jax.vmap, torch.func.vmap, "
            f"tf.vectorized_map), and every sample would get {shared}. Call the layer on the whole "
            f"batch; or call stateless_call and map non_trainable_variables too, with a random "
            f"state for each sample."
        )
