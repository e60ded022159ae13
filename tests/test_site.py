"""The site, as readers meet it: built from the notebooks, then opened in a headless Chromium that can reach nothing
but it."""

import csv
import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup
from filelock import FileLock

ROOT = Path(__file__).parent.parent
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no chromium and chromedriver on the PATH (Debian: apt install chromium chromium-driver)",
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-color-profile=srgb --window-size=1280,900 "
    # one page after the other in one process: none is kept to go back to, no process waits for the next
    "--disable-features=BackForwardCache,RenderDocument,SpareRendererForSitePerProcess"
).split()
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def site(tmp_path_factory, worker_id):
    "The built site. Test processes that run side by side share one build."
    base = tmp_path_factory.getbasetemp()
    out = (base if worker_id == "master" else base.parent) / "site"
    with FileLock(f"{out}.lock"):
        if not (out / "built").exists():
            done = subprocess.run(
                [sys.executable, ROOT / "docs" / "build.py", "--out", out], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            (out / "built").write_text(json.dumps({"warnings": done.stderr}))
    return out


COLOURS = re.compile(r'(<code class="sourceCode[^>]*>)(.*?)(?=</code>)', re.S)  # most of a page's tags


@pytest.fixture(scope="module")
def pages(site):
    "Address -> page, its code without colours."
    found = {}
    for path in sorted(site.rglob("*.html")):
        text = COLOURS.sub(lambda m: m[1] + re.sub(r"<[^>]*>", "", m[2]), path.read_text(encoding="utf-8"))
        found[path.relative_to(site).as_posix()] = BeautifulSoup(text, "html.parser")
    return found


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        *FLAGS,
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(120)
    driver.get("about:blank")
    driver.get_log("performance")
    yield driver
    driver.quit()


def view(browser, size=DESKTOP, dark=False, script=True):
    "Look through a screen of this size, in this colour scheme, with or without JavaScript."
    width, height = size
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        dict(width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE),
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        dict(features=[dict(name="prefers-color-scheme", value="dark" if dark else "light")]),
    )
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", dict(value=not script))


def requests(browser):
    "Addresses asked for since the last look."
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


# Nine tenths of a page's elements are the colours of its code, which are alike everywhere: where the whole page is not
# asked for, code is made plain. Style sheets are not fetched a second time (preload): one rule reads them, of devices
# that are turned, and it runs where the whole page is asked for.
AXE = """
const [rules, whole, done] = arguments;
if (!whole) document.querySelectorAll("main pre > code").forEach(code => { code.textContent = code.textContent; });
axe.run(whole ? document : {include: [["main"]], exclude: [["pre > code"]]}, {
  resultTypes: ["violations"], preload: whole, ...(rules ? {runOnly: {type: "rule", values: rules}} : {})
}).then(found => done(
  found.violations.filter(v => ["serious", "critical"].includes(v.impact))
    .map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html).join(" | "))
)).catch(error => done([String(error)]));
"""


SCROLLING = """
const parts = [...document.querySelectorAll("main *:not(pre > code *):not(math *):not(svg *)")];
return [Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
  parts.filter(e => e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX)
    && e.tabIndex < 0 && !e.querySelector("a, button, [tabindex]")).map(e => e.outerHTML.slice(0, 120))];
"""
# The text of another page in the frame of the open one: what is the same for both is not loaded again.
INSTEAD = """
const [address, done] = arguments;
fetch(address).then(answer => answer.text()).then(text => {
  const other = new DOMParser().parseFromString(text, "text/html");
  document.querySelector("main").replaceWith(document.adoptNode(other.querySelector("main")));
  document.fonts.ready.then(() => done(document.title));
});
"""


def accessibility(browser, rules=None, whole=False):
    """What axe-core finds that is serious or critical in the text of the open page; if asked, in its menus and
    coloured code too, which are alike everywhere."""
    import axe_core_python

    browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    return browser.execute_async_script(AXE, rules, whole)


# --- without a browser ------------------------------------------------------------------------------------------------


