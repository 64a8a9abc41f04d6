"""`dropout_policies.audit`: measures where a recurrent module, or every recurrent layer of a model,
masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from ..errors import PolicyError
from ..placement.adapters import find_adapter
from ..policies import catalog
from .audits import Audit
from .comparison import find_nearest_policy
from .model_audits import ModelAudit
from .probing.findings import UNKNOWN_NOISE
from .probing.probe import AuditableAdapter

if TYPE_CHECKING:
    from .probing.analysis import Measurement

Progress = Callable[[float], None]
"""A function that receives the share of an audit that is done, from 0 to 1."""


@overload
def audit(model: Any, example: None = None, *, progress: Progress | None = None) -> Audit: ...


@overload
def audit(model: Any, example: object, *, progress: Progress | None = None) -> ModelAudit: ...


def audit(
    model: Any, example: Any = None, *, progress: Progress | None = None
) -> Audit | ModelAudit:
    """Measure where a recurrent layer or model masks, whoever wrote it.

    The audit chooses weights and inputs, and runs the module on them in training and in evaluation.
    Then it restores everything bit for bit, including the random state of the module and of the
    framework. What it cannot decide is `undecided`.

    Args:
        model: a `torch.nn.Module` or a `keras.layers.Layer` that runs LSTM, GRU or simple recurrent
            cells over a sequence and returns an output for every step. With `example`, any model
            that contains such layers.
        example: an input of the model, in any form that `dropout_policies.apply` takes. The model
            runs on it, to show how its layers are connected. Then each recurrent layer is audited
            by itself, together with the model's own dropout before and after it. None: audit
            `model` itself.
        progress: a function that is called repeatedly with the share that is done, from 0 to 1.

    Returns:
        An `Audit`. It has a finding for each site: whether there are masks, at which rate, how long
        a mask lasts and what shares it. It names the policy that fits, or the nearest policy and
        the differences. With `example`, a `ModelAudit` with one `Audit` for each recurrent layer.

    Raises:
        PolicyError: no adapter handles the model, the audit cannot see inside it, its noise cannot
            be repeated, or it does not run on the example.
    """
    adapter = find_adapter(model)
    if not isinstance(adapter, AuditableAdapter):
        raise PolicyError(
            f"{type(model).__name__} cannot be audited: its adapter, {type(adapter).__qualname__}, "
            f"has no method probe(model)."
        )
    if example is None:
        return _audit_module(adapter, model, progress or _ignore)
    return _audit_parts(adapter, model, example, progress or _ignore)


def _ignore(share: float) -> None:
    """Ignore the progress."""


def _audit_parts(
    adapter: AuditableAdapter, model: Any, example: Any, progress: Progress
) -> ModelAudit:
    """Audit each recurrent layer of a model."""
    if not hasattr(adapter, "parts"):
        raise PolicyError(
            f"{type(model).__name__} cannot be audited by its parts: its adapter, "
            f"{type(adapter).__qualname__}, has no method parts(model, example). Give the audit a "
            f"recurrent layer alone, without example=."
        )
    parts = adapter.parts(model, example)
    audits: dict[str, Audit] = {}
    refused: dict[str, str] = {}
    for number, part in enumerate(parts):

        def share_of_all(share: float, number: int = number) -> None:
            progress((number + share) / len(parts))

        try:
            audits[part.name] = _audit_module(adapter, part.model, share_of_all)
        except PolicyError as error:
            refused[part.name] = str(error)
    uses = adapter.wiring(model, example).uses  # type: ignore[attr-defined]
    links = [(source.item.name, use.item.name) for use in uses for source in use.fed_by]
    notes = [note for part in parts for note in part.notes]
    return ModelAudit(
        type(model).__name__, audits, tuple(dict.fromkeys(links)), refused, tuple(notes)
    )


def _audit_module(adapter: AuditableAdapter, model: Any, progress: Progress) -> Audit:
    """Audit one module."""
    from .probing.measurement import measure_module  # large, and only an audit needs it

    try:
        with adapter.probe(model) as probe:
            measurement = measure_module(probe, progress)
            name = probe.name
    except PolicyError:
        raise
    except Exception as error:  # whatever a module raises that cannot be run so
        raise PolicyError(
            f"{type(model).__name__} cannot be run as the audit runs it, on one input of three "
            f"axes, in training and in evaluation: {type(error).__name__}: {error}. Give the "
            "audit the recurrent layer alone, or an input of the model: example=batch."
        ) from error
    progress(1.0)
    return _summarize(name, measurement)


def _summarize(name: str, measurement: Measurement) -> Audit:
    """Turn what was measured in a module into an audit, with the policy that fits."""
    findings, network = measurement.findings, measurement.network
    nearest, found = find_nearest_policy(findings)
    differences = list(dict.fromkeys(map(str, found)))
    expected = catalog.resolve(nearest).evaluation
    if measurement.evaluation not in (expected, "undecided"):
        differences.append(f"evaluation is {measurement.evaluation}, not {expected}")
    differences += measurement.notes
    is_decided = not measurement.is_ambiguous
    is_decided = is_decided and any(f.verdict != "undecided" for f in findings)
    is_decided = is_decided and not any(f.note in UNKNOWN_NOISE for f in findings)
    cells, layers = network.cells, network.layers
    is_bidirectional = any((layer, 0) in cells and (layer, 1) in cells for layer in range(layers))
    return Audit(
        name,
        layers,
        2 if is_bidirectional else 1,
        tuple(findings),
        measurement.evaluation,
        tuple(measurement.notes),
        nearest if is_decided and not differences else None,
        nearest,
        tuple(differences),
    )
