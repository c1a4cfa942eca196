"""What both pages are put together from: markup that cannot be broken out of, charts, metrics, words."""

import re
from xml.etree import ElementTree as ET

import pytest

from common.web.charts import Cell, Measured, gauge, matrix, progress, score_chart
from common.web.markup import element, join
from common.web.prometheus import Metric, exposition
from common.web.shell import page, table
from common.web.words import amount, duration, moment, plural

HOSTILE = "<script>alert(1)</script>\"'&"


def test_text_and_attributes_are_escaped_and_markup_is_not():
    shown = element("a", HOSTILE, element("b", "x"), href=HOSTILE, class_="n")
    assert "<script" not in shown
    assert shown.count('"') == 4
    assert "<b>x</b>" in shown
    assert join("<", element("br"), None, 3) == "&lt;<br>3"


def test_a_hostile_title_stays_text_in_the_whole_page():
    shown = page(HOSTILE, top=element("h1", HOSTILE), main=table([HOSTILE], [[HOSTILE]]), footer=HOSTILE)
    assert "<script>" not in shown
    assert shown.count("<script") == 1  # the page's own


def test_without_javascript_the_page_reloads_itself():
    shown = page("t", top="", main="", footer="")
    assert re.search(r'<noscript><meta http-equiv="refresh" content="\d+"></noscript>', shown)


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_inline_script():
    shown = page("t", top="", main="", footer="")
    assert not re.search(r"(?:src|href)=\"(?!/)", shown)
    assert not re.search(r"<script(?![^>]*src=\"/)|style=|onclick=|javascript:", shown)


POINTS = [Measured(1, 0.7, 0.6, 0.8, HOSTILE), Measured(2, 0.8, 0.72, 0.9, "two"), Measured(3, 0.9, 0.85, 1.0, "three")]
DRAWINGS = {
    "scores": score_chart(POINTS, x_most=10, x_title="rounds", y_title="AUC", hint=0.5),
    "one score": score_chart(POINTS[:1], x_most=1, x_title="rounds", y_title="AUC", hint=None),
    "a gauge": gauge(3.0, 8.0, planned=6.0, label="spent"),
    "a gauge past its limit": gauge(9.0, 8.0, label="spent"),
    "a gauge of nothing": gauge(0.0, 0.0, label="spent"),
    "progress": progress(3, 10, "3 of 10"),
    "progress of nothing": progress(0, 0, "0 of 0"),
    "a matrix": matrix([("north", [Cell("fill-good", "in")] * 80)], [str(n) for n in range(80)], title="attempts"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_well_formed_inside_its_box_and_named(name):
    root = ET.fromstring(DRAWINGS[name])
    assert root.get("aria-label")
    width, height = map(float, root.get("viewBox").split()[2:])
    for mark in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert -0.1 <= float(mark.get(key, 0)) <= width + 0.1
        for key in ("y", "y1", "y2", "cy"):
            assert -0.1 <= float(mark.get(key, 0)) <= height + 0.1
        assert float(mark.get("width", 0)) >= 0


def test_a_higher_score_lies_higher_and_its_interval_around_it():
    root = ET.fromstring(DRAWINGS["scores"])
    dots = [float(mark.get("cy")) for mark in root.iter("circle")]
    assert dots == sorted(dots, reverse=True)
    whiskers = [mark for mark in root.iter("line") if mark.get("class") == "whisker"]
    for dot, whisker in zip(dots, whiskers, strict=True):
        assert float(whisker.get("y2")) < dot < float(whisker.get("y1"))


def test_a_gauge_warns_by_colour_before_the_limit():
    colours = [re.search(r"fill-(good|warn|bad)", gauge(value, 8.0, label="x")).group(1) for value in (1, 6, 7.9, 9)]
    assert colours == ["good", "warn", "bad", "bad"]


def test_metrics_have_the_form_that_prometheus_reads():
    text = exposition(
        [
            Metric("fedward_rounds_total", "Rounds.\nBackslash \\", "counter", [({}, 3.0)]),
            Metric(
                "fedward_score", "Score.", "gauge", [({"study": 'a"b\\c\nd'}, 0.75), ({"study": "e"}, float("nan"))]
            ),
            Metric("fedward_nothing", "Left out.", "gauge", []),
        ]
    )
    assert text == (
        "# HELP fedward_rounds_total Rounds.\\nBackslash \\\\\n# TYPE fedward_rounds_total counter\n"
        "fedward_rounds_total 3\n# HELP fedward_score Score.\n# TYPE fedward_score gauge\n"
        'fedward_score{study="a\\"b\\\\c\\nd"} 0.75\nfedward_score{study="e"} NaN\n'
    )


@pytest.mark.parametrize(
    "metric",
    [
        Metric("rounds_total", "no prefix", "counter", []),
        Metric("fedward_rounds", "a counter without _total", "counter", []),
        Metric("fedward_rounds_total", "a gauge with _total", "gauge", []),
        Metric("fedward_x", "a label with a bad name", "gauge", [({"a-b": "c"}, 1.0)]),
    ],
)
def test_a_metric_with_a_bad_name_is_refused(metric):
    with pytest.raises(ValueError, match=r"rounds|fedward_"):
        exposition([metric])


def test_figures_are_said_in_words():
    assert [duration(s) for s in (0.4, 59, 61, 3700, 90_000)] == ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
    assert [amount(b) for b in (12, 1500, 2_500_000, 3e9, 4e13)] == ["12 B", "1.5 kB", "2.5 MB", "3.0 GB", "40.0 TB"]
    assert [plural(1, "round"), plural(2, "round"), plural(0, "study", "studies")] == [
        "1 round",
        "2 rounds",
        "0 studies",
    ]
    assert moment(None) == "–"
    assert re.fullmatch(r"2027-01-15 \d\d:\d\d:\d\d [+-]\d{4}", moment(1800000000))
