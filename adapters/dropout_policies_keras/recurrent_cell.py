"""The common base of the drop-in cells: one step under a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
from keras import ops

from dropout_policies.adapter import (
    CellType,
    Choice,
    Geometry,
    PolicyError,
    Site,
    check_sites,
    plan_masks,
    stack_placement,
)

from . import tracing
from .cells import Weights, in_keras_order, is_shared_by_gates, make_gates_product, make_step
from .kernels.products import plain_product
from .policy_arguments import placement_config, restore_placement
from .policy_cells import GATE_ORDER, native_dropout_error
from .policy_layer import PolicyLayer
from .shared_calls import SHARED
from .tracing import Tensor


class RecurrentCell(PolicyLayer):
    """The common base of the drop-in cells. A mixin before a cell of `keras.layers`."""

    cell_type: ClassVar[CellType]
    units: int
    dropout: float
    recurrent_dropout: float
    seed_generator: keras.random.SeedGenerator

    def _start_policy(
        self, choice: Choice | None, seed: int | None, stack: tuple[int, int] | None
    ) -> None:
        """Put the cell under the policy in its arguments."""
        if choice is None:
            return
        name, policy = type(self).__name__, choice.on_one(self.cell_type.sites)
        check_sites(policy, name, self.cell_type.sites)
        for argument in ("dropout", "recurrent_dropout"):
            if rate := getattr(self, argument):
                raise PolicyError(
                    f"{name}: its own dropout would come on top of the policy's. Received: "
                    f"{argument}={rate:g}, policy={policy.name!r}; leave it out."
                )
        placement = stack_placement(policy, stack, 1, name)
        placement.check_rates(1, name)
        self.set_placement(placement, seed)

    @property
    def native_generator(self) -> Any:
        """See `PolicyLayer`. It is the generator of the stock cell."""
        return self.seed_generator

    @property
    def seed(self) -> int | None:
        """The seed of keyed masks, or None. Without a policy, the seed of Keras's own dropout."""
        return self.__dict__.get("seed") if self.placement is None else self.mask_seed

    @seed.setter
    def seed(self, seed: int | None) -> None:
        # The stock cell, which this cell may become again, has it there.
        self.__dict__["seed"] = seed

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("dropout", "recurrent_dropout") and self.placement is not None and value:
            raise native_dropout_error(self.name, self.placement.policy.name, name, value)
        super().__setattr__(name, value)

    def run(self, x: Tensor, states: Any, training: bool) -> Any:
        """Run one step, as `call` describes it."""
        if not self.is_active(training):
            return super().call(x, states, training=training)  # type: ignore[misc]
        assert self.placement is not None, "there is an active policy"
        self._check_masks_can_be_held(training)
        previous = list(states) if isinstance(states, list | tuple) else [states]
        geometry = Geometry(x.shape[-1], self.units, batch=ops.shape(x)[0], cell=self.cell_type)
        plan = plan_masks(self.placement, geometry)
        dtype: str = self.compute_dtype  # type: ignore[attr-defined]
        drawn = self.masks(plan, training, dtype, (x, previous), 1)
        if not drawn:
            return super().call(x, states, training=training)  # type: ignore[misc]
        masks = {slot.site: mask for slot, mask in drawn.items()}
        output_mask = masks.pop(Site.OUTPUT, None)
        new = self._step(ops.cast(x, dtype), previous, masks)
        output = new[0] if output_mask is None else new[0] * output_mask[0]
        return output, new if isinstance(states, list | tuple) else new[0]

    def _step(self, x: Tensor, states: list[Tensor], masks: dict[Site, Tensor]) -> list[Tensor]:
        """Compute the new states under masks `[1, B, F]` by site."""
        kind = self.cell_type
        weights, order = Weights.of(self, kind, x.dtype, masks), GATE_ORDER[kind]
        by_site = {site: mask[0] for site, mask in masks.items()}
        input_mask = by_site.pop(Site.INPUT, by_site.pop(Site.BETWEEN, None))
        if input_mask is not None and is_shared_by_gates(input_mask, x.shape[-1]):
            x, input_mask = x * input_mask, None
        if input_mask is not None:
            input_mask = in_keras_order(input_mask, order)
        mask_per_gate = not is_shared_by_gates(by_site.get(Site.HIDDEN), self.units)
        if mask_per_gate:
            by_site[Site.HIDDEN] = in_keras_order(by_site[Site.HIDDEN], order)
        gates = make_gates_product(
            weights.kernel, len(order), input_mask is not None, plain_product
        )(x, input_mask)
        gates = gates if weights.bias is None else gates + weights.bias
        step = make_step(self, kind, weights, mask_per_gate, plain_product)
        return step(gates, states, by_site)

    def _check_masks_can_be_held(self, training: bool) -> None:
        """Make sure that the code says how long masks live, if they live longer than one step.

        Raises:
            PolicyError: it does not. Or the step is in a compiled loop, for which JAX would draw
                masks only once for all steps.
        """
        assert self.placement is not None, "there is an active policy"
        if not self.masks_apply(training) or self.tape is not None or SHARED.of(self) is not None:
            return
        policy = self.placement.policy
        longer = [
            site.value
            for site, rule in policy.items()
            if rule.active and rule.per != "step" and site is not Site.EMBEDDING
        ]
        if longer:
            raise PolicyError(
                f"{self.name} sees one step at a time, and policy {policy.name!r} holds masks for "
                f"longer (site {', '.join(longer)}). Say which steps are one sequence: "
                f"with dp.sequence(model): ..., around the loop."
            )
        if tracing.is_in_loop_of_jax(self.generator.state):
            raise PolicyError(
                f"{self.name}: it is called inside a loop that Keras runs, where JAX would give "
                "every step the same masks. Write the loop in Python, or RNN(..., unroll=True); "
                "or put the policy on the layer: dropout_policies_keras.RNN(cell, policy=...)."
            )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        if self.placement is not None:
            config |= {"seed": None, "placement": placement_config(self)}
        return config  # type: ignore[no-any-return]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        saved = config.pop("placement", None)
        cell = super().from_config(config)  # type: ignore[misc]
        if saved is not None:
            restore_placement(cell, saved)
        return cell  # type: ignore[no-any-return]
