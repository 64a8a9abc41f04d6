"""A policy on the unrolled grid: what is dashed, which masks are one, how many lie on a path."""

import sys
import xml.etree.ElementTree as ET
from dataclasses import FrozenInstanceError, fields, replace

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropout_policies as dp
from dropout_policies.pictures.drawing import PNG_COLOURS, SVG_COLOURS, Box, Line, Text, lay_out
from dropout_policies.pictures.grid import Row

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
        name: policy.diagram(layers, steps, path=(s, t)).corruptions
        for name, policy in {
            "none": dp.none(),
            "zaremba": dp.zaremba(),
            "naive": dp.naive(),
            "rate 0": dp.zaremba(0.0),
            "rnndrop": dp.rnndrop(),
            "semeniuta": dp.semeniuta(),
            "zoneout": dp.zoneout(),
        }.items()
    }
    assert count == {
        "none": 0,
        "zaremba": layers + 1,
        "naive": layers + 1 + t - s,
        "rate 0": 0,
        "rnndrop": layers + t - s,
        "semeniuta": layers + t - s,
        "zoneout": 0,
    }


@pytest.mark.parametrize(
    ("policy", "by_channel"),
    [
        (dp.zaremba(), False),
        (dp.zaremba().with_shape("channel"), True),
        (dp.semeniuta(), False),
        (dp.semeniuta().with_shape("channel"), True),
        (dp.zaremba(0.0).with_shape("channel"), False),
    ],
)
def test_the_legend_says_what_falls_on_whole_feature_maps(policy, by_channel):
    drawn, legend = policy.diagram(), "per channel: a mask falls on whole feature maps"
    texts = [shape.text for shape in lay_out(drawn).shapes if isinstance(shape, Text)]
    assert (legend in str(drawn)) == by_channel
    assert (f">{legend}" in drawn.svg()) == by_channel
    assert any(text.startswith(legend) for text in texts) == by_channel  # what a PNG is drawn from
    assert ("and channel" in str(drawn)) == by_channel


