"""What a policy is: sites, rates, rules, and the published policies by name.

These are pure values. Nothing here knows a model, a mask or a picture.
"""
