"""How the recurrent layers of a model are connected, and which dropout the model already has.

`structure` reads the connections from a `functional_graph` and the layers. `observation` runs the
model on an example under an `observer`. It finds `call_connections` through `changed_values`, with
the help of `function_observer` and `own_masks`. `example_calls` calls the model, and `model_state`
restores what a run changes. `existing_dropout` finds dropout layers and switches them off.
"""