def test_the_text_is_the_papers_figure():
    assert (
        str(dp.zaremba().diagram(path=(2, 4)))
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
    lines = str(policy.diagram(layers=1, steps=3)).splitlines()
    assert lines[3:6] == [
        "  output   ┊a      ┊a      ┊a        0.5 per sequence",
        "  layer 1  □╌╌╌a╌╌╌□╌╌╌a╌╌╌□         hidden 0.3 per sequence; candidate 0.25 per step",
        "  input    ┊a      ┊a      ┊a        0.5 per sequence; word types 0.1 per sequence",
    ]


def test_rates_by_layer_are_those_of_the_layer():
    policy = dp.zaremba([0.1, 0.0])
    rows = {row.name: row for row in policy.diagram().rows}
    assert rows["input"].notes == "0.1 per step"
    assert rows["between"].masked is False
    assert rows["output"].masked is False


@given(
    grids(),
    st.sampled_from([dp.none(), dp.zaremba(), dp.naive(), dp.locked(), dp.awd(), dp.zoneout()]),
)
def test_the_svg_has_the_texts_dashes(grid, policy):
    layers, steps, path = grid
    drawn = policy.diagram(layers, steps, path)
    root = ET.fromstring(drawn.svg())
    lines = list(root.iter(f"{SVG}line"))
    assert len(lines) == (layers + 1) * steps + layers * (steps - 1)
    assert len(list(root.iter(f"{SVG}rect"))) == layers * steps
    masked = sum(
        bool(row.masked)
        for number, row in enumerate(drawn.rows)
        for _ in range(steps if number % 2 == 0 else steps - 1)
    )
    dashed = [line for line in lines if line.get("stroke-dasharray")]
    assert len(dashed) == masked
    heavy = sum(line.get("stroke-width") == "4" for line in dashed)
    inside = drawn.corruptions - heavy
    assert inside >= 0
    assert (f", {inside} of them in cells" in str(drawn)) == (inside > 0)


def test_a_policy_shows_itself_in_a_notebook():
    shown = dp.awd()._repr_html_()
    assert shown == dp.awd().diagram().svg()
    assert "recurrent_weight 0.5 per call" in shown


@pytest.mark.parametrize(
    "arguments", [{"layers": 0}, {"steps": 0}, {"steps": 27}, {"path": (3, 2)}, {"path": (1, 5)}]
)
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(dp.PolicyError, match="Received"):
        dp.zaremba().diagram(**arguments)


def test_what_is_wrong_or_unknown_is_marked():
    rows = [Row("input", "whole", wrong=True), Row("layer 1", masked=None, carried=None)]
    rows.append(Row("output"))
    drawn = dp.Diagram("a layer", rows, steps=2, path=(1, 2), wanted="zaremba")
    assert (
        str(drawn)
        == """\
a layer: L = 1, T = 2

           y1      y2
  output   │       ┃
  layer 1  ■━━━?━━━■
✗ input    ┃       │         whole
           x1      x2

?: not decided
✗: unlike zaremba
heavy: from x1 to y2, through an unknown number of masks"""
    )
    assert drawn.corruptions is None
    assert "✗ input" in drawn.svg()


def test_a_diagram_is_saved_as_its_name_says(tmp_path):
    drawn = dp.naive().diagram(path=(1, 3))
    for name in ("a.svg", "a.png", "a.txt"):
        drawn.save(tmp_path / name)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == drawn.svg()
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == f"{drawn}\n"
    with pytest.raises(dp.PolicyError, match=r"\.svg, \.png or \.txt.*a\.pdf"):
        drawn.save(tmp_path / "a.pdf")


def colours(diagram, path):
    """How many pixels of a PNG are near each colour."""
    diagram.save(path)
    pixels = np.round(255 * matplotlib.image.imread(path)[..., :3]).astype(int)
    return {
        name: int(
            (np.abs(pixels - [int(code[i : i + 2], 16) for i in (1, 3, 5)]) < 8).all(-1).sum()
        )
        for name, code in PNG_COLOURS.items()
    }


def test_the_png_shows_what_the_text_does(tmp_path):
    """Masks, the path and what is wrong each have a colour of their own."""
    path = tmp_path / "a.png"
    plain = colours(dp.none().diagram(), path)
    assert plain["ink"] > 1000
    assert not any(plain[name] for name in ("mask", "path", "wrong", "band"))
    assert colours(dp.zaremba().diagram(), path)["mask"] > 100
    assert colours(dp.zaremba().diagram(path=(1, 4)), path)["path"] > 1000
    rows = [Row("input", wrong=True), Row("layer 1"), Row("output")]
    marked = colours(dp.Diagram("a layer", rows, wanted="zaremba"), path)
    assert marked["wrong"] > 50
    assert marked["band"] > 10_000


def test_a_png_without_matplotlib_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(dp.PolicyError, match=r"dropout-policies\[pictures\]"):
        dp.none().diagram().save(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


MARKED = dp.Diagram(
    "t",
    [
        Row("input", "0.5", True, "step", wrong=True, passed=1),
        Row("layer 1", "x", None, None, True, carried=None),
        Row("output", "", True, "sequence", passed=1),
    ],
    steps=2,
    path=(1, 2),
    wanted="p",
)

LAID_OUT = [
    Text(12, 20, "t", "ink", 13),
    Box(4, 117.5, 433, 31, "band", filled=True),
    Text(12, 137, "✗ input", "wrong", 12),
    Text(234, 137, "0.5", "wrong", 12),
    Text(12, 106, "layer 1", "faint", 12),
    Text(234, 106, "x", "faint", 12),
    Text(12, 75, "output", "faint", 12),
    Line(86, 151, 86, 115, masked=True, on_path=True),
    Text(92, 137, "a", "mask", 12),
    Line(170, 151, 170, 115, masked=True, on_path=False),
    Text(176, 137, "b", "mask", 12),
    Box(73, 89, 26, 26, "mask"),
    Line(99, 102, 157, 102, masked=False, on_path=True),
    Text(125, 96, "?", "mask", 12),
    Box(157, 89, 26, 26, "mask"),
    Line(86, 89, 86, 53, masked=True, on_path=False),
    Text(92, 75, "a", "mask", 12),
    Line(170, 89, 170, 53, masked=True, on_path=True),
    Text(176, 75, "a", "mask", 12),
    Text(86, 178, "x", centred=True, lower="1"),
    Text(86, 44, "y", centred=True, lower="1"),
    Text(170, 178, "x", centred=True, lower="2"),
    Text(170, 44, "y", centred=True, lower="2"),
    Text(12, 208, "dashed: masked, and in a row one letter is one mask; solid: whole", "faint", 12),
    Text(12, 226, "?: not decided", "faint", 12),
    Text(12, 244, "□: a rule falls inside the cell, or on its weights", "faint", 12),
    Text(12, 262, "✗: unlike p", "faint", 12),
    Text(12, 280, "heavy: from x1 to y2, through an unknown number of masks", "faint", 12),
]


def test_a_picture_is_laid_out_as_it_was():
    picture = lay_out(MARKED)
    assert picture.shapes == LAID_OUT
    assert picture[:2] == (441, 290)
    plain = lay_out(dp.none().diagram(layers=1, steps=1))
    assert plain[:2] == (162, 200)
    wide = replace(MARKED, rows=[replace(row, notes="n" * 100) for row in MARKED.rows])
    assert lay_out(wide).width == 234 + 660 + 12


def test_the_svg_has_every_shape_of_the_picture():
    root = ET.fromstring(MARKED.svg())
    assert root.get("viewBox") == "0 0 441 290"
    assert (root.get("width"), root.get("height")) == ("441", "290")
    assert root.find(f"{SVG}title").text == "t, 1 layers over 2 steps"
    assert root.find(f"{SVG}desc").text == str(MARKED)
    drawn = [e for e in root if e.tag.removeprefix(SVG) in ("line", "rect", "text")]
    for element, shape in zip(drawn, LAID_OUT, strict=True):
        if isinstance(shape, Line):
            names = ("x1", "y1", "x2", "y2")
            dashes = "4 4" if shape.masked else None
            assert element.get("stroke-dasharray") == dashes
            assert element.get("style") == f"stroke:{SVG_COLOURS[shape.colour]}"
            assert float(element.get("stroke-width")) == shape.width
        elif isinstance(shape, Box):
            names = ("x", "y", "width", "height")
            paint = SVG_COLOURS[shape.colour]
            outline = f"fill:none;stroke:{paint};stroke-width:1.5"
            assert element.get("style") == (f"fill:{paint}" if shape.filled else outline)
        else:
            names = ("x", "y", "font-size")
            assert "".join(element.itertext()) == shape.text + shape.lower
            assert element.get("text-anchor") == ("middle" if shape.centred else None)
            assert element.get("style") == f"fill:{SVG_COLOURS[shape.colour]}"
            shape = (*shape[:2], shape.size)
        assert [float(element.get(name)) for name in names] == list(shape[: len(names)])


def test_a_lines_colour_says_path_before_mask():
    for masked, heavy, colour in (
        (False, False, "ink"),
        (True, False, "mask"),
        (False, True, "path"),
        (True, True, "path"),
    ):
        line = Line(0, 0, 1, 1, masked, heavy)
        assert line.colour == colour
        assert line.width == (4 if heavy else 1.5)


def test_the_png_has_every_shape_of_the_picture(monkeypatch, tmp_path):
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figures, styles, given = [], [], Line2D.set
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: figures.append((figure, path)))

    def set_(line, **named):
        styles.extend([named["linestyle"]] if "linestyle" in named else [])
        return given(line, **named)

    monkeypatch.setattr(Line2D, "set", set_)
    MARKED.save(tmp_path / "a.png")
    ((figure, path),) = figures
    assert path == tmp_path / "a.png"
    assert tuple(figure.get_size_inches()) == (4.41, 2.9)
    assert figure.dpi == 200
    (axes,) = figure.axes
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, 441), (290, 0))
    assert axes.get_position().bounds == (0, 0, 1, 1)
    assert not axes.axison

    found = {shape.zorder: shape for shape in (*axes.lines, *axes.patches, *axes.texts)}
    assert sorted(found) == list(range(len(LAID_OUT)))
    for number, shape in enumerate(LAID_OUT):
        artist, colour = found[number], PNG_COLOURS[shape.colour]
        if isinstance(shape, Line):
            assert artist.get_xydata().tolist() == [[shape.x, shape.y], [shape.x2, shape.y2]]
            assert to_hex(artist.get_color()) == colour
            assert artist.get_linewidth() == pytest.approx(0.72 * shape.width)
            assert artist.get_linestyle() == ("--" if shape.masked else "-")
            assert artist.get_solid_capstyle() == "butt"
        elif isinstance(shape, Box):
            bounds = (artist.get_x(), artist.get_y(), artist.get_width(), artist.get_height())
            assert bounds == shape[:4]
            assert artist.get_boxstyle().rounding_size == 5
            assert artist.get_boxstyle().pad == 0
            face, edge = to_hex(artist.get_facecolor(), True), to_hex(artist.get_edgecolor(), True)
            nothing = "00"  # how opaque it is
            if shape.filled:
                assert (face, edge[-2:]) == (f"{colour}ff", nothing)
            else:
                assert (face[-2:], edge) == (nothing, f"{colour}ff")
        else:
            lower = f"$_{{{shape.lower}}}$" if shape.lower else ""
            assert artist.get_text() == shape.text + lower
            assert artist.get_position() == (shape.x, shape.y)
            assert to_hex(artist.get_color()) == colour
            assert artist.get_fontsize() == pytest.approx(0.72 * shape.size)
            assert artist.get_horizontalalignment() == ("center" if shape.centred else "left")
    lines = [shape for shape in LAID_OUT if isinstance(shape, Line)]
    for shape, style in zip(lines, styles, strict=True):
        assert style == ((0, (2, 2) if shape.on_path else (3, 3)) if shape.masked else "-")


