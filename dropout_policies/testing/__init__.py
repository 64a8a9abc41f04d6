"""Assertions for tests of your own recurrent layers and models.

```python
from dropout_policies.testing import assert_placement, assert_recurrent_state_unmasked


def test_my_rnn():
    assert_recurrent_state_unmasked(MyRNN())
    assert_placement(MyRNN(), "zaremba")
```

`strategies` generates policies, sizes of calls and masks for Hypothesis. It needs the extra
`testing`.
"""

from .assertions import PlacementError, assert_placement, assert_recurrent_state_unmasked

__all__ = ["PlacementError", "assert_placement", "assert_recurrent_state_unmasked"]
