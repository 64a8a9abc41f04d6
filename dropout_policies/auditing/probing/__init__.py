"""Measures from outside where a recurrent module masks: the engine of `dropout_policies.audit`.

The audit sets a module's weights so that every connection carries one signal. The signal is so
small that the network is linear. What arrives in training, divided by what arrives without noise,
is the noise itself. The audit plays the same noise again and again and looks along other
connections each time.

In the order of the work:

1. `discovery` finds out which weights do what (`layer_discovery`, `gate_discovery`,
   `gate_offsets`) and describes the module as a `network`; `preconditions` refuses modules that
   the audit cannot measure.
2. `draw_series` observes many draws of noise, or one for all where a `training_comparison` finds no
   noise. `cell_observer` measures one draw, cell by cell, with `signals` on `signal_weights`;
   `gate_observer` looks at gates one by one; a `replayed_draw` runs the module.
3. `unit_explanations` and `cell_explanations` find the sites whose masks explain what was measured
   of a cell's state (`unit_model`).
4. `analysis` turns all draws into one of the `findings` for each site: `input_analysis` and
   `state_analysis`, with `feature_masks`, `mask_summary`, `significance`, `shared_masks` and
   `scaling`; `evaluation` compares evaluation with what the masks predict.

`measurement` runs these steps. `probe` is what an adapter has to offer.
"""