def test_it_is_built_without_a_warning(site):
    built = json.loads((site / "built").read_text())
    assert not built["warnings"]


def test_every_notebook_has_a_page_and_a_place_in_the_menu(site, pages):
    sources = {
        p.relative_to(ROOT / "nbs").with_suffix(".html").as_posix()
        for kind in ("*.ipynb", "*.md")
        for p in (ROOT / "nbs").rglob(kind)
        if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT / "nbs").parts)
    }
    assert sources <= pages.keys()
    listed = set()
    for name, page in pages.items():
        listed |= {urljoin(name, a["href"]) for a in page.select("#quarto-sidebar a[href], #quarto-header a[href]")}
    assert pages.keys() - listed - {"index.html"} == set()


def test_links_and_anchors_resolve(site, pages):
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    broken = []
    for name, page in pages.items():
        for tag, attribute in [(t, a) for a in ("href", "src") for t in page.select(f"[{a}]")]:
            link = tag[attribute]
            if re.match(r"(https?|mailto|data):", link):
                continue
            target, anchor = urldefrag(urljoin(name, link))
            target = unquote(target.partition("?")[0]) or "index.html"
            if target.endswith("/"):
                target += "index.html"
            if not (site / target).is_file() or (
                anchor and target in anchors and unquote(anchor) not in anchors[target]
            ):
                broken.append(f"{name}: {link}")
    assert not broken


def test_ids_are_unique_and_pictures_have_a_text(pages):
    for name, page in pages.items():
        ids = [tag["id"] for tag in page.select("main [id]")]
        assert len(ids) == len(set(ids)), name
        assert not [img for img in page.select("img") if len(img.get("alt", "")) < 40], name  # a sentence, not a title
        assert not page.select("main figure svg, main .cell-output svg"), (
            name
        )  # a drawing in the page itself has no text


def test_nothing_names_a_machine(site):
    for path in site.rglob("*.html"):
        text = re.sub(
            r'data:image/[^"]*|<code class="sourceCode.*?</code>', "", path.read_text(encoding="utf-8"), flags=re.S
        )
        assert not re.search(r"(?<![\w.~*/:-])/(root|home|tmp|work|Users)/\w+", text), path.name


def test_every_formula_is_rendered(site, pages):
    for name in pages:
        text = re.sub(
            r"<(code|pre|script|style)\b.*?</\1>|<[^>]*>", "", (site / name).read_text(encoding="utf-8"), flags=re.S
        )
        assert not re.search(r"\\[(\[]|\$\$|\\(frac|alpha|sum|mathbb|log)\b", text), name
    formulas = pages["01_loss/00_smoothing.html"].select("math")
    assert len(formulas) > 10 and pages["01_loss/00_smoothing.html"].select("math[display=block] mfrac")


def test_each_exported_name_is_in_the_reference_with_its_code(pages):
    entries = {
        tag["id"]: (name, tag)
        for name, page in pages.items()
        if name.startswith("reference/")
        for tag in page.select("section[id]")
    }
    assert {"label_smoothing_loss", "HarLsError", "ece"} <= entries.keys()
    name, entry = entries["ece"]
    target, anchor = urldefrag(urljoin(name, entry.select_one("a.source-link")["href"]))
    assert "def ece(" in pages[target].find(id=anchor).get_text()


# --- with a browser ---------------------------------------------------------------------------------------------------

WHOLE = (
    "index.html",
    "01_loss/00_smoothing.html",
    "reference/har_ls.loss.smoothing.html",
)  # with menus and coloured code


def too_wide(browser, name):
    "What of the page in view leaves a phone's screen, or scrolls sideways where a keyboard cannot reach it."
    wide, lost = browser.execute_script(SCROLLING)
    faults = [f"{name}: scrolls, but not with the keyboard: {tag}" for tag in lost]
    return faults + ([f"{name}: {wide} px wide on a phone"] if wide > PHONE[0] else [])


