"""A policy on the unrolled grid: what is dashed, which masks are one, how many lie on a path."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp

SVG = "{http://www.w3.org/2000/svg}"
sizes = st.tuples(st.integers(1, 5), st.integers(1, 8))


@st.composite
def grids(draw):
    layers, steps = draw(sizes)
    s = draw(st.integers(1, steps))
    return layers, steps, (s, draw(st.integers(s, steps)))


@given(grids())
def test_zaremba_has_l_plus_1_masks_on_every_path_and_naive_one_more_a_step(grid):
    layers, steps, (s, t) = grid
    count = {
        name: dp.Diagram(policy, layers, steps, path=(s, t)).corruptions
        for name, policy in {
            "none": dp.none(),
            "zaremba": dp.zaremba(),
            "naive": dp.naive(),
            "rate 0": dp.zaremba(0.0),
            "rnndrop": dp.rnndrop(),
            "semeniuta": dp.semeniuta(),
        }.items()
    }
    assert count == {
        "none": 0,
        "zaremba": layers + 1,
        "naive": layers + 1 + t - s,
        "rate 0": 0,
        "rnndrop": t - s,
        "semeniuta": 0,
    }


def test_the_text_is_the_papers_figure():
    assert (
        str(dp.Diagram(dp.zaremba(), path=(2, 4)))
        == """\
zaremba: L = 2, T = 4

           y1      y2      y3      y4
  output   ┊a      ┊b      ┊c      ┇d        0.5 per step
  layer 2  ■───────■━━━━━━━■━━━━━━━■
  between  ┊a      ┇b      ┊c      ┊d        0.5 per step
  layer 1  ■───────■───────■───────■
  input    ┊a      ┇b      ┊c      ┊d        0.5 per step
           x1      x2      x3      x4

dashed: masked, and in a row one letter is one mask; solid: whole
heavy: from x2 to y4, through 3 masks"""
    )


def test_masks_of_a_sequence_have_one_letter_and_rules_inside_are_said():
    policy = dp.variational(0.5, 0.3, embedding=0.1) | dp.semeniuta(0.25)
    lines = str(dp.Diagram(policy, layers=1, steps=3)).splitlines()
    assert lines[3:6] == [
        "  output   ┊a      ┊a      ┊a        0.5 per sequence",
        "  layer 1  □╌╌╌a╌╌╌□╌╌╌a╌╌╌□         hidden 0.3 per sequence; candidate 0.25 per step",
        "  input    ┊a      ┊a      ┊a        0.5 per sequence; word types 0.1 per sequence",
    ]


def test_rates_by_layer_are_those_of_the_layer():
    policy = dp.zaremba([0.1, 0.0])
    rows = {row.name: row for row in dp.Diagram(policy).rows()}
    assert rows["input"].notes == "0.1 per step"
    assert rows["between"].mask is None
    assert rows["output"].mask is None


@given(
    grids(),
    st.sampled_from([dp.none(), dp.zaremba(), dp.naive(), dp.locked(), dp.awd(), dp.zoneout()]),
)
def test_the_svg_has_the_texts_dashes(grid, policy):
    layers, steps, path = grid
    drawn = dp.Diagram(policy, layers, steps, path)
    root = ET.fromstring(drawn.svg())
    kinds = [(line.get("class") or "").split() for line in root.iter(f"{SVG}line")]
    assert len(kinds) == (layers + 1) * steps + layers * (steps - 1)
    assert len(list(root.iter(f"{SVG}rect"))) == layers * steps
    masked = sum(
        row.mask is not None
        for number, row in enumerate(drawn.rows())
        for _ in range(steps if number % 2 == 0 else steps - 1)
    )
    assert sum("masked" in kind for kind in kinds) == masked
    assert sum(set(kind) == {"masked", "heavy"} for kind in kinds) == drawn.corruptions


def test_a_policy_shows_itself_in_a_notebook():
    shown = dp.awd()._repr_html_()
    assert shown == dp.Diagram(dp.awd()).svg()
    assert "recurrent_weight 0.5 per call" in shown


@pytest.mark.parametrize(
    "arguments", [{"layers": 0}, {"steps": 0}, {"steps": 27}, {"path": (3, 2)}, {"path": (1, 5)}]
)
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(dp.PolicyError, match="Received"):
        dp.Diagram(dp.zaremba(), **arguments)