def test_a_mask_is_called_by_the_letter_of_its_step_or_by_one_letter():
    assert [Row("a", masked=True, per="step").mask_letter(step) for step in (0, 1, 25)] == [
        "a",
        "b",
        "z",
    ]
    for per in ("sequence", "call"):
        assert [Row("a", masked=True, per=per).mask_letter(step) for step in (0, 1, 25)] == [
            "a"
        ] * 3
    assert Row("a", masked=True).mask_letter(1) == "?"
    assert Row("a", masked=None, per="step").mask_letter(1) == "?"
    assert Row("a", masked=False, per="step").mask_letter(1) == ""
    assert Row("a") == Row("a", "", False, None, False, False, 0, 0)


def test_a_diagram_has_one_to_26_steps():
    for steps in (1, 26):
        assert dp.zaremba().diagram(1, steps).steps == steps
    for steps in (0, 27, 28, -1, 2.0, "2", True, None):
        with pytest.raises(dp.PolicyError, match=r"^A diagram has 1 to 26 steps\. Received"):
            dp.zaremba().diagram(1, steps)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 6])
def test_a_diagram_has_a_connection_below_and_above_each_layer(number):
    with pytest.raises(dp.PolicyError, match=r"a connection below and above each\. Received: "):
        dp.Diagram("t", [Row("a")] * number)
    assert dp.Diagram("t", [Row("a")] * (3 + 2 * number)).layers == 1 + number


