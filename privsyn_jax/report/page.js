"use strict";
// What makes a page interactive: charts in place of still figures, filters, sorting, refreshing. Without it the page
// still has its tables and still figures.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Filters. An element or a point has keys: names of controls with values. It is hidden when a control excludes one.

const boxes = all(".controls input[type=checkbox]");
const selects = all(".controls select");

function hides(name, value) {
  const select = selects.find((one) => one.name === name);
  if (select) return select.value !== "" && select.value !== value;
  const box = boxes.find((one) => one.name === name && one.value === value);
  return box !== undefined && !box.checked;
}

// "other" is a second model: a row that compares two is hidden with either.
const isHidden = (keys) =>
  Object.entries(keys).some(([name, value]) => hides(name === "other" ? "model" : name, value));

function applyFilters() {
  for (const element of all("[data-model], [data-metric], [data-column]")) element.hidden = isHidden(element.dataset);
  for (const group of all(".controls fieldset")) {
    const own = all("input", group);
    const count = own.filter((box) => box.checked).length;
    group.querySelector("output").value = `${count} of ${own.length}`;
  }
  for (const summary of all(".controls summary")) {
    const parts = all("fieldset", summary.parentElement).map((group) => {
      const chosen = all("input:checked", group).map((box) => box.value);
      const isWhole = chosen.length === all("input", group).length;
      return `${group.dataset.words} ${isWhole ? "all" : chosen.join(", ") || "none"}`;
    });
    summary.querySelector("output").value = parts.join("; ");
  }
  for (const figure of drawn) draw(figure);
}

// --- The state of the controls stands in the address, so that it outlives a refresh and can be passed on.

function saveState() {
  const state = new URLSearchParams();
  for (const box of boxes) if (!box.checked) state.append(box.name, box.value);
  for (const select of selects) if (select.selectedIndex > 0) state.append(select.name, select.value);
  history.replaceState(null, "", `#${state}`);
}

function loadState() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const box of boxes) box.checked = !state.getAll(box.name).includes(box.value);
  for (const select of selects) if (state.has(select.name)) select.value = state.get(select.name);
  for (const select of selects) if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// --- Charts: a figure holds {"keys": names, "views": {metric or "": figure of Plotly}}. The `customdata` of a trace
// has the keys of its points. Where the layout has `rows`, points stand below each other, and close up when some are
// hidden.

const drawn = new Set();
let plotly = null;

const AXIS = { automargin: true, gridcolor: "#dfe3e8", zeroline: false, title: { standoff: 8 } };
const TEMPLATE = {
  layout: {
    font: { family: "system-ui, sans-serif", size: 12, color: "#24292f" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 4, r: 12, t: 8, b: 4 },
    showlegend: false,
    xaxis: AXIS,
    yaxis: AXIS,
    hoverlabel: { align: "left", bgcolor: "#24292f", bordercolor: "#868d95", font: { color: "#ffffff" } },
  },
};

function loadPlotly() {
  plotly ??= (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  })();
  return plotly;
}

/** The part of a trace that is left, from every list that has an entry for each point. */
function pick(value, kept, count) {
  if (Array.isArray(value)) return value.length === count ? value.filter((_, place) => kept[place]) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, pick(inner, kept, count)]));
}

function visiblePart(trace, names) {
  if (!trace.customdata) return trace;
  const excludes = (value, name) => value !== null && hides(name, value);
  const kept = trace.customdata.map((values) => !values.some((value, place) => excludes(value, names[place])));
  return pick(trace, kept, kept.length);
}

function closeUp(data, layout) {
  const labels = data[0].text;
  data[0].y = labels.map((_, place) => place);
  const axis = { tickvals: data[0].y, ticktext: labels, range: [labels.length - 0.5, -0.5] };
  return { ...layout, height: 70 + 22 * labels.length, yaxis: { ...layout.yaxis, ...axis } };
}

async function draw(figure) {
  const { keys = [], views } = figure.chart;
  const metric = selects.find((select) => select.name === "metric");
  const view = views[""] ?? views[metric?.value];
  figure.hidden = !view;
  if (!view) return;
  const data = view.data.map((trace) => visiblePart(trace, keys));
  const { rows, ...rest } = view.layout;
  const layout = { template: TEMPLATE, ...(rows ? closeUp(data, rest) : rest) };
  layout.dragmode = matchMedia("(pointer: fine)").matches ? "zoom" : false; // a finger scrolls the page
  layout.height ??= figure.querySelector("svg.plot")?.getBoundingClientRect().height || figure.height;
  figure.height = layout.height;
  const area = figure.querySelector(".live");
  const isNew = !area.hasChildNodes();
  await Plotly.react(area, data, layout, { responsive: true, displayModeBar: false });
  makeScalable(area);
  if (isNew) area.on("plotly_afterplot", () => makeScalable(area));
}

/** Lets print scale what is drawn. */
function makeScalable(area) {
  for (const svg of all("svg.main-svg", area)) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }
}

async function begin(figure) {
  await loadPlotly();
  const area = document.createElement("div");
  area.className = "live";
  area.setAttribute("role", "img");
  area.setAttribute("aria-label", figure.querySelector("svg.plot")?.getAttribute("aria-label") ?? figure.dataset.label);
  figure.prepend(area);
  drawn.add(figure);
  await draw(figure);
  figure.classList.add("is-live");
}

function watchCharts() {
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        watcher.unobserve(target);
        begin(target);
      }
    },
    { rootMargin: "400px" },
  );
  for (const figure of all("figure:has(> script)")) {
    figure.chart = JSON.parse(figure.querySelector("script").textContent);
    if (figure.querySelector("svg.plot")) watcher.observe(figure);
    else begin(figure); // has nothing to print until it is drawn
  }
}

// --- Tables whose heads sort them.

function sortBy(head) {
  const table = head.closest("table");
  const place = [...head.parentElement.children].indexOf(head);
  const descends = head.getAttribute("aria-sort") === "ascending";
  const isNumber = head.classList.contains("number");
  const key = (row) => {
    const text = row.children[place].textContent.trim();
    return !isNumber ? text : text === "∞" ? Infinity : parseFloat(text.replaceAll(",", ""));
  };
  const compare = (one, other) => {
    if (!isNumber) return one.localeCompare(other, "en", { numeric: true });
    return Number.isNaN(one) || Number.isNaN(other) ? 0 : one === other ? 0 : one - other;
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([one, first], [other, second]) => {
    const missing = Number.isNaN(one) - Number.isNaN(other); // at the end either way
    return missing || (descends ? compare(other, one) : compare(one, other));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const cell of head.parentElement.children) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descends ? "descending" : "ascending");
}

function makeSortable() {
  for (const head of all("table.sortable thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(head));
    head.append(button);
  }
}

// --- A study that is running.

function refresh() {
  const box = document.querySelector("input[name=refresh]");
  if (box) setInterval(() => box.checked && !document.hidden && location.reload(), 1000 * box.dataset.seconds);
}

document.documentElement.classList.add("has-scripts");
loadState();
makeSortable();
watchCharts();
applyFilters();
refresh();
for (const control of [...boxes, ...selects]) {
  control.addEventListener("change", () => {
    saveState();
    applyFilters();
  });
}
for (const button of all(".controls button[data-check]")) {
  button.addEventListener("click", () => {
    for (const box of all("input", button.closest("fieldset"))) box.checked = button.dataset.check === "all";
    saveState();
    applyFilters();
  });
}