@needs_browser
def test_every_page_loads_silently_fits_a_phone_and_is_accessible(browser, address, pages):
    "A page is laid out once, as a phone shows it, where more has to scroll than on a wide screen."
    faults = []
    view(browser, PHONE)
    for name in pages:
        if name.startswith("reference/") and name not in WHOLE:  # see the next test
            continue
        browser.get(address + name)
        said = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        faults += [f"{name}: {entry['message']}" for entry in said]
        asked = [url for url in requests(browser) if not url.startswith((address, "data:"))]
        faults += [f"{name}: asks for {url}" for url in asked]
        faults += too_wide(browser, name)
        if name in WHOLE:  # the menus of a wide screen
            view(browser)
        faults += [f"{name}: {found}" for found in accessibility(browser, whole=name in WHOLE)]
        if name in WHOLE:
            view(browser, PHONE)
    assert not faults, "\n".join(faults)


@needs_browser
def test_pages_of_the_reference_are_made_alike_and_fit_a_phone(browser, address, pages):
    "What a browser loads for them is the same for all, so one is loaded, and the text of the others is shown in it."
    loaded = {}
    for name, page in pages.items():
        if name.startswith("reference/"):
            tags = [
                (tag.name, tag.get("src") or tag.get("href") or tag.get_text())
                for tag in page.select("script, link, style")
            ]
            loaded[name] = [urljoin(name, what) if what.startswith("..") else what for _, what in tags]
            assert not page.select("main img, main iframe, main script, main link, main style"), name
    one = "reference/har_ls.loss.smoothing.html"
    assert len(loaded) > 50 and {name for name, each in loaded.items() if each != loaded[one]} == set()
    view(browser, PHONE)
    browser.get(address + one)
    faults = []
    for name in loaded:
        browser.execute_async_script(INSTEAD, address + name)
        assert (
            browser.execute_script("return document.querySelector('main h1').textContent")
            == pages[name].select_one("main h1").get_text()
        )
        faults += too_wide(browser, name)
    assert not faults, "\n".join(faults)


@needs_browser
def test_dark_pages_have_contrast(browser, address, pages):
    faults = []
    view(browser, dark=True)
    for name in (
        "index.html",
        "01_loss/00_smoothing.html",
        "07_evidence/00_statistics.html",
        "howto/index.html",
        "reference/har_ls.loss.smoothing.html",
    ):
        browser.get(address + name)
        faults += [f"{name}: {found}" for found in accessibility(browser, ["color-contrast"], whole=name in WHOLE)]
    assert not faults, "\n".join(faults)


@needs_browser
def test_the_reader_chooses_light_or_dark(browser, address):
    def brightness():
        return sum(
            map(
                int,
                re.findall(r"\d+", browser.execute_script("return getComputedStyle(document.body).backgroundColor"))[
                    :3
                ],
            )
        )

    view(browser, dark=True)
    browser.get(address)
    assert brightness() < 200
    browser.execute_script("document.querySelector('.quarto-color-scheme-toggle').click()")
    time.sleep(0.2)
    assert brightness() > 600
    browser.refresh()
    assert brightness() > 600
    browser.execute_script("localStorage.clear()")


@needs_browser
def test_formulas_are_drawn_with_the_font_of_the_site(browser, address):
    view(browser)
    browser.get(address + "01_loss/00_smoothing.html")
    drawn = browser.execute_script("""
        return document.fonts.ready.then(() => ({
          font: [...document.fonts].some(f => f.family.includes("Formulas") && f.status === "loaded"),
          sizes: [...document.querySelectorAll("math")].map(m => m.getBoundingClientRect())
            .map(box => box.width * box.height)}))""")
    assert drawn["font"] and min(drawn["sizes"]) > 0


