"""Dropout policies for recurrent networks: say where masks fall, and have it so.

```python
import dropout_policies as dp

applied = dp.apply(model, policy="zaremba", rate=0.5)  # a torch.nn.Module or a keras.Model
print(applied)
applied.remove()
```
"""

from .audit import Audit, audit
from .catalog import (
    awd,
    locked,
    naive,
    names,
    none,
    register,
    rnndrop,
    semeniuta,
    variational,
    weight_drop,
    zaremba,
    zoneout,
)
from .configuration import show_config
from .diagram import Diagram
from .dispatch import apply
from .errors import PolicyError, PolicyWarning
from .plan import Slot
from .policy import Policy
from .rates import Schedule, ramp, schedule
from .report import Applied
from .rule import Rule, drop
from .sampling import average, monte_carlo, record, replay
from .sites import Site

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "Audit",
    "Diagram",
    "Policy",
    "PolicyError",
    "PolicyWarning",
    "Rule",
    "Schedule",
    "Site",
    "Slot",
    "apply",
    "audit",
    "average",
    "awd",
    "drop",
    "locked",
    "monte_carlo",
    "naive",
    "names",
    "none",
    "ramp",
    "record",
    "register",
    "replay",
    "rnndrop",
    "schedule",
    "semeniuta",
    "show_config",
    "variational",
    "weight_drop",
    "zaremba",
    "zoneout",
]
