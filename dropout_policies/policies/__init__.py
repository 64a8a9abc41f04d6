"""What a policy is: sites, rates, rules, and the published policies by name.

Pure values: nothing here knows a model, a mask or a picture.
"""
