import json
from urllib.parse import unquote

from spikebench.papers.record import (
    ReproducedRow,
    write_reproduction_record,
)
from spikebench.report import (
    write_reproduction,
)
from tests.benchmark.report.pages import Page
from tests.benchmark.report.paper_records import (
    EVIL,
    IMPLIED,
    build_record,
    build_row,
    found,
    missing,
    page,
)


def test_the_page_holds_the_record_and_every_link_leads_somewhere(tmp_path):
    record = build_record(
        build_row(**IMPLIED, unverified=("top1",)), build_row("other", details={"a": "b"})
    )
    shown = Page(page(record, tmp_path))
    rows = [ReproducedRow.model_validate(json.loads(text)) for text in shown.pres[:2]]
    assert rows == record.rows
    assert json.loads(shown.pres[2])["device"] == record.device
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    hrefs = [attributes["href"] for attributes in shown.all("a")]
    assert {unquote(href[1:]) for href in hrefs if href.startswith("#")} <= set(ids)
    # parameters and MACs of both rows, three MACs of one again
    assert hrefs.count("#row-spikeformer-t4") == 2 + 3
    assert hrefs.count("#row-other-t4") == 2
    assert "reproduction-imagenet.json" in hrefs
    assert {"imagenet-note-1", "imagenet-note-2", "imagenet-note-3"} <= set(ids)


def test_the_page_asks_the_network_for_nothing(tmp_path):
    shown = Page(page(build_record(build_row()), tmp_path))
    assert "default-src 'none'" in shown.all("meta")[1]["content"]
    assert not [a for a in shown.all("script") if "src" in a]
    assert [a["href"] for a in shown.all("link")] == ["data:,"]


def test_nothing_in_a_record_becomes_markup(tmp_path):
    clean = page(build_record(build_row()), tmp_path)
    row = build_row(
        EVIL,
        time_steps=EVIL,
        note=EVIL,
        source=EVIL,
        details={EVIL: EVIL},
        measured={"params_m": missing(EVIL), EVIL: found(1.0, EVIL)},
        energy_mj={EVIL: 1.0},
        **IMPLIED,
    )
    record = build_record(row, title=EVIL, device=EVIL, images=EVIL, table="evil")
    text = page(record, tmp_path)
    shown = Page(text)
    assert not shown.all("img")
    assert len(shown.all("script")) == len(Page(clean).all("script"))
    assert "<script>alert" not in text
    assert ReproducedRow.model_validate(json.loads(shown.pres[0])) == row


def test_in_a_browser(browser, tmp_path):
    figures = {"a": 9.0, "b": 100.0, "c": 20.5}
    rows = [
        build_row(name, measured={"params_m": found(value), "energy_mj": missing()}, **IMPLIED)
        for name, value in figures.items()
    ]
    rows.append(build_row("d", measured={"params_m": missing(), "energy_mj": missing()}))
    path = write_reproduction_record(build_record(*rows), tmp_path)
    browser.get(write_reproduction(path, build_record(*rows))[3].as_uri())
    names = "#table-imagenet tbody th"

    def column(selector):
        return [cell.text for cell in browser.find_elements("css selector", selector)]

    head = browser.find_element("css selector", '#table-imagenet th[data-key="params_m_measured"]')
    button = head.find_element("tag name", "button")
    button.click()
    assert column(names) == ["a", "c", "b", "d"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(names) == ["b", "c", "a", "d"]
    # as texts, +84.90 would come after +5.40
    browser.find_element(
        "css selector", '#table-imagenet th[data-key="params_m_difference"] button'
    ).click()
    assert column(names) == ["a", "c", "b", "d"]

    record = browser.find_element("id", "row-c-t4")
    assert not record.is_displayed()
    browser.find_element("css selector", '#table-imagenet td a[href="#row-c-t4"]').click()
    assert record.is_displayed()
    assert '"model": "c"' in record.text

    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    browser.set_window_size(500, 800)
    fits = "const root = document.documentElement; return root.scrollWidth === root.clientWidth"
    assert browser.execute_script(fits)
