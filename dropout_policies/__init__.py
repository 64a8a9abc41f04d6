"""Dropout policies for recurrent networks: say where masks fall, and have it so.

```python
import dropout_policies as dp

applied = dp.apply(model, policy="zaremba", rate=0.5)  # a torch.nn.Module or a keras.Model
print(applied)
applied.remove()
```
"""

from .catalog import locked, naive, names, none, zaremba
from .dispatch import apply
from .errors import PolicyError
from .policy import Policy, Rule, drop
from .report import Applied
from .sites import Site

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "Policy",
    "PolicyError",
    "Rule",
    "Site",
    "apply",
    "drop",
    "locked",
    "naive",
    "names",
    "none",
    "zaremba",
]
