"""For the tests of one's own recurrent layers and models.

```python
from dropout_policies.testing import assert_placement, assert_recurrent_state_unmasked


def test_my_rnn():
    assert_recurrent_state_unmasked(MyRNN())
    assert_placement(MyRNN(), "zaremba")
```

`strategies` makes policies, geometries and masks for Hypothesis, which the extra `testing` brings.
"""

from .assertions import PlacementError, assert_placement, assert_recurrent_state_unmasked

__all__ = ["PlacementError", "assert_placement", "assert_recurrent_state_unmasked"]