def test_a_path_goes_forward_within_the_steps():
    for path in ((1, 1), (1, 4), (4, 4), [2, 3]):
        assert dp.zaremba().diagram(path=path).path == tuple(path)
    for path in (
        (0, 1),
        (1, 5),
        (3, 2),
        (-1, 2),
        (1,),
        (1, 2, 3),
        (),
        (1.0, 2),
        (True, 2),
        3,
        "12",
    ):
        with pytest.raises(
            dp.PolicyError, match=r"1 <= s <= t <= 4: path=\(1, 4\). Received: path="
        ):
            dp.zaremba().diagram(path=path)


def test_a_path_goes_up_at_its_first_step_along_the_last_layer_and_out_at_its_last():
    drawn = dp.none().diagram(layers=2, steps=5, path=(2, 4))
    heavy = {(row, step) for row in range(5) for step in range(5) if drawn.on_path(row, step)}
    assert heavy == {(0, 1), (2, 1), (3, 2), (3, 3), (4, 3)}
    assert not any(
        dp.none().diagram(layers=2, steps=5).on_path(row, step)
        for row in range(5)
        for step in range(5)
    )
    at_once = dp.none().diagram(layers=2, steps=5, path=(3, 3))
    heavy = {(row, step) for row in range(5) for step in range(5) if at_once.on_path(row, step)}
    assert heavy == {(0, 2), (2, 2), (4, 2)}


def legend(diagram):
    return list(diagram.legend())


def test_the_legend_says_what_is_there():
    def rows(**layer):
        return [Row("input"), Row("layer", **layer), Row("output")]

    dashed = "dashed: masked, and in a row one letter is one mask; solid: whole"
    assert legend(dp.none().diagram()) == []
    assert legend(dp.zaremba().diagram()) == [dashed]
    assert legend(dp.Diagram("t", rows(masked=True))) == [dashed, "?: not decided"]
    assert legend(dp.Diagram("t", rows(masked=None))) == ["?: not decided"]
    inside = "□: a rule falls inside the cell, or on its weights"
    assert legend(dp.Diagram("t", rows(inside=True))) == [inside]
    assert legend(dp.Diagram("t", rows(wrong=True), wanted="w")) == ["✗: unlike w"]


@pytest.mark.parametrize(
    ("policy", "path", "text"),
    [
        (dp.none(), (1, 1), "from x1 to y1, through 0 masks"),
        (dp.Policy(input=dp.drop(0.5)), (1, 3), "from x1 to y3, through 1 mask"),
        (dp.zaremba(), (2, 3), "from x2 to y3, through 3 masks"),
        (dp.semeniuta(), (1, 1), "from x1 to y1, through 2 masks, 2 of them in cells"),
        (dp.rnndrop(), (1, 2), "from x1 to y2, through 3 masks, 2 of them in cells"),
        (dp.naive() | dp.rnndrop(), (1, 2), "from x1 to y2, through 7 masks, 3 of them in cells"),
        (dp.awd(), (1, 4), "from x1 to y4, through 3 masks"),
    ],
)
def test_the_masks_of_a_path_are_counted_in_words(policy, path, text):
    assert legend(policy.diagram(path=path))[-1] == f"heavy: {text}"