@needs_browser
@pytest.mark.parametrize("where", ["served", "opened as a file"])
def test_search_finds_ece_and_leads_there(browser, address, site, where):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    view(browser)
    browser.get(address + "howto/index.html" if where == "served" else (site / "howto/index.html").as_uri())
    browser.find_element(By.CSS_SELECTOR, "#quarto-search input").send_keys("ECE")
    first = WebDriverWait(browser, 10).until(lambda b: b.find_elements(By.CSS_SELECTOR, ".search-result"))[0]
    assert re.search(r"\bECE\b|\bece\b", first.text)
    first.click()
    WebDriverWait(browser, 10).until(lambda b: "05_metrics/02_calibration" in b.current_url)
    assert "calibration error" in browser.find_element(By.TAG_NAME, "main").text


def effects_of(page):
    "The effects that the explorer's page carries, as they are copied: lines of CSV, the first with the names."
    data = json.loads(page.select_one(".explorer-data").string)
    rows = [data["columns"], *([x if x is not None else "" for x in row] for row in data["rows"])]
    return [dict(zip(data["columns"], row)) for row in rows]


class Explorer:
    "The explorer as a reader meets it."

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        view(browser)
        list(requests(browser))
        browser.get_log("browser")
        browser.get(url)
        self.drawn()

    def all(self, selector):
        from selenium.webdriver.common.by import By

        return self.browser.find_elements(By.CSS_SELECTOR, f".explorer {selector}")

    def drawn(self):
        "Wait until the plot shows as many effects as the table; return them as texts."
        from selenium.webdriver.support.ui import WebDriverWait

        def ready(_):
            here = self.browser.execute_script(
                "const root = document.querySelector('.explorer-live');"
                "return [[...root.querySelectorAll('tbody tr')].map(tr => [...tr.cells].map(td => td.textContent)),"
                "root.querySelectorAll('.explorer-plot > div').length,"
                "root.querySelectorAll('[aria-roledescription=point]').length];"
            )
            return here[0] if here[1:] == [1, len(here[0])] else None

        return WebDriverWait(self.browser, 20).until(ready)

    def click(self, selector):
        self.browser.execute_script("arguments[0].click()", self.all(selector)[0])  # the page scrolls smoothly: slowly

    def choose(self, name, value):
        from selenium.webdriver.support.ui import Select

        Select(self.all(f"[name={name}]")[0]).select_by_value(value)
        return self.drawn()

    def press(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()
        return self.browser.switch_to.active_element


def with_sign(x):
    "A change as it is printed: four decimals and a sign, but none before a zero."
    text = f"{x:+.4f}".replace("-", "−")
    return text if text.strip("+−") != "0.0000" else "0.0000"


@needs_browser
def test_the_explorer_shows_sorts_filters_copies_and_links_to_effects(browser, address, pages):
    names, *effects = effects_of(pages["study/explorer.html"])
    here = Explorer(browser, address + "study/explorer.html")
    assert not here.all(".explorer-static")[0].is_displayed()

    # choose and sort
    at_first = here.all("[name=alpha]")[0].get_property("value")  # one strength, where there are several datasets
    found = [e for e in effects if e["measure"] == "accuracy" and at_first in ("", f"{e['alpha']:g}")]
    assert len(found) > 2 and {f"{effect['base']:.4f}" for effect in found} == {
        row[7] for row in here.choose("measure", "accuracy")
    }
    for way, sign in (("ascending", 1), ("descending", -1)):
        here.click("th[data-column=estimate] button")
        assert here.all("th[data-column=estimate]")[0].get_attribute("aria-sort") == way
        order = sorted(found, key=lambda effect: sign * effect["estimate"])
        assert [row[4] for row in here.drawn()] == [with_sign(e["estimate"]) for e in order]

    # filter, link there and back
    word = found[0]["verdict"]
    here.all("[name=words]")[0].send_keys(word)
    filtered = here.drawn()
    assert filtered and len(filtered) == sum(effect["verdict"] == word for effect in found)
    link = browser.current_url
    here.click(".explorer-again")
    assert browser.current_url == here.url and len(here.drawn()) != len(filtered)
    browser.back()
    assert browser.current_url == link and here.drawn() == filtered
    browser.get("about:blank")
    browser.get(link)
    assert here.drawn() == filtered and here.all("[name=measure]")[0].get_property("value") == "accuracy"
    browser.get(here.url + "#dataset=nowhere")
    assert "dataset=nowhere" in here.all(".explorer-said")[0].text and here.drawn()
    browser.get(here.url + "#how-to-read-it")  # a place on the page, not a view
    assert here.drawn() and not here.all(".explorer-said")[0].text

    # no result, and back to the first view
    here.all("[name=words]")[0].send_keys("no such word")
    assert "No published result" in here.all(".explorer-count")[0].text
    assert not here.all(".explorer-plot")[0].is_displayed()
    here.click(".explorer-again")
    here.drawn()

    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert [url for url in requests(browser) if not url.startswith((address, "data:", "about:"))] == []
    faults = accessibility(browser)
    view(browser, dark=True)
    faults += accessibility(browser, ["color-contrast"])
    view(browser, PHONE)
    assert faults + too_wide(browser, "the explorer, drawn") == []


@needs_browser
def test_the_explorer_works_with_the_keyboard_alone_and_is_seen_without_javascript(browser, address, pages):
    from selenium.webdriver.common.keys import Keys

    names, *effects = effects_of(pages["study/explorer.html"])
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.execute_cdp_cmd("Browser.grantPermissions", dict(permissions=allowed))
    here = Explorer(browser, address + "study/explorer.html#model=moderntcn")
    before, reached = here.drawn(), []
    while not (reached and reached[-1] == "measure"):
        reached.append(here.press(Keys.TAB).get_attribute("name"))
        assert len(reached) < 100
    assert reached[-4:] == ["dataset", "protocol", "model", "measure"]
    here.press("ent")  # entropy
    assert "entropy" in here.all(".explorer-title")[0].text
    after = here.drawn()
    assert after != before and {row[2] for row in after} == {"ModernTCN"}
    while (at := here.press(Keys.TAB)).text != "change":
        assert at.tag_name != "body"
    outline = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", at)
    here.press(Keys.ENTER)
    assert outline == "solid" and "sort=estimate" in browser.current_url
    while (at := here.press(Keys.TAB)).text != "Copy":
        assert at.tag_name != "body"
    here.press(Keys.ENTER)
    mine = [e for e in effects if e["model"] == "moderntcn" and e["measure"] == "entropy"]
    first = min(mine, key=lambda effect: effect["estimate"])
    assert "clipboard" in here.all(".explorer-said")[0].text
    read = "navigator.clipboard.readText().then(arguments[0], fault => arguments[0](String(fault)))"
    header, line = csv.reader(browser.execute_async_script(read).splitlines())
    copied = dict(zip(header, line))
    assert header == list(names) and [copied[n] for n in ("dataset", "model")] == [first["dataset"], first["model"]]
    assert [float(copied[name]) for name in ("estimate", "low")] == [first["estimate"], first["low"]]

    view(browser, script=False)
    browser.get("about:blank")  # the same address would not be loaded again
    browser.get(here.url)
    static = here.all(".explorer-static")[0]
    assert static.is_displayed() and not here.all(".explorer-live")[0].is_displayed()
    assert here.all(".explorer-static img")[0].is_displayed() and "JavaScript" in static.text
    assert len(here.all(".explorer-static tbody tr")) >= 2
    view(browser)


@needs_browser
def test_pages_can_be_read_without_javascript(browser, address):
    from selenium.webdriver.common.by import By

    view(browser, script=False)
    browser.get(address + "01_loss/00_smoothing.html")
    main = browser.find_element(By.TAG_NAME, "main")
    assert "Soft targets" in main.text and "def soft_targets" in main.text
    assert (
        browser.find_element(By.CSS_SELECTOR, "math").is_displayed()
        and browser.find_element(By.CSS_SELECTOR, "main img").is_displayed()
    )
    browser.get(browser.find_element(By.CSS_SELECTOR, ".nav-page-next a").get_attribute("href"))
    assert browser.find_element(By.TAG_NAME, "h1").text != "Label smoothing"
    view(browser)
