"""Measures from outside where a recurrent module masks: the engine of `dropout_policies.audit`.

The audit sets a module's weights so that every connection carries one signal. The signal is so
small that the network is linear. The output in training divided by the output without noise is the
noise itself. The audit repeats the same noise many times and looks along other connections each
time.

The steps in order:

1. `discovery` finds out which weights do what (`layer_discovery`, `gate_discovery`,
   `gate_offsets`) and describes the module as a `network`. `preconditions` refuses modules that the
   audit cannot measure.
2. `draw_series` observes many draws of noise, or a single one if a `training_comparison` finds no
   noise. `cell_observer` measures one draw, cell by cell, with `signals` on `signal_weights`.
   `gate_observer` looks at the gates one by one. A `replayed_draw` runs the module.
3. `unit_explanations` and `cell_explanations` find the sites whose masks explain the measurements
   of a cell's state (`unit_model`).
4. `analysis` combines all draws into one of the `findings` for each site. It uses `input_analysis`
   and `state_analysis`, with `feature_masks`, `mask_summary`, `significance`, `shared_masks` and
   `scaling`. `evaluation` compares evaluation with the prediction from the masks.

`measurement` runs these steps. `probe` defines what an adapter must provide.
"""
