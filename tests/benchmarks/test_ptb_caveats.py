"""The paragraph below the comparison of all policies follows the table's figures."""

from benchmarks.ptb.caveats import caveats


def run(policy, test, seed=1):
    config = {"policy": policy, "rate": None, "backend": "torch", "epochs": 14, "seed": seed}
    return {"config": config, "test_perplexity": test}


def test_naive_ahead_of_zaremba_is_explained():
    text = caveats([run("none", 400.0), run("naive", 97.26), run("zaremba", 109.84)])
    assert "Every policy has a lower test perplexity than `none`." in text
    assert "each row is a single run" in text
    assert "`naive` is ahead of `zaremba` here (97.3 and 109.8)." in text


def test_naive_behind_zaremba_is_not():
    text = caveats([run("none", 400.0), run("naive", 120.0), run("zaremba", 109.8)])
    assert "ahead" not in text


def test_policies_that_are_no_better_than_none_are_named():
    text = caveats([run("none", 100.0), run("naive", 120.0), run("zaremba", 90.0)])
    assert "Every policy except `naive` has a lower test perplexity than `none`." in text


def test_several_seeds_are_averaged():
    more = [run("naive", 90.0, 1), run("naive", 110.0, 2)]
    more += [run("zaremba", 100.0, 1), run("zaremba", 120.0, 2)]
    text = caveats(more)
    assert "(100.0 and 110.0)" in text
    assert "some rows have only 2 seeds" in text
