"""How the recurrent layers of a model are connected, and the dropout that is there already.

`structure` reads what the modules show. `observation` runs the model on an example under an
`observer`, with the help of `function_observer`, `known_tensors` and `own_masks`; `example_calls`
calls the model, and `model_state` puts back what a run changes. `existing_dropout` finds dropout
modules and switches them off.
"""
