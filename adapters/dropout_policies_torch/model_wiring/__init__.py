"""How the recurrent layers of a model are connected, and which dropout the model already has.

`structure` reads the connections from the modules. `observation` runs the model on an example under
an `observer`, with the help of `function_observer`, `known_tensors` and `own_masks`.
`example_calls` calls the model, and `model_state` restores what a run changes. `existing_dropout`
finds dropout modules and switches them off.
"""
