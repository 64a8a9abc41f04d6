"""A page for every policy, that says of it what the code does; and its picture."""

import re

import pytest

import dropout_policies as dp
from dropout_policies.policies.catalog import resolve
from dropout_policies.policies.rates import rates_text
from tests.support import pictures
from tests.support.documents import ROOT

FOLDER = ROOT / "docs" / "policies"


def wrong(name, text):
    """What a page does not say of its policy."""
    policy = resolve(name)
    arxiv = re.findall(r"arXiv:(\S+)", policy.citation)
    flat = " ".join(text.split())
    there = {
        "title": text.startswith(f"# {name}\n"),
        "picture": f"](../pictures/{name}.svg)" in flat,
        "equation": re.search(r"^```math$.*?(_t|W_{hh}) &(=|\\leftarrow) ", text, re.M | re.S)
        is not None,
        "source": all(f"https://arxiv.org/abs/{number}" in flat for number in arxiv),
        "authors": not policy.citation or policy.citation.split()[0].rstrip(",") in flat,
        "when": "\n## When to use it\n" in text,
        "evaluation": ("\n## Evaluation\n\nIdentity" in text) == (policy.evaluation == "identity"),
        "PyTorch": not policy or re.search(r"^## In PyTorch", text, re.MULTILINE) is not None,
        "Keras": not policy or re.search(r"^## In .*Keras", text, re.MULTILINE) is not None,
    }
    for rule in policy.values():
        rate = rates_text(rule.rate).lstrip("0")
        there[f"rate {rate}"] = re.search(rf"(?<!\d)0?{re.escape(rate)}(?!\d)", flat) is not None
    return [what for what, said in there.items() if not said]


@pytest.mark.parametrize("name", dp.names())
def test_the_page_says_what_the_policy_is(name):
    assert wrong(name, (FOLDER / f"{name}.md").read_text(encoding="utf-8")) == []


def test_every_page_is_a_policys():
    assert {page.stem for page in FOLDER.glob("*.md")} == set(dp.names())


def test_that_check_can_fail():
    text = (FOLDER / "zoneout.md").read_text(encoding="utf-8")
    assert wrong("rnndrop", text) == ["title", "picture", "authors"]
    assert wrong("locked", text) == [
        *("title", "picture", "source", "authors", "evaluation", "rate .4")
    ]
    assert wrong("zoneout", text.replace(".025", ".25")) == ["rate .025"]
    assert wrong("zoneout", text.replace("d is its mean", "Identity: d is its mean")) == [
        "evaluation"
    ]


def test_the_pictures_are_those_of_the_policies():
    there = {path.name: path.read_text(encoding="utf-8") for path in pictures.FOLDER.glob("*")}
    assert there == pictures.drawn()
