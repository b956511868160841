// The page of a report. The data stand in the element `data`; `kind` says of what they are: a run, a grid of runs, or the map of a heap.
"use strict";

const state = { charts: [], errors: 0, drawn: 0, maps: 0 };
window.addEventListener("error", () => { state.errors += 1; mark(); });

// ---- small things ------------------------------------------------------------------------------------------------

/** Says in the page how far it is, for those who wait until it is drawn. */
function mark() {
  document.body.dataset.charts = state.drawn;
  document.body.dataset.maps = state.maps;
  document.body.dataset.errors = state.errors;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function bytes(n) {
  let unit = 0;
  while (Math.abs(n) >= 1024 && unit < UNITS.length - 1) { n /= 1024; unit += 1; }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toFixed(1)} ${UNITS[unit]}`;
}

/** Three digits, without zeros at the end. */
const short = (n) => String(Number(n.toPrecision(3)));

/** Milliseconds. */
function time(ms) {
  if (ms >= 10000) return `${short(ms / 1000)} s`;
  return ms >= 1 ? `${short(Math.round(ms * 100) / 100)} ms` : `${short(ms * 1000)} µs`;
}

const percent = (part) => `${part > 0 && part < 0.1 ? (part * 100).toFixed(1) : Math.round(part * 100)} %`;
const count = (n) => n.toLocaleString("en");
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const PALETTE = ["#2f6fde", "#e07b39", "#3aa76d", "#b455c8", "#c9a227", "#d64f6b", "#2aa5b8", "#7d6bd6", "#8c6d4f", "#6b7785", "#4f9d2f", "#c2577f"];

// ---- charts ------------------------------------------------------------------------------------------------------

/** A tooltip in the colours of the page. */
function tip(more) {
  return { confine: true, backgroundColor: color("back"), borderColor: color("line"), textStyle: { color: color("text") }, ...more };
}

/** What all charts have. */
function base(extra) {
  const axis = {
    axisLine: { lineStyle: { color: color("line") } },
    axisLabel: { color: color("faint") },
    nameTextStyle: { color: color("faint") },
    splitLine: { lineStyle: { color: color("line") } },
  };
  const list = (given) => (Array.isArray(given) ? given : [given]).map((one) => ({ ...axis, ...one, axisLabel: { ...axis.axisLabel, ...one.axisLabel } }));
  return {
    animation: false,
    color: PALETTE,
    textStyle: { color: color("text") },
    grid: { left: 70, right: 25, top: 40, bottom: 45 },
    legend: { top: 0, textStyle: { color: color("text") }, type: "scroll" },
    tooltip: tip({ trigger: "axis" }),
    ...extra,
    xAxis: list(extra.xAxis),
    yAxis: list(extra.yAxis),
    // At once, not in steps: there are some thousand points at most.
    series: extra.series.map((one) => ({ progressive: 0, ...one })),
  };
}

/** A section with a chart, which `option` describes: it is called again when the theme changes. */
function chart(parent, title, about, option, tall) {
  const place = element("div", { class: tall ? "chart tall" : "chart", role: "img", "aria-label": title });
  parent.append(element("section", {}, element("h2", { text: title }), element("p", { text: about }), place));
  const drawn = { place, option, echart: null };
  state.charts.push(drawn);
  return drawn;
}

function draw(one) {
  if (one.echart) one.echart.dispose();
  one.echart = echarts.init(one.place, null, { renderer: "canvas" });
  one.echart.setOption(one.option());
}

function drawAll() {
  state.drawn = 0;
  for (const one of state.charts) {
    try {
      draw(one);
      state.drawn += 1;
    } catch (e) {
      state.errors += 1;
      one.place.textContent = `This chart could not be drawn: ${e}`;
    }
  }
  mark();
}

const seconds = { type: "value", name: "s", min: "dataMin", max: "dataMax", axisLabel: { formatter: (v) => v.toFixed(v < 10 ? 2 : 0) } };
/** A logarithmic axis that leaves some room around what it shows. */
const around = { min: (v) => v.min / 1.1, max: (v) => v.max * 1.1 };
const zoom = (axis) => [{ type: "inside", xAxisIndex: axis, filterMode: "none" }];

// ---- the heap ----------------------------------------------------------------------------------------------------

function map(main, data) {
  const place = element("div");
  main.append(element("section", {}, element("h2", { text: "Heap map" }), element("p", { text: "Each rectangle is a block of 32 KiB, or several neighbours of a large heap, before and after collections. The button plays the run as a movie." }), place));
  heapMap(place, data.map);
  state.maps += 1;
}

// ---- one run -----------------------------------------------------------------------------------------------------

function cards(main, list) {
  const box = element("div", { class: "cards" });
  for (const [value, name] of list) box.append(element("div", { class: "card" }, element("b", { text: value }), element("span", { text: name })));
  main.append(box);
}

function run(main, data) {
  const d = data.digest, c = data.collections, n = c.at.length;
  const named = (map) => Object.entries(map).map(([name, times]) => `${times} ${name}`).join(", ");
  cards(main, [
    [count(d.collections), `collections: ${named(d.kinds)}`],
    [named(d.causes) || "none", "causes"],
    [time(d.pause_ns.p50 / 1e6), "median pause"],
    [time(d.pause_ns.p99 / 1e6), "99th percentile"],
    [time(d.pause_ns.max / 1e6), "longest pause"],
    [`${d.mmu.map((part) => Math.round(part * 100)).join(" · ")} %`, "least utilisation in 1 · 10 · 100 ms"],
    [percent(d.gc_cpu_share), "of the CPU time is collecting"],
    [bytes(d.peak_heap_bytes), "peak heap"],
    [bytes(d.mean_heap_bytes), "mean heap"],
    [bytes(d.peak_resident_bytes), "peak resident memory"],
    [d.allocated_bytes ? bytes(d.allocated_bytes) : "not known", "allocated in all"],
    [time(d.wall_ns / 1e6), "from the heap's making to the last that is known"],
  ]);
  if (data.thinned) main.append(element("p", { text: `${count(d.collections)} collections: the charts show ${count(n)}, the longest pause of each group of neighbours. The figures above are of all.` }));

  const at = (i) => c.at[i] / 1000;
  const tell = (i) => `#${c.number[i]} ${data.kinds[c.kind[i]]}, ${data.causes[c.cause[i]]}<br>at ${at(i).toFixed(3)} s, pause <b>${time(c.pause[i])}</b><br>` +
    `${bytes(c.before[i])} → ${bytes(c.heap[i])}, live ${bytes(c.live[i])}` +
    (c.promoted[i] ? `<br>promoted ${bytes(c.promoted[i])}` : "") + (c.pinned[i] ? `<br>pinned ${c.pinned[i]}` : "") + (c.finalizable[i] ? `<br>finalizable ${c.finalizable[i]}` : "");

  chart(main, "Heap over time", "The heap grows from one collection to the next and shrinks in it. Hover a dot for the collection.", () => {
    const saw = [];
    for (let i = 0; i < n; i += 1) saw.push([at(i), c.before[i]], [at(i) + c.pause[i] / 1000, c.heap[i]]);
    const line = (name, values, more) => ({ name, type: "line", showSymbol: false, data: values.map((v, i) => [at(i) + c.pause[i] / 1000, v]), ...more });
    return base({
      xAxis: seconds,
      yAxis: { type: "value", axisLabel: { formatter: bytes } },
      dataZoom: zoom(0),
      tooltip: tip({ trigger: "item", formatter: (p) => (p.seriesName === "collections" ? tell(p.dataIndex) : `${escaped(p.seriesName)}: ${bytes(p.value[1])}`) }),
      series: [
        { name: "heap", type: "line", showSymbol: false, data: saw, areaStyle: { opacity: 0.12 } },
        line("live", c.live), line("resident", c.resident, { lineStyle: { type: "dashed" } }),
        ...(c.limit.some((v) => v > 0) ? [line("limit", c.limit, { lineStyle: { type: "dotted" } })] : []),
        { name: "collections", type: "scatter", symbolSize: 6, data: c.heap.map((v, i) => [at(i) + c.pause[i] / 1000, v]) },
      ],
    });
  });

  chart(main, "Pauses", "Each dot is a pause, coloured by its cause.", () => base({
    xAxis: seconds,
    yAxis: { type: "log", axisLabel: { formatter: time } },
    dataZoom: zoom(0),
    tooltip: tip({ trigger: "item", formatter: (p) => tell(p.data[2]) }),
    series: data.causes.map((cause, k) => ({
      name: cause, type: "scatter", symbolSize: 6,
      data: c.pause.map((v, i) => [at(i), Math.max(v, 1e-4), i]).filter((p) => c.cause[p[2]] === k),
    })),
  }));

  const pair = element("div", { class: "pair" });
  main.append(pair);
  chart(pair, "Distribution of pauses", "So many percent of the pauses are no longer than that.", () => base({
    legend: { show: false },
    xAxis: { type: "log", min: 1, max: Math.max(10, ...data.percentiles.map((p) => p[0])), axisLabel: { formatter: (v) => `${(100 - 100 / v).toFixed(v > 1000 ? 2 : v > 100 ? 1 : 0)} %` } },
    yAxis: { type: "log", axisLabel: { formatter: time } },
    tooltip: tip({ trigger: "axis", formatter: (p) => `${(100 - 100 / p[0].value[0]).toFixed(3)} % are within ${time(p[0].value[1])}` }),
    series: [{ type: "line", step: "end", showSymbol: false, data: data.percentiles.map((p) => [p[0], Math.max(p[1], 1e-4)]), areaStyle: { opacity: 0.12 } }],
  }));
  chart(pair, "Minimum mutator utilisation", "In the worst stretch of so long, the program had so much of the time.", () => base({
    legend: { show: false },
    xAxis: { type: "log", axisLabel: { formatter: time } },
    yAxis: { type: "value", min: 0, max: 1, axisLabel: { formatter: percent } },
    tooltip: tip({ trigger: "axis", formatter: (p) => `in any ${time(p[0].value[0])}: at least ${percent(p[0].value[1])}` }),
    series: [{ type: "line", showSymbol: false, data: data.mmu, areaStyle: { opacity: 0.12 } }],
  }));

  chart(main, "Phases of each collection", "Where the time of a collection goes. Of a libgc program, `release` follows the pause.", () => base({
    xAxis: { type: "category", data: c.number, name: "#" },
    yAxis: { type: "value", axisLabel: { formatter: time } },
    dataZoom: zoom(0),
    tooltip: tip({ trigger: "axis", axisPointer: { type: "shadow" }, valueFormatter: time }),
    series: data.phases.map((name, k) => ({ name, type: "bar", stack: "all", barCategoryGap: "10%", data: c.phases.map((p) => p[k]) })),
  }));

  const second = element("div", { class: "pair" });
  main.append(second);
  chart(second, "Workers", data.workers.length ? "CPU time of each worker in all collections, by part." : "Each collection was one worker's: the heap is small, or has one worker.", () => base({
    xAxis: { type: "value", axisLabel: { formatter: time } },
    yAxis: { type: "category", inverse: true, data: data.workers.length ? data.workers.map((w) => `worker ${w.worker}`) : ["worker 0"] },
    grid: { left: 80, right: 25, top: 40, bottom: 30 },
    tooltip: tip({ trigger: "axis", axisPointer: { type: "shadow" }, formatter: (p) => {
      const w = data.workers[p[0].dataIndex];
      return w ? `worker ${w.worker}: ${percent(w.busy_part)} of the shared time at work, ${count(w.turns)} turns, ${count(w.steals)} steals<br>` + p.map((q) => `${escaped(q.seriesName)} ${time(q.value)}`).join("<br>") : time(p[0].value);
    } }),
    series: data.workers.length
      ? data.parts.map((name, k) => ({ name, type: "bar", stack: "all", data: data.workers.map((w) => w.cpu[k]) }))
      : [{ name: "all", type: "bar", data: [d.gc_cpu_ns / 1e6] }],
  }));
  chart(second, "Memory that went back", "Bytes returned to the operating system since the beginning, in collections and beside them.", () => base({
    legend: { show: false },
    xAxis: seconds,
    yAxis: { type: "value", axisLabel: { formatter: bytes } },
    tooltip: tip({ trigger: "axis", formatter: (p) => `${p[0].value[0].toFixed(3)} s: ${bytes(p[0].value[1])}` }),
    series: [{ type: "line", step: "end", showSymbol: false, areaStyle: { opacity: 0.12 }, data: data.returned.length ? data.returned : [[0, 0], [d.wall_ns / 1e9, 0]] }],
  }));

  chart(main, "Objects by size at the end", data.classes.length ? "How many objects there were of each size, dead ones included that no collection had found yet." : "Not known: the process did not end in order.", () => base({
    xAxis: { type: "category", data: data.classes.map((k) => bytes(k[0])) },
    yAxis: [{ type: "log", name: "objects", axisLabel: { formatter: count } }, { type: "log", name: "bytes", axisLabel: { formatter: bytes }, splitLine: { show: false } }],
    grid: { left: 70, right: 75, top: 40, bottom: 45 },
    tooltip: tip({ trigger: "axis", axisPointer: { type: "shadow" }, formatter: (p) => `${data.classes[p[0].dataIndex] ? bytes(data.classes[p[0].dataIndex][0]) : ""}<br>` + p.map((q) => `${q.seriesName}: ${q.seriesName === "bytes" ? bytes(q.value) : count(q.value)}`).join("<br>") }),
    series: [
      { name: "objects", type: "bar", data: data.classes.map((k) => k[1]) },
      { name: "bytes", type: "bar", yAxisIndex: 1, data: data.classes.map((k) => Math.max(1, k[0] * k[1])) },
    ],
  }));

  if (data.map && data.map.frames.length) map(main, data);
  if (data.threads.length) {
    const table = element("table", {}, element("tr", {}, ...["Thread", "stopped", "in all", "longest"].map((text) => element("th", { text }))));
    for (const t of data.threads) table.append(element("tr", {}, ...[`${t.thread}`, `${count(t.stops)} times`, time(t.total), time(t.longest)].map((text) => element("td", { text }))));
    main.append(element("section", {}, element("h2", { text: "Threads that were stopped" }), element("div", { class: "scroll" }, table)));
  }
  const longest = c.pause.map((v, i) => [v, i]).sort((a, b) => b[0] - a[0]).slice(0, 10);
  const rows = element("table", {}, element("tr", {}, ...["#", "at", "cause", "kind", "pause", ...data.phases, "before", "after", "live"].map((text) => element("th", { text }))));
  for (const [ms, i] of longest) {
    const cells = [`${c.number[i]}`, `${at(i).toFixed(3)} s`, data.causes[c.cause[i]], data.kinds[c.kind[i]], time(ms), ...c.phases[i].map(time), bytes(c.before[i]), bytes(c.heap[i]), bytes(c.live[i])];
    rows.append(element("tr", {}, ...cells.map((text) => element("td", { text }))));
  }
  main.append(element("section", {}, element("h2", { text: "The longest pauses" }), element("div", { class: "scroll" }, rows)));
}

