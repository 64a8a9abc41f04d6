"""Everything that an adapter imports from the core: one stable interface for all frameworks.

Write `from dropout_policies.adapter import ...`, and import no other module of the core. The guide
"Write an adapter" shows a complete adapter. The names, in the order in which an adapter needs them:

- the adapter object and errors: `Adapter`, `AuditableAdapter`, `PolicyError`, `PolicyWarning`,
  `check_seed`; the text that errors show for values: `short_repr`, `number_text`;
- policies: `Policy`, `PolicyName`, `Site` and its groups, `Rate`, `Rates`, `Schedule`, `rate_at`,
  `resolve`;
- kinds of layers: `CellType` and the module `cell_types`;
- where masks are: `Geometry`, `Placement`, `Slot`, `plan_masks`, `plan_embedding`, `Plan`,
  `PlannedMask`, `check_sites`, `plan_at_call`, `plan_in_evaluation`, `stack_placement`;
- `apply`: `ApplyRequest`, `check_rates_are_used` and `Choice`;
- how the layers of a model are connected: `Wiring` with `RecurrentLayer`, `LayerUse`,
  `ExistingDropout` and `DropoutUse`, which are made from calls: `LayerCall`, `DropoutCall`,
  `Origin` and the functions of the same module;
- what follows from the connections: `find_stacks`, `place_layers`, `notes_on_wiring`,
  `plan_existing_dropout`; `SwappedLayer`; and the report `Applied` with `Touched`,
  `TouchedEmbedding`, `TakenOver` and `Skipped`;
- masks: the module `keyed` and its parts, `Tape`, and the compiled bits;
- what calls share inside `dp.sequence` and `dp.hold`: `SharedState`, `SharedMasks`, `RowGroup`,
  `row_flags`, `check_row_count`, `steps_to_draw`, `warn_of_steps`, `models_in_sequence`;
- the audit: `Probe`, `ModelPart`, `Parameter`, `Array`, `INITIAL_STATE`, `no_matrices_error`;
- C code of the adapter's own: `compilation_allowed`, `compiled_library`, `OPENMP`.
"""

from .argument_checks import check_seed, number_text, short_repr
from .auditing.probing.probe import (
    INITIAL_STATE,
    Array,
    AuditableAdapter,
    ModelPart,
    Parameter,
    Probe,
    no_matrices_error,
)
from .compilation.libraries import OPENMP, compilation_allowed, compiled_library
from .errors import PolicyError, PolicyWarning
from .masks import keyed
from .masks.compiled_bits import has_compiled_bits, write_keep_bits
from .masks.keyed import SEEDS, mask_key, tag, threefry2x32, threshold
from .masks.sampling import PolicyLayer
from .masks.sequences import (
    RowGroup,
    SharedMasks,
    SharedState,
    check_row_count,
    models_in_sequence,
    row_flags,
    steps_to_draw,
    warn_of_steps,
)
from .masks.tape import Tape
from .placement.adapters import Adapter
from .placement.connections import (
    DropoutUse,
    ExistingDropout,
    LayerUse,
    RecurrentLayer,
)
from .placement.existing_dropout import plan_existing_dropout
from .placement.layer_calls import (
    NOWHERE,
    DropoutCall,
    LayerCall,
    Origin,
    as_dropout_use,
    as_layer_uses,
    consume,
    note_uses,
    union,
)
from .placement.plans import (
    Geometry,
    Placement,
    Plan,
    PlannedMask,
    Slot,
    check_sites,
    plan_at_call,
    plan_embedding,
    plan_in_evaluation,
    plan_masks,
)
from .placement.report import Applied, Skipped, TakenOver, Touched, TouchedEmbedding
from .placement.selection import ApplyRequest, Choice, check_rates_are_used
from .placement.stacks import find_stacks, place_layers, stack_placement
from .placement.swapped_layer import SwappedLayer
from .placement.wiring_notes import notes_on_wiring
from .placement.wirings import Wiring
from .policies import cell_types
from .policies.catalog import PolicyName, resolve
from .policies.cell_types import CUSTOM, CellType
from .policies.policy import Policy
from .policies.rates import Rate, Rates, Schedule, rate_at
from .policies.sites import VERTICAL, WEIGHTS, Site

__all__ = [
    "CUSTOM",
    "INITIAL_STATE",
    "NOWHERE",
    "OPENMP",
    "SEEDS",
    "VERTICAL",
    "WEIGHTS",
    "Adapter",
    "Applied",
    "ApplyRequest",
    "Array",
    "AuditableAdapter",
    "CellType",
    "Choice",
    "DropoutCall",
    "DropoutUse",
    "ExistingDropout",
    "Geometry",
    "LayerCall",
    "LayerUse",
    "ModelPart",
    "Origin",
    "Parameter",
    "Placement",
    "Plan",
    "PlannedMask",
    "Policy",
    "PolicyError",
    "PolicyLayer",
    "PolicyName",
    "PolicyWarning",
    "Probe",
    "Rate",
    "Rates",
    "RecurrentLayer",
    "RowGroup",
    "Schedule",
    "SharedMasks",
    "SharedState",
    "Site",
    "Skipped",
    "Slot",
    "SwappedLayer",
    "TakenOver",
    "Tape",
    "Touched",
    "TouchedEmbedding",
    "Wiring",
    "as_dropout_use",
    "as_layer_uses",
    "cell_types",
    "check_rates_are_used",
    "check_row_count",
    "check_seed",
    "check_sites",
    "compilation_allowed",
    "compiled_library",
    "consume",
    "find_stacks",
    "has_compiled_bits",
    "keyed",
    "mask_key",
    "models_in_sequence",
    "no_matrices_error",
    "note_uses",
    "notes_on_wiring",
    "number_text",
    "place_layers",
    "plan_at_call",
    "plan_embedding",
    "plan_existing_dropout",
    "plan_in_evaluation",
    "plan_masks",
    "rate_at",
    "resolve",
    "row_flags",
    "short_repr",
    "stack_placement",
    "steps_to_draw",
    "tag",
    "threefry2x32",
    "threshold",
    "union",
    "warn_of_steps",
    "write_keep_bits",
]