def test_a_diagram_without_a_path_has_no_masks_on_it():
    assert dp.zaremba().diagram().corruptions == 0


def test_a_layer_with_rules_inside_and_on_its_state_shows_both():
    rows = (dp.naive() | dp.semeniuta() | dp.zoneout() | dp.weight_drop()).diagram().rows
    layer = rows[1]
    assert (layer.masked, layer.per, layer.inside) == (True, "step", True)
    assert (layer.passed, layer.carried) == (1, 1)
    assert layer.notes == (
        "hidden 0.5 per step; candidate 0.25 per step; hidden_update 0.025 per step; "
        "cell_update 0.25 per step; recurrent_weight 0.5 per call"
    )
    (_, layer, _, *_) = dp.rnndrop().diagram().rows
    assert (layer.masked, layer.per, layer.inside) == (True, "sequence", False)
    assert (layer.passed, layer.carried) == (1, 0)
    (low, layer, *_) = dp.zoneout().diagram().rows
    assert (layer.masked, layer.per, layer.inside) == (False, None, True)
    assert (layer.passed, layer.carried) == (0, 0)
    assert (low.masked, low.per, low.passed) == (False, None, 0)


def test_the_margin_is_as_wide_as_the_longest_name():
    rows = [Row("in"), Row("a layer of a long name", "notes"), Row("out", wrong=True)]
    assert str(dp.Diagram("t", rows, steps=3)).splitlines()[2:6] == [
        "                          y1      y2      y3",
        "✗ out                     │       │       │",
        "  a layer of a long name  ■───────■───────■         notes",
        "  in                      │       │       │",
    ]


def test_a_path_goes_through_every_layer_of_a_deep_stack():
    drawn = dp.none().diagram(layers=4, steps=3, path=(1, 2))
    heavy = {(row, step) for row in range(9) for step in range(3) if drawn.on_path(row, step)}
    assert heavy == {(0, 0), (2, 0), (4, 0), (6, 0), (7, 1), (8, 1)}


def test_every_layer_of_a_deep_stack_has_its_own_rates():
    rates = [0.1, 0.2, 0.3, 0.4]
    drawn = dp.zaremba(rates).diagram(layers=4)
    assert [row.notes for row in drawn.rows[::2]] == [
        *(f"{rate} per step" for rate in rates),
        "0.4 per step",
    ]


def test_masks_that_no_signal_is_said_to_pass_are_not_counted():
    rows = [Row("input", masked=True), Row("layer 1"), Row("output")]
    drawn = dp.Diagram("t", rows, steps=2, path=(1, 2))
    assert legend(drawn)[-1] == "heavy: from x1 to y2, through 0 masks"


def test_what_is_no_diagram_is_shown_as_it_was_received():
    for rows, received in ([Row("a")] * 2, "2 rows"), ([], r"rows=\[\]"), (3, "rows=3"):
        with pytest.raises(dp.PolicyError, match=f"Received: {received}$"):
            dp.Diagram("t", rows)


def test_a_diagram_has_four_steps_if_nothing_is_said():
    assert dp.Diagram("t", [Row("a"), Row("b"), Row("c")]).steps == 4


def test_the_letters_between_steps_are_the_hidden_states_before_the_cells():
    rules = dp.drop(0.5, per="sequence"), dp.drop(0.5, per="step")
    for hidden, cell in (rules, rules[::-1]):
        row = dp.Policy(hidden=hidden, cell=cell).diagram().rows[1]
        assert row.per == hidden.per


@pytest.mark.parametrize("made", [Row("a"), MARKED], ids=["row", "diagram"])
def test_diagrams_never_change(made):
    field = fields(made)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(made, field, "another")
    assert not hasattr(made, "__dict__")


def test_whether_a_path_goes_along_a_connection_is_a_truth_value():
    for path in (None, (1, 2)):
        drawn = dp.none().diagram(layers=1, steps=2, path=path)
        assert {type(drawn.on_path(row, step)) for row in range(3) for step in range(2)} == {bool}


def test_a_diagram_shows_itself_in_a_notebook():
    drawn = dp.zaremba().diagram(path=(1, 2))
    assert drawn._repr_html_() == drawn.svg()