// ---- a grid of runs ----------------------------------------------------------------------------------------------

const COSTS = { wall: ["Time", (v) => `${v.toFixed(2)} s`], cpu: ["CPU time", (v) => `${v.toFixed(2)} s`], memory: ["Peak memory", bytes], pause: ["Longest pause", time] };

function grid(main, data) {
  const cost = element("select", { "aria-label": "cost" }, ...Object.entries(COSTS).map(([value, [text]]) => element("option", { value, text })));
  const bar = element("section", {}, element("label", { text: "Show " }), cost);
  main.append(bar);
  const value = (point) => point[cost.value];
  const show = (v) => COSTS[cost.value][1](v);
  const redraw = [];
  for (const load of data.workloads) {
    const points = data.points.filter((p) => p.workload === load && p.ok);
    const who = data.contestants.filter((name) => points.some((p) => p.who === name));
    const shade = (name) => PALETTE[data.contestants.indexOf(name) % PALETTE.length];
    const peer = (name) => data.peers.includes(name);
    const pair = element("div", { class: "pair" });
    main.append(pair);
    redraw.push(chart(pair, `${load}: against the size of the heap`, "The classic curves: what a plan costs as it gets more room. Peers are dashed.", () => base({
      xAxis: { type: "log", name: "heap", nameLocation: "middle", nameGap: 28, ...around, axisLabel: { formatter: bytes } },
      yAxis: { type: "value", scale: true, axisLabel: { formatter: show } },
      tooltip: tip({ trigger: "item", formatter: (p) => `${escaped(p.seriesName)}, heap ${escaped(p.data[2])} (${bytes(p.data[0])})<br><b>${show(p.data[1])}</b>` }),
      series: who.map((name) => ({
        name, type: "line", symbolSize: 7, color: shade(name), lineStyle: { type: peer(name) ? "dashed" : "solid" },
        data: points.filter((p) => p.who === name && p.heap_bytes > 0 && value(p) != null).map((p) => [p.heap_bytes, value(p), p.heap]).sort((a, b) => a[0] - b[0]),
      })),
    }), true));
    chart(pair, `${load}: time against memory`, "To the left and below is better. A dot on the line is beaten by none in both. Peers are diamonds.", () => {
      const sorted = points.filter((p) => p.memory > 0).sort((a, b) => a.memory - b.memory);
      let best = Infinity;
      const front = sorted.filter((p) => p.cpu < best && ((best = p.cpu), true)).map((p) => [p.memory, p.cpu]);
      return base({
        grid: { left: 70, right: 25, top: 60, bottom: 45 },
        xAxis: { type: "log", name: "peak memory", nameLocation: "middle", nameGap: 28, ...around, axisLabel: { formatter: bytes } },
        yAxis: { type: "log", name: "CPU s", ...around, axisLabel: { formatter: short } },
        tooltip: tip({ trigger: "item", formatter: (p) => `${escaped(p.seriesName)}${p.data[2] ? `, heap ${escaped(p.data[2])}` : ""}<br>${bytes(p.data[0])}, ${p.data[1].toFixed(2)} s` }),
        series: [
          ...who.map((name) => ({
            name, type: "scatter", color: shade(name), symbol: peer(name) ? "diamond" : "circle", symbolSize: peer(name) ? 11 : 9,
            data: points.filter((p) => p.who === name && p.memory > 0).map((p) => [p.memory, p.cpu, p.heap]),
          })),
          { name: "best", type: "line", step: "end", showSymbol: false, color: color("faint"), lineStyle: { type: "dotted" }, data: front },
        ],
      });
    }, true);
    for (const heap of [...new Set(data.points.filter((p) => p.workload === load).map((p) => p.heap))]) {
      const here = data.points.filter((p) => p.workload === load && p.heap === heap);
      const most = Math.max(...here.filter((p) => p.ok).map((p) => p.wall), 0);
      const rows = element("table", {}, element("tr", {}, ...["", "time", "", "CPU", "peak memory", "longest pause", "collections", ...(data.overheads ? ["of the distilled: time", "CPU", "memory"] : [])].map((text) => element("th", { text }))));
      for (const p of here.sort((a, b) => (b.ok - a.ok) || a.wall - b.wall)) {
        if (!p.ok) {
          rows.append(element("tr", {}, element("td", { text: p.who }), element("td", { class: "bad", colspan: "9", text: p.why || "it did not end well" })));
          continue;
        }
        const mark = element("i", peer(p.who) ? { class: "peer" } : {});
        mark.style.width = `${most ? (100 * p.wall) / most : 0}%`;
        const over = (v) => (v == null ? "" : `× ${v.toFixed(2)}`);
        rows.append(element("tr", {}, element("td", { text: p.who }), element("td", { text: `${p.wall.toFixed(2)} s` }), element("td", { class: "bar" }, mark),
          ...[`${p.cpu.toFixed(2)} s`, bytes(p.memory), p.pause == null ? "" : time(p.pause), count(p.collections), ...(data.overheads ? [over(p.over_wall), over(p.over_cpu), over(p.over_memory)] : [])].map((text) => element("td", { text }))));
      }
      main.append(element("section", {}, element("h2", { text: `${load}, heap ${heap}` }), element("div", { class: "scroll" }, rows)));
    }
  }
  cost.addEventListener("change", () => redraw.forEach(draw));
  if (data.runs.length) {
    const pick = element("select", { "aria-label": "run" }, ...data.runs.map((r, i) => element("option", { value: `${i}`, text: r.name })));
    const place = element("div");
    main.append(element("section", {}, element("h2", { text: "One run" }), pick), place);
    const kept = state.charts.length;
    const open = () => {
      for (const old of state.charts.splice(kept)) if (old.echart) old.echart.dispose();
      place.replaceChildren();
      run(place, data.runs[Number(pick.value)]);
    };
    pick.addEventListener("change", () => { open(); state.charts.slice(kept).forEach(draw); state.drawn = state.charts.length; mark(); });
    open();
  }
}

// ---- the page ----------------------------------------------------------------------------------------------------

const root = document.documentElement;
root.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  drawAll();
});
window.addEventListener("resize", () => state.charts.forEach((one) => one.echart && one.echart.resize()));

const data = JSON.parse(document.getElementById("data").textContent);
document.getElementById("about").textContent = data.about;
({ run, grid, map })[data.kind](document.getElementById("main"), data);
drawAll();
