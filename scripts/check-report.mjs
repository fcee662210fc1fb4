// The checks of scripts/check-report, on NAME.html in this directory for each NAME, and on NAME.json and NAME.hlog/ if there are any.
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import { pathToFileURL } from "node:url";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { HistogramLogReader, build } from "hdr-histogram-js";

// Without a GPU, and without /dev/shm, which is small or missing in containers.
const flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: flags });

const views = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 375, height: 800 }, colorScheme: "light", hasTouch: true, isMobile: true },
  plain: { viewport: { width: 1280, height: 900 }, javaScriptEnabled: false },
};

for (const name of process.argv.slice(2)) {
  const report = existsSync(`${name}.json`) && JSON.parse(readFileSync(`${name}.json`, "utf8"));
  assert(statSync(`${name}.html`).size < 1_000_000, `${name}: the page is larger than 1 MB`);
  for (const [view, options] of Object.entries(views)) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const troubles = [];
    page.on("console", (message) => troubles.push(`console ${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => troubles.push(`error: ${error}`));
    page.on("dialog", (dialog) => { troubles.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (request) => request.url().startsWith("file:") || troubles.push(`request: ${request.url()}`));
    await page.goto(pathToFileURL(`${name}.html`).href);
    if (view === "light" && report) await numbers(page, report, name);
    if (view === "light") await accessible(page, name);
    if (view === "light" || view === "phone") await interactive(page, name, view);
    const { wide, culprits } = await overflow(page);
    assert(!wide, `${name}, ${view}: wider than the screen: ${culprits}`);
    await contrast(page, `${name}, ${view}`);
    if (options.javaScriptEnabled !== false) await noFault(page, `${name}, ${view}`);
    assert.deepEqual(troubles, [], `${name}, ${view}`);
    await picture(page, `${name}-${view}`);
    if (view === "light") {
      // As printed: what a PDF shows, but as a picture to look at. A4 without its margins is 688 pixels wide.
      await page.emulateMedia({ media: "print" });
      await page.setViewportSize({ width: 688, height: 1000 });
      const { wide } = await overflow(page);
      assert(!wide, `${name}: wider than the paper`);
      await picture(page, `${name}-print`);
      await page.emulateMedia({ media: "screen" });
    }
    if (view === "light") await page.pdf({ path: `${process.env.SHOTS}/${name}.pdf`, format: "A4" });
    await context.close();
  }
  if (report) logs(name, report);
  console.log(`${name}: ok`);
}
await browser.close();

/// The whole page: what is longer than a texture can be, in several pictures.
async function picture(page, name) {
  const part = 8000;
  const [width, height] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollHeight]);
  for (let y = 0; y < height; y += part) {
    const path = `${process.env.SHOTS}/${name}${y ? `-${y / part + 1}` : ""}.png`;
    await page.screenshot({ path, fullPage: true, clip: { x: 0, y, width, height: Math.min(part, height - y) } });
  }
}

/// Every number of the page is the JSON's, and what people read is that number.
async function numbers(page, report, name) {
  const shown = await page.$$eval("data[data-json]", (all) =>
    all.map((one) => ({ place: one.dataset.json, value: one.value, text: one.textContent })));
  assert(shown.length > 20 || report.operations.length < 2, `${name}: only ${shown.length} numbers`);
  for (const { place, value, text } of shown) {
    const found = place.split("/").slice(1).reduce((at, key) => at?.[key], report);
    assert.equal(found, JSON.parse(value), `${name}: ${place}`);
    const read = parse(text);
    if (read === null || text.startsWith("<") || text.startsWith(">")) continue;
    const unit = place.includes("_share") || text.endsWith(" %") ? 100 : 1;
    const error = Math.abs(read - found * unit);
    assert(error <= Math.max(Math.abs(found * unit) * 0.006, 0.051), `${name}: ${place} is ${found}, the page says ${text}`);
  }
}

/// The number that a text stands for: `1,234`, `12.3 ms`, `2:05`, `3 min 0 s`; microseconds, seconds or as it is.
function parse(text) {
  const units = { "µs": 1, ms: 1e3, s: 1e6 };
  const latency = text.match(/^([\d.]+) (µs|ms|s)$/);
  const seconds = text.match(/^(?:(\d+) h )?(\d+) min(?: (\d+) s)?$/);
  const clock = text.match(/^(?:(\d+):)?(\d+):(\d\d)$/);
  const plain = text.match(/^([\d,]*\.?\d+)(?:\/s| %)?$/);
  if (plain) return Number(plain[1].replaceAll(",", ""));
  if (clock) return Number(clock[1] ?? 0) * 3600 + Number(clock[2]) * 60 + Number(clock[3]);
  if (seconds?.[3]) return Number(seconds[2]) * 60 + Number(seconds[3]);
  // `12.3 s` is a latency or a length: the place would tell, so only what is unmistakable is compared.
  if (latency && latency[2] !== "s") return Number(latency[1]) * units[latency[2]];
  return null;
}

/// Landmarks, one first heading, named regions and images, no empty heading, a table for every chart.
async function accessible(page, name) {
  const problems = await page.evaluate(() => {
    const problems = [];
    const one = (selector) => document.querySelectorAll(selector).length === 1 || problems.push(`not one ${selector}`);
    ["h1", "main", "body > header", "body > footer"].forEach(one);
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    ids.forEach((id, at) => ids.indexOf(id) === at || problems.push(`two of id ${id}`));
    for (const section of document.querySelectorAll("section")) {
      const label = document.getElementById(section.getAttribute("aria-labelledby"));
      if (!label?.textContent.trim()) problems.push("a section without a name");
    }
    for (const plot of document.querySelectorAll("svg")) {
      const isHidden = plot.closest("[aria-hidden=true]") || plot.parentElement.closest("svg");
      if (!isHidden && !(plot.getAttribute("role") === "img" && plot.getAttribute("aria-label"))) problems.push("an image without words");
    }
    for (const table of document.querySelectorAll("table")) {
      if (!table.querySelector("thead th[scope=col]")) problems.push("a table without a head");
    }
    if (!document.documentElement.lang) problems.push("no language");
    if (document.querySelectorAll("figure.chart").length && !document.querySelector("table")) problems.push("no table of the charts");
    return problems;
  });
  assert.deepEqual(problems, [], name);
}

/// axe finds nothing. It is evaluated, not added as a script: the page's policy would refuse it.
async function noFault(page, where) {
  const { violations } = await page.evaluate(`${axe.source}; axe.run(document, { resultTypes: ["violations"] })`);
  const told = violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  assert.deepEqual(told, [], `${where}: axe`);
}

/// The pointer and the keyboard both bring up values.
async function interactive(page, name, view) {
  for (const figure of await page.$$("figure.chart")) {
    const output = await figure.$("output");
    const slider = await figure.$("input[type=range]");
    await slider.focus();
    const first = await output.textContent();
    assert(first.length > 5, `${name}, ${view}: no words for the first value`);
    const last = Number(await slider.getAttribute("max"));
    if (last > 0) {
      await page.keyboard.press("End");
      assert.notEqual(await output.textContent(), first, `${name}, ${view}: the keyboard does nothing`);
      assert.equal(await slider.getAttribute("aria-valuetext"), await output.textContent());
    }
    await slider.evaluate((one) => one.blur());
    const plot = await figure.$("svg.plot");
    await plot.scrollIntoViewIfNeeded();
    const box = await plot.boundingBox();
    await page.mouse.move(box.x + box.width * 0.6, box.y + box.height / 2);
    assert((await output.textContent()).length > 5, `${name}, ${view}: the pointer does nothing`);
    await page.mouse.move(0, 0);
  }
}

async function overflow(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const wide = document.documentElement.scrollWidth > width;
    const sticksOut = (one) => one.getBoundingClientRect().right > width + 1 && !one.closest(".scroll");
    const culprits = [...document.querySelectorAll("body *")].filter(sticksOut).map((one) => `${one.tagName}.${one.className.baseVal ?? one.className}`);
    return { wide, culprits: culprits.slice(0, 5).join(", ") };
  });
}

/// WCAG AA: 4.5 to 1 for text.
async function contrast(page, where) {
  const low = await page.evaluate(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
    const linear = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = (colour) => channels(colour).map(linear).reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const low = new Set();
    for (const one of document.querySelectorAll("body *")) {
      const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!hasText || one.tagName === "TITLE" || one.tagName === "SCRIPT") continue;
      const style = getComputedStyle(one);
      const ink = light(one instanceof SVGElement ? style.fill : style.color);
      const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      if (ratio < 4.5) low.add(`${one.tagName}.${one.className.baseVal ?? one.className} ${ratio.toFixed(2)}`);
    }
    return [...low];
  });
  assert.deepEqual(low, [], `${where}: too little contrast`);
}

/// HdrHistogram's JavaScript implementation opens the logs, and gets the report's percentiles from all their intervals.
function logs(name, report) {
  for (const file of readdirSync(`${name}.hlog`)) {
    const operation = report.operations.find((one) => `${one.operation}.hlog` === file);
    const text = readFileSync(`${name}.hlog/${file}`, "utf8");
    for (const tag of ["service", "response"]) {
      const whole = build({ bitBucketSize: 64, lowestDiscernibleValue: 1, highestTrackableValue: 3_600_000_000, numberOfSignificantValueDigits: 3 });
      const reader = new HistogramLogReader(text);
      for (let one = reader.nextIntervalHistogram(); one; one = reader.nextIntervalHistogram()) {
        if (one.tag === tag) whole.add(one);
      }
      const ours = operation[`${tag}_us`];
      assert.equal(whole.totalCount, operation.accepted, `${name}: ${file} ${tag} count`);
      const theirs = { p50: 50, p90: 90, p99: 99, p99_9: 99.9 };
      for (const [figure, percentile] of Object.entries(theirs)) {
        assert.equal(whole.getValueAtPercentile(percentile), ours[figure], `${name}: ${file} ${tag} ${figure}`);
      }
      assert.equal(whole.maxValue, ours.max, `${name}: ${file} ${tag} max`);
      assert(Math.abs(whole.mean - ours.mean) <= ours.mean * 1e-9, `${name}: ${file} ${tag} mean ${whole.mean}, ours ${ours.mean}`);
    }
  }
}
