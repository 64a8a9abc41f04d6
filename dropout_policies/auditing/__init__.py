"""Where a recurrent module masks, measured from outside, and which policy that is.

`probing` measures; `comparison` holds what was measured against a policy; `audits` is what users
see of it.
"""
