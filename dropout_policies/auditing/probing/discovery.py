"""Finds out, in evaluation, what each of a module's weights does.

The audit sets the module's weights and observes which change of a weight or an input changes the
output. It tries the matrices in the framework's layout, and then transposed. For each layout it
tries biases of zero, and then random ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ...errors import PolicyError
from .gate_discovery import (
    check_directions,
    find_biases,
    find_candidate_gates,
    find_forget_gates,
    possible_biases,
)
from .gate_offsets import find_half_open_biases
from .layer_discovery import (
    NotRecognizedError,
    assign_layers,
    find_recurrent_matrices,
    out_in_shape,
)
from .network import Bias, Block, Network
from .probe import Array, Parameter, Probe

TOKEN_ROWS = 8
"""The number of an embedding's rows for tokens, if the embedding is also the decoder's matrix."""


def discover_network(probe: Probe) -> Network:
    """Describe a module as a network.

    Raises:
        PolicyError: the module is not a network that the audit can measure.
    """
    reason = ""
    parameters = _relevant_parameters(probe)
    attempts = product(_orientations(parameters), (_random_matrices, _random_weights))
    for parameters, make_weights in attempts:
        try:
            return _try_to_discover(tuple(parameters), make_weights(parameters), probe)
        except NotRecognizedError as error:
            reason = reason or str(error)
    raise PolicyError(
        f"{probe.name}: the audit cannot see into it: {reason}. It sees LSTM, GRU and simple "
        f"recurrent cells, their gates side by side in one matrix and not normalized, in layers, "
        f"from an input of features or tokens to an output for every step, that may come through "
        f"one linear layer. Give it the recurrent layer alone, or the model without what comes "
        f"before or after."
    )


def _relevant_parameters(probe: Probe) -> Sequence[Parameter]:
    """Select the matrices, and the other parameters that evaluation depends on.

    A parameter that is left out may be a rate. It keeps the module's own value from here on.
    """
    parameters = probe.parameters()
    weights, noise = _random_weights(parameters), probe.noise()
    x = np.ones((2, probe.features))

    def run(changed: Mapping[str, Array]) -> Array:
        probe.replay(noise)
        return probe.run(changed, x, 1, None, training=False)

    def matters(p: Parameter) -> bool:
        return not np.array_equal(run(weights | {p.name: weights[p.name] + 0.3}), unchanged)

    unchanged = run(weights)
    idle = [p for p in parameters if not p.is_matrix and not matters(p)]
    if idle:
        run(weights | {p.name: probe.own(p.name) for p in idle})
    return [p for p in parameters if p not in idle]


def _orientations(parameters: Sequence[Parameter]) -> Iterator[Sequence[Parameter]]:
    """Yield the parameters in the framework's layout of matrices, and then transposed."""
    yield parameters
    yield [p._replace(transposed=not p.transposed) for p in parameters]


def _random_weights(parameters: Sequence[Parameter]) -> dict[str, Array]:
    """Make weights with which every output depends on every input, even through many layers."""
    random = np.random.default_rng(0)
    weights = {}
    for p in parameters:
        if p.is_matrix:
            weights[p.name] = random.uniform(0.5, 1.5, p.shape) / out_in_shape(p)[1]
        else:
            # An array with more axes is not a weight of a cell, but may be an initial state.
            values = random.uniform(0.1, 0.5, p.shape) * (len(p.shape) < 3)
            weights[p.name] = np.asarray(values)
    return weights


def _random_matrices(parameters: Sequence[Parameter]) -> dict[str, Array]:
    """Make the same, but with vectors of zeros: they may be biases or an initial state."""
    vectors = {p.name: np.zeros(p.shape) for p in parameters if not p.is_matrix}
    return _random_weights(parameters) | vectors


def _try_to_discover(
    parameters: Sequence[Parameter], weights: Mapping[str, Array], probe: Probe
) -> Network:
    """Find the network from what changes under weights that pass everything on.

    Raises:
        NotRecognizedError: the parameters are not those of such a network.
    """
    noise = probe.noise()

    def run(weights: Mapping[str, Array], x: Array) -> Array:
        probe.replay(noise)
        return probe.run(weights, x, 1, None, training=False)

    features = probe.features
    matrices = [p for p in parameters if p.is_matrix]
    if not matrices:
        raise NotRecognizedError("it has no weights of its own that are matrices")
    recurrent = find_recurrent_matrices(matrices, weights, run, features)
    cells, decoder = assign_layers(matrices, recurrent, weights, run, features)
    network = Network(parameters, cells, {}, decoder)
    if decoder is None:
        width = run(weights, np.ones((1, features))).shape[-1]
        network = _with_tied_decoder(network, probe.embedding, width)
    network = network.with_gates(find_candidate_gates(network, run, features))
    network = find_biases(network, run, features)
    network = network.with_gates(find_forget_gates(network, run, features))
    network = find_half_open_biases(network, run, features)
    network = replace(network, other_weights=_other_weights(network, weights))
    check_directions(network, run, features)
    return network


def _other_weights(network: Network, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the current values of the parameters that belong to no cell and no decoder."""
    parts: list[Block | Bias | None] = [network.decoder, *network.decoder_biases]
    for cell in network.cells.values():
        parts += [cell.input_weights, cell.recurrent_weights, cell.projection, *cell.biases]
    used = {part.parameter.name for part in parts if part is not None}
    zeros = {v.parameter.name: np.zeros(v.parameter.shape) for v in possible_biases(network)}
    others = {p.name: weights[p.name] for p in network.parameters if p.name not in used}
    return {name: zeros.get(name, value) for name, value in others.items()}


def _with_tied_decoder(network: Network, embedding: Parameter | None, width: int) -> Network:
    """Complete a network that has no separate decoder matrix.

    Its output is that of the last layer, or the embedding's matrix maps the last layer to a wider
    output. In that case `width` is the number of words.
    """
    leaving = sum(cell.width for cell in network.last_layer)
    if width == leaving:
        return network
    if embedding is None or embedding.shape != (width, leaving):
        raise NotRecognizedError(
            f"its output has {width} features, and {leaving} leave its last layer, of all its "
            f"directions"
        )
    if width < 2 * TOKEN_ROWS:
        raise NotRecognizedError(f"{embedding.name} has too few rows for tokens and for its output")
    return replace(network, decoder=Block(embedding, 0, leaving), first_free_row=TOKEN_ROWS)
