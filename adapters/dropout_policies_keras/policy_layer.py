"""What a layer under a policy has beside its weights: its place, its keys, and its masks."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dropout_policies.adapter import (
    Placement,
    Plan,
    Policy,
    PolicyError,
    Tape,
    check_seed,
    plan_at_call,
    resolve,
)

from . import masks, tracing

POLICY_ATTRIBUTES = (
    "placement",
    "mask_seed",
    "row_offset",
    "tape",
    "sampling",
    "held",
    "rates_at",
    "_mask_generator",
)
"""The attributes that a policy adds to a layer."""


class SavedKeys(NamedTuple):
    """A layer's keys while those of a sampling are in their place."""

    state: Any
    sampling: bool
    held: bool
    rates_at: int | None


class PolicyLayer:
    """A layer that may be under a policy; a mixin of `keras.layers.Layer`."""

    placement: Placement | None = None
    mask_seed: int | None = None
    row_offset: int = 0
    tape: Tape | None = None
    sampling: bool = False
    """Whether masks fall in evaluation too."""
    held: bool = False
    """Whether every call has the masks of the first."""
    rates_at: int | None = None
    """The call whose rates hold, where a schedule is not to move; None for each its own."""
    name: str

    def set_placement(self, placement: Placement, seed: int | None) -> None:
        """Put the layer under a policy; masks are keyed if there is a seed.

        Adds plain attributes only, so that it works on a layer that is built.
        """
        self.placement, self.mask_seed = placement, seed
        if self.generator is None:
            # Not by setattr: a layer that is built takes no new state. It is no weight.
            self.__dict__["_mask_generator"] = keras.random.SeedGenerator(name=f"{self.name}_masks")
        if self.keyed:
            self._set_state(self._words()[0] if seed is None else seed, 0)

    @property
    def native_generator(self) -> Any:
        """The generator of the stock layer's own dropout, or None."""
        return None

    @property
    def generator(self) -> Any:
        """Where masks come from; keyed, its state is the pair (seed, call)."""
        return self.__dict__.get("_mask_generator", self.native_generator)

    @property
    def variables(self) -> list[keras.Variable]:
        """As in the stock layer, and the state of a generator that the policy brought along, which
        a compiled function must hand back. Weights, and so checkpoints, do not change."""
        own = self.__dict__.get("_mask_generator")
        return [*super().variables, *([] if own is None else [own.state])]  # type: ignore[misc]

    @property
    def seed(self) -> int | None:
        """The seed of keyed masks, or None."""
        return self.mask_seed

    @property
    def keyed(self) -> bool:
        """Whether masks are a function of (seed, call): with a seed of the user's, or where a rate
        changes with the call, which must be counted then."""
        scheduled = self.placement is not None and self.placement.policy.scheduled
        return self.sampling or self.mask_seed is not None or scheduled

    @property
    def calls(self) -> int:
        """How many training calls there were; a word of the masks' keys."""
        return 0 if self.generator is None else self._words()[1]

    @calls.setter
    def calls(self, calls: int) -> None:
        assert self.placement is not None, "calls are counted under a policy"
        self._set_state(self._words()[0], calls)

    def _words(self) -> tuple[int, int]:
        seed, call = ops.convert_to_numpy(self.generator.state)
        return int(seed) % 2**32, int(call) % 2**32

    def _set_state(self, seed: int, call: int) -> None:
        """Set the generator's state (seed, call), whatever integers the backend keeps it in."""
        state = self.generator.state
        words = np.array([seed % 2**32, call % 2**32], np.int64)
        state.assign(words.astype(np.uint32).astype(keras.backend.standardize_dtype(state.dtype)))

    def sample(self, seed: int, hold: bool) -> SavedKeys:
        """Have masks fall in evaluation too, keyed by a seed; see `PolicyLayer` of the core."""
        state = ops.convert_to_numpy(self.generator.state).copy()
        before = SavedKeys(state, self.sampling, self.held, self.rates_at)
        if self.rates_at is None:
            self.rates_at = self.calls
        self._set_state(seed, 0)
        self.sampling, self.held = True, hold
        return before

    def resume(self, before: SavedKeys) -> None:
        """Put the layer's own masks back."""
        self.generator.state.assign(before.state)
        self.sampling, self.held = before.sampling, before.held
        self.rates_at = before.rates_at

    def is_active(self, training: bool) -> bool:
        """Whether a policy has anything to do in a call."""
        if self.placement is None or not self.placement.policy.active:
            return False
        return self.masks_apply(training) or self.placement.policy.evaluation != "identity"

    def masks_apply(self, training: bool) -> bool:
        """Whether masks fall in a call."""
        plays = self.tape is not None and self.tape.plays
        return bool(training) or self.sampling or plays

    def masks(self, plan: Plan, training: bool, dtype: str, inputs: Any) -> masks.Masks:
        """The masks of a call, or what stands for them in evaluation; they are drawn outside of
        any loop, and the call is counted.

        Args:
            wanted: what is planned.
            training: whether the call is one in training.
            dtype: of the masks.
            inputs: what the call is given for each sample, nested in any way.

        Raises:
            PolicyError: the masks are to be taken out or put in, and the call is traced; or the
                call runs on several replicas, or is mapped over samples, and its masks would not
                be those of its rows; or JAX compiles it without its random state.
        """
        if not plan:
            return {}
        if self.rates_at is not None:
            plan = plan_at_call(plan, self.rates_at)
        if not self.masks_apply(training):
            return masks.means(plan, ops.cast(self.generator.state, "int32"), dtype)
        outside = tracing.value_outside(self.generator.state)
        replica = tracing.replica_number()
        if replica is not None:
            self._check_replicas(plan)
        before = state = None
        if self.keyed:
            counts = (training or self.sampling) and not self.held
            before = self.generator.next() if counts else self.generator.state
            state = ops.cast(before, "int32")
        per_sample = [x for x in keras.tree.flatten(inputs) if ops.is_tensor(x)]
        unshared = partial(tracing.unshared, per_sample=per_sample, error=self._mapped)

        def draw() -> masks.Masks:
            offset = self.row_offset
            return masks.draw(plan, self.generator, state, offset, dtype, replica, unshared)

        if self.tape is None:
            try:
                drawn = draw()
            except PolicyError:
                if before is not None:
                    self.generator.state.assign(before)  # a call that is refused is not counted
                raise
            self._check_kept(outside)
            return drawn
        if _is_traced():
            raise PolicyError(
                f"{self.name}: masks can be taken out or put in only where nothing is compiled, "
                f"and this call is. Call the model itself once it is built, as in model(x, "
                f"training=True), or compile(run_eagerly=True)."
            )
        return self.tape.masks(
            plan,
            draw,
            lambda mask: np.asarray(ops.convert_to_numpy(ops.cast(mask, "float32"))),
            lambda array: ops.convert_to_tensor(array, dtype=dtype),
        )

    def _check_replicas(self, plan: Plan) -> None:
        """Make sure that masks are right where several replicas run this call at the same time.

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

    def _check_kept(self, before: Any) -> None:
        """Make sure that the next call finds the random state that this one left.

        Raises:
            PolicyError: JAX compiles the call as a function without it, and it is gone.
        """
        if tracing.is_traced_in_jax(tracing.value_outside(self.generator.state)):
            self.generator.state.assign(before)
            raise PolicyError(
                f"{self.name}: jax.jit compiles this training call as a function that does not "
                f"return the layer's random state, and every call of it would get the same masks. "
                f"Write: y, non_trainable_variables = model.stateless_call(trainable_variables, "
                f"non_trainable_variables, x, training=True), and return both."
            )

    def _mapped(self) -> PolicyError:
        seeded = self.mask_seed is not None or self.sampling
        one = "the masks of row 0" if seeded else "the same masks"
        return PolicyError(
            f"{self.name}: this call is mapped over samples (jax.vmap, torch.func.vmap, "
            f"tf.vectorized_map), and every sample would get {one}. Call the layer on the whole "
            f"batch; or call stateless_call and map non_trainable_variables too, with a random "
            f"state for each sample."
        )


def _is_traced() -> bool:
    """Whether what is computed now has no value yet."""
    try:
        ops.convert_to_numpy(ops.zeros(()))
    except (TypeError, AttributeError, NotImplementedError, RuntimeError):
        return True
    return False


def resolve_policy(
    layer_name: str, policy: str | Policy | None, rate: Any, seed: int | None, **others: object
) -> Policy | None:
    """The policy that a constructor was given, or None.

    Raises:
        PolicyError: it is unknown, a rate or the seed is out of range, or one of the arguments
            that go with a policy came without one.
    """
    if policy is not None:
        if seed is not None:
            check_seed(seed)
        return resolve(policy, rate)
    for argument, value in {"rate": rate, **others}.items():
        if value is not None:
            raise PolicyError(
                f"{layer_name}: {argument} goes with a policy. Received: {argument}={value!r}, "
                f"policy=None; write: policy='zaremba', {argument}={value!r}"
            )
    return None
