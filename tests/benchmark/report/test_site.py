import json
import re
from pathlib import Path

import pytest

from spikebench.report import build_site
from spikebench.report.page import pretty_json
from spikebench.results import MissingResultsError, find_records
from tests.benchmark.report.pages import Page


def site(store, out, *records):
    for record in records:
        store.put(record)
    path = build_site([store.root], out)
    return path, path.read_text(encoding="utf-8")


def test_the_page_embeds_each_record_once(make_record, store, tmp_path):
    records = [make_record("k0"), make_record("k1", "other")]
    path, html = site(store, tmp_path / "site", *records)
    assert path == tmp_path / "site" / "index.html"
    page = Page(html)
    embedded = {record["key"]: record for record in map(json.loads, page.pres)}
    assert embedded == {r.key: r.model_dump(mode="json", exclude_none=True) for r in records}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {a["href"][1:] for a in page.all("a")}
    assert links <= set(ids)
    assert {"record-k0", "record-k1"} <= links


def test_figures_of_several_seeds_lead_to_each(make_record, store, tmp_path):
    _, html = site(store, tmp_path / "a.html", *(make_record(f"k{s}", seed=s) for s in range(3)))
    hrefs = [a["href"] for a in Page(html).all("a")]
    figures = 6  # top-1, energy, parameters, MACs, synaptic operations, firing rate
    assert [hrefs.count(f"#record-k{seed}") for seed in range(3)] == [figures] * 3


def test_nothing_in_a_record_becomes_markup(make_record, store, tmp_path):
    evil = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    clean = site(store, tmp_path / "a.html", make_record("k0", "name"))[1]
    record = make_record("k0", evil, protocol=evil, dataset=evil, config={evil: evil})
    failed = make_record("k1", evil, error=evil)
    html = site(store, tmp_path / "b.html", record, failed)[1]
    page = Page(html)
    assert not page.all("img")
    assert len(page.all("script")) == len(Page(clean).all("script"))
    assert "<script>alert" not in html
    assert json.loads(page.pres[0])["config"] == {evil: evil}


def test_partial_and_failed_runs_stay_out(make_record, store, tmp_path):
    _, html = site(
        store,
        tmp_path / "a.html",
        make_record("k0", "whole"),
        make_record("k1", "part", partial=True),
        make_record("k2", "broken", error="RuntimeError: out of memory"),
    )
    assert "2 runs are left out: 1 failed, 1 partial." in html
    assert "failed: broken, digits_small, seed 0: RuntimeError: out of memory" in html
    assert html.count('scope="row"') == 1
    assert len(Page(html).pres) == 1


def test_a_page_without_finished_runs_says_so(make_record, store, tmp_path):
    _, html = site(store, tmp_path / "a.html", make_record(error="no"))
    assert "No finished run." in html
    assert "1 run is left out: 1 failed." in html


def test_estimators_are_explained_with_their_source(make_record, store, tmp_path):
    _, html = site(store, tmp_path / "a.html", make_record(energy={"mine": 1, "rate-45nm": 2}))
    terms = re.findall(r"<dt>(\S*-45nm|mine)</dt>", html)
    assert terms == ["rate-45nm", "mine"]
    assert "Spike-driven Transformer V2 (ICLR 2024)" in html
    assert "energy per image (mJ), rate-45nm" in html


def test_the_page_names_no_address_to_load_from(make_record, store, tmp_path):
    _, html = site(store, tmp_path / "a.html", make_record())
    page = Page(html)
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert not [a for a in page.all("script") if "src" in a]
    assert [a["href"] for a in page.all("link")] == ["data:,"]


def test_no_record_at_all_says_what_to_run(tmp_path):
    with pytest.raises(MissingResultsError, match="spikebench run"):
        build_site([tmp_path], tmp_path / "site")


def test_the_same_sources_give_the_same_page(make_record, store, tmp_path):
    first = site(store, tmp_path / "a.html", make_record())[1]
    assert site(store, tmp_path / "a.html")[1] == first


def test_pretty_json_reads_back_and_keeps_list_items_on_a_line():
    value = {"rows": [{"name": "x" * 60, "n": n} for n in range(3)], "deep": {"a": ["b" * 99]}}
    text = pretty_json(value)
    assert json.loads(text) == value
    assert sum(line.strip().startswith('{"name"') for line in text.splitlines()) == 3


def column_texts(driver, place):
    script = (
        "return [...document.querySelectorAll('tbody tr:not([hidden])')]"
        f".map(row => row.cells[{place}].innerText.trim())"
    )
    return driver.execute_script(script)


