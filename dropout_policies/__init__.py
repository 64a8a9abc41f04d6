"""Dropout policies for recurrent networks: choose where masks are applied, and apply them.

```python
import dropout_policies as dp

applied = dp.apply(model, policy="zaremba", rate=0.5)  # a torch.nn.Module or a keras.Model
print(applied)
applied.remove()
```
"""

from .auditing.audits import Audit
from .auditing.measuring import audit
from .auditing.model_audits import ModelAudit
from .configuration import show_config
from .errors import PolicyError, PolicyWarning
from .masks.sampling import average, monte_carlo, record, replay
from .masks.sequences import hold, sequence
from .pictures.diagram import Diagram
from .placement.apply_policy import apply, remove, wiring
from .placement.plans import Slot
from .placement.report import Applied
from .placement.wirings import Wiring
from .policies.catalog import (
    PolicyName,
    awd,
    locked,
    naive,
    names,
    none,
    register,
    resolve,
    rnndrop,
    semeniuta,
    variational,
    weight_drop,
    zaremba,
    zoneout,
)
from .policies.policy import Policy
from .policies.rates import Rates, Schedule, ramp, schedule
from .policies.rules import Rule, drop
from .policies.sites import Site

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "Audit",
    "Diagram",
    "ModelAudit",
    "Policy",
    "PolicyError",
    "PolicyName",
    "PolicyWarning",
    "Rates",
    "Rule",
    "Schedule",
    "Site",
    "Slot",
    "Wiring",
    "apply",
    "audit",
    "average",
    "awd",
    "drop",
    "hold",
    "locked",
    "monte_carlo",
    "naive",
    "names",
    "none",
    "ramp",
    "record",
    "register",
    "remove",
    "replay",
    "resolve",
    "rnndrop",
    "schedule",
    "semeniuta",
    "sequence",
    "show_config",
    "variational",
    "weight_drop",
    "wiring",
    "zaremba",
    "zoneout",
]
