"""Whether masks are scaled is decided from products of several masks' scales."""

import pytest

from dropout_policies.auditing.probing.findings import Finding
from dropout_policies.auditing.probing.scaling import decide_scaling
from dropout_policies.policies.sites import Site

CANDIDATE, OUTPUT = (Site.CANDIDATE, 0, 0), (Site.OUTPUT, 0, 0)


def masked(key, rate):
    return Finding(*key, "masked", rate, (rate - 0.02, rate + 0.02))


@pytest.mark.parametrize(
    ("product", "scaled"),
    [(1.0, (False, False)), (1 / 0.7 / 0.4, (True, True)), (1 / 0.4, (False, True))],
)
def test_a_product_that_one_assignment_fits_decides_all(product, scaled):
    findings = {CANDIDATE: masked(CANDIDATE, 0.3), OUTPUT: masked(OUTPUT, 0.6)}
    decided = decide_scaling(findings, [(product, [CANDIDATE, OUTPUT])])
    assert (decided[CANDIDATE].scaled, decided[OUTPUT].scaled) == scaled


def test_a_product_that_two_assignments_fit_decides_nothing():
    findings = {CANDIDATE: masked(CANDIDATE, 0.5), OUTPUT: masked(OUTPUT, 0.5)}
    decided = decide_scaling(findings, [(2.0, [CANDIDATE, OUTPUT])])
    assert (decided[CANDIDATE].scaled, decided[OUTPUT].scaled) == (None, None)


def test_a_product_that_nothing_fits_is_noted():
    findings = {CANDIDATE: masked(CANDIDATE, 0.5), OUTPUT: masked(OUTPUT, 0.5)}
    decided = decide_scaling(findings, [(7.0, [CANDIDATE, OUTPUT])])
    assert decided[CANDIDATE].note == "what is kept is multiplied by 7"


def test_too_many_masks_in_one_group_stay_undecided():
    keys = [(Site.BETWEEN, layer, 0) for layer in range(30)]
    findings = {key: Finding(*key, "masked", 0.5, (0.45, 0.55)) for key in keys}
    decided = decide_scaling(findings, [(4.0, keys[n : n + 2]) for n in range(29)])
    assert all(found.scaled is None for found in decided.values())