def test_in_a_browser(browser, make_record, store, tmp_path):
    from selenium.webdriver.support.ui import Select, WebDriverWait

    figures = {"a": (0.5, 9.0), "b": (0.75, 100.0), "c": (0.25, 20.5)}
    records = [
        make_record(f"k{name}", name, metrics={"top1": top1}, energy={"rate-45nm": energy})
        for name, (top1, energy) in figures.items()
    ]
    records.append(make_record("kd", "d", energy={}, dataset="others"))
    path, _ = site(store, tmp_path / "a.html", *records)
    browser.get(path.as_uri())
    head = browser.find_element("css selector", 'th[data-key="energy_mj_rate-45nm"]')
    place = browser.execute_script("return arguments[0].cellIndex", head)
    assert column_texts(browser, 0) == ["b", "a", "c", "d"]

    # As texts, 100.0 would come before 20.50 and 9.000. A missing figure stays last.
    button = head.find_element("tag name", "button")
    button.click()
    assert column_texts(browser, place) == ["9.000", "20.50", "100.0", "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys("\ue007")  # the enter key
    assert column_texts(browser, place) == ["100.0", "20.50", "9.000", "–"]
    assert head.get_attribute("aria-sort") == "descending"

    assert browser.find_elements("css selector", "svg.main-svg")
    assert len(browser.find_elements("css selector", ".scatterlayer .point")) == len(figures)
    assert "1 of 4 rows" in browser.find_element("tag name", "figcaption").text

    choice = Select(browser.find_element("css selector", ".filter select"))
    choice.select_by_visible_text("others test")
    assert column_texts(browser, 0) == ["d"]
    assert not browser.find_elements("css selector", ".scatterlayer .point")
    choice.select_by_visible_text("digits test")
    assert column_texts(browser, 0) == ["b", "c", "a"]
    assert len(browser.find_elements("css selector", ".scatterlayer .point")) == 3

    record = browser.find_element("id", "record-kc")
    assert not record.is_displayed()
    browser.find_element("css selector", 'td a[href="#record-kc"]').click()
    assert record.is_displayed()
    assert '"key": "kc"' in record.text

    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    browser.set_window_size(500, 800)
    fits = (
        "const root = document.documentElement, plot = document.querySelector('.plot');"
        "return root.scrollWidth === root.clientWidth"
        " && plot.querySelector('.main-svg').clientWidth <= plot.clientWidth"
    )
    WebDriverWait(browser, 5).until(lambda driver: driver.execute_script(fits))


@pytest.fixture
def detector(make_record):
    """A record with an interval, figures of classes and energies of parts."""
    record = make_record("k0", task="detection", metrics={"box_map": 0.579, "box_map50": 0.8})
    interval = record.metrics["box_map"].model_copy(update={"interval": (0.551, 0.604)})
    return record.model_copy(
        update={
            "metrics": {**record.metrics, "box_map": interval},
            "per_class": {"box_map": {"cat": 0.25, "<dog>": 0.5}, "box_map50": {"cat": 0.75}},
            "energy_by_part": {"rate-45nm": {"backbone": 3.0, "neck": 1.0}, "other": {"neck": 2.0}},
        }
    )


def test_an_interval_stands_below_its_figure(detector, make_record, store, tmp_path):
    _, plain = site(store, tmp_path / "a.html", make_record("k1"))
    assert 'class="interval"' not in plain
    assert "95 % interval" not in plain
    _, html = site(store, tmp_path / "a.html", detector)
    assert '>57.9</a><span class="interval">55.1–60.4</span></td>' in html
    assert html.count('<span class="interval">') == 1
    assert "95 % interval" in html


def test_a_record_opens_on_its_parts_and_classes(detector, store, tmp_path):
    _, html = site(store, tmp_path / "a.html", detector)
    inside = html[html.index('id="record-k0"') :]
    rows = re.findall(r"<tr>\s*<th scope=\"row\".*?</tr>", inside, re.DOTALL)
    cells = [re.findall(r">([^<>]+)</t[hd]>", row) for row in rows]
    assert cells == [
        ["backbone", "3.000", "75.0", "–", "–"],
        ["neck", "1.000", "25.0", "2.000", "100.0"],
        ["cat", "25.0", "75.0"],
        ["&lt;dog&gt;", "50.0", "–"],
    ]
    heads = re.findall(r'<button type="button">([^<]+)</button>', inside)
    assert heads == [
        *("part", "rate-45nm (mJ)", "rate-45nm (%)", "other (mJ)", "other (%)"),
        *("class", "box AP (%)", "box AP50 (%)"),
    ]
    assert html.index("Energy by part") < html.index("By class") < html.index("<pre ")


def test_the_published_records_make_a_page(tmp_path):
    published = Path(__file__).parents[3] / "leaderboards" / "results"
    text = build_site([published], tmp_path).read_text(encoding="utf-8")
    for path, record in find_records(published):
        assert record.status == "finished", path
        assert not record.partial, path
        assert record.key in text
