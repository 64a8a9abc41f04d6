"""How the recurrent layers of a model are connected, and the dropout that is there already.

`structure` reads what a `functional_graph` and the layers show. `observation` runs the model on an
example under an `observer`, and finds `call_connections` by `changed_values`, with the help of
`function_observer` and `own_masks`; `example_calls` calls the model, and `model_state` puts back
what a run changes. `existing_dropout` finds dropout layers and switches them off.
"""
