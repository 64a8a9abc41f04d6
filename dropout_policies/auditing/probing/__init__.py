"""Measuring from outside where a recurrent module masks: what `dropout_policies.audit` is made of.

A module's weights are set so that it becomes a network whose every connection carries one signal,
so small that it is linear; what arrives in training, divided by what must arrive without noise, is
the noise itself. The same noise is played again and again, along other connections each time.
"""
