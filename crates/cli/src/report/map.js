"use strict";

/**
 * Shows pictures of a heap in an element: a rectangle for each cell, a slider and a button for the movie, what colours say to choose.
 *
 * `data`: `digits` and `letters`, which the strings of frames are written with, `spaces`, the names of the letters, and `frames`:
 * lines of type "map", in the order of time. docs/live.md describes them.
 *
 * Gives an object with `show(index)` and `mode(name)`.
 */
function heapMap(element, data) {
  const MODES = {
    space: "space", used: "occupancy", age: "age in collections", pins: "pinned", holes: "fragmentation: holes in a block",
  };
  const SPACES = {
    light: ["#c3cad2", "#eceff2", "#2f86de", "#e58a1f", "#58a618", "#2aa5a0", "#b04fc4", "#c7a500"],
    dark: ["#55606c", "#242b33", "#56a8ff", "#ffab4a", "#8ed34a", "#52d1cb", "#d683e8", "#f0d24a"],
  };
  const RAMPS = {
    light: [[226, 231, 238], [84, 148, 214], [94, 40, 128]],
    dark: [[48, 58, 72], [58, 140, 180], [250, 224, 96]],
  };
  const frames = data.frames;
  const value = new Array(128).fill(0);
  [...data.digits].forEach((digit, index) => { value[digit.charCodeAt(0)] = index; });
  const most = frames.reduce((a, f) => Math.max(a, f.blocks), 1);
  const perCell = frames.reduce((a, f) => Math.max(a, f.per_cell), 1);
  const cells = Math.ceil(most / perCell);
  // Pictures of the same collection belong together.
  const pairs = [];
  frames.forEach((frame, index) => {
    const last = pairs[pairs.length - 1];
    if (frame.when === "after" && last && last.length === 1 && frames[last[0]].number === frame.number
      && frames[last[0]].when === "before") {
      last.push(index);
    } else {
      pairs.push([index]);
    }
  });
  const hasPairs = pairs.some((pair) => pair.length === 2);
  const state = { at: frames.length - 1, mode: "space", side: hasPairs, timer: 0 };

  const make = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const mode = make("select", { title: "What colours say" },
    ...Object.entries(MODES).map(([name, text]) => make("option", { value: name, textContent: text })));
  const play = make("button", { type: "button", textContent: "▶ play" });
  const slider = make("input", { type: "range", min: 0, step: 1, title: "Time" });
  const side = make("input", { type: "checkbox", checked: state.side, disabled: !hasPairs });
  const controls = make("div", { className: "controls" }, mode, play, slider, make("label", {}, side, " before and after"));
  const figures = [0, 1].map(() => {
    const caption = make("figcaption");
    const canvas = make("canvas");
    return { caption, canvas, figure: make("figure", {}, caption, canvas), frame: null };
  });
  const maps = make("div", { className: "maps" }, ...figures.map((f) => f.figure));
  const about = make("div", { className: "about" });
  const legend = make("div", { className: "legend" });
  element.classList.add("heap-map");
  element.replaceChildren(controls, maps, about, legend);

  const theme = () => {
    const set = document.documentElement.dataset.theme;
    const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    return dark ? "dark" : "light";
  };
  const mib = (bytes) => (bytes < 1048576 ? `${Math.round(bytes / 1024)} KiB` : `${(bytes / 1048576).toFixed(1)} MiB`);
  const ramp = (part, name) => {
    const stops = RAMPS[name];
    const [low, high, rest] = part < 0.5 ? [stops[0], stops[1], part * 2] : [stops[1], stops[2], part * 2 - 1];
    return `rgb(${low.map((c, i) => Math.round(c + (high[i] - c) * rest)).join(",")})`;
  };
  // Few are told apart better than many.
  const part = (n) => (state.mode === "age" || state.mode === "holes" ? Math.log2(n + 1) / 6 : n / 63);
  const spaceOf = (frame, index) => Math.max(0, data.letters.indexOf(frame.space[index]));
  const isFree = (space) => space < 2;
  /** The cell of a frame that lies in a rectangle, or -1. */
  const cellAt = (frame, rectangle) => {
    const block = rectangle * perCell + Math.floor(perCell / 2);
    const index = Math.floor(block / frame.per_cell);
    return index < frame.space.length ? index : -1;
  };
  const colour = (frame, index, name) => {
    const space = index < 0 ? 1 : spaceOf(frame, index);
    if (state.mode === "space" || isFree(space)) {
      return SPACES[name][space];
    }
    return ramp(part(value[frame[state.mode].charCodeAt(index)]), name);
  };

  /** How large rectangles are in a canvas. */
  const grid = (width) => {
    const size = Math.max(3, Math.min(20, Math.floor(Math.sqrt((width * 420) / cells))));
    const columns = Math.max(8, Math.floor(width / size / 8) * 8);
    return { size, columns, rows: Math.ceil(cells / columns) };
  };
  const draw = (figure) => {
    const { canvas, caption, frame } = figure;
    if (!frame) {
      return;
    }
    const width = canvas.parentElement.clientWidth || 640;
    const { size, columns, rows } = grid(width);
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = rows * size * ratio;
    canvas.style.height = `${rows * size}px`;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const name = theme();
    const gap = size > 5 ? 1 : 0;
    for (let i = 0; i < cells; i += 1) {
      context.fillStyle = colour(frame, cellAt(frame, i), name);
      context.fillRect((i % columns) * size, Math.floor(i / columns) * size, size - gap, size - gap);
    }
    const when = frame.when === "now" ? `now, after ${frame.number} collections` : `${frame.when} collection ${frame.number}`;
    caption.textContent = `${when}, ${(frame.at_ns / 1e9).toFixed(3)} s, ${mib(frame.blocks * frame.block_bytes)}`;
  };
  const drawLegend = () => {
    const name = theme();
    const swatch = (background, text) => make("span", {}, Object.assign(make("i"), { style: `background:${background}` }), text);
    if (state.mode === "space") {
      const frame = figures[figures[1].frame ? 1 : 0].frame;
      const count = data.spaces.map(() => 0);
      for (let i = 0; frame && i < frame.space.length; i += 1) {
        count[spaceOf(frame, i)] += 1;
      }
      const known = data.spaces.map((s, i) => [s, i]).filter(([, i]) => count[i] || frames.some((f) => f.space.includes(data.letters[i])));
      legend.replaceChildren(...known.map(([s, i]) => {
        const bytes = count[i] * frame.per_cell * frame.block_bytes;
        return swatch(SPACES[name][i], `${s} ${mib(bytes)}`);
      }));
      return;
    }
    const ends = {
      used: ["nearly empty", "full"], age: ["new", "63 or more"], pins: ["none", "all"], holes: ["none", "63 or more"],
    }[state.mode];
    const stops = [0, 0.25, 0.5, 0.75, 1].map((p) => ramp(p, name)).join(",");
    const bar = make("i", { className: "ramp", style: `background:linear-gradient(90deg,${stops})` });
    legend.replaceChildren(make("span", {}, `${ends[0]} `, bar, ends[1]), swatch(SPACES[name][0], "free"), swatch(SPACES[name][1], "returned"));
  };
  const redraw = () => {
    const pair = state.side ? pairs.find((p) => p.includes(state.at)) : [state.at];
    figures.forEach((figure, i) => {
      figure.frame = pair && pair[i] !== undefined ? frames[pair[i]] : null;
      figure.figure.hidden = !figure.frame;
    });
    figures.forEach(draw);
    drawLegend();
  };
  /** So many steps there are, and this is the one that is shown. */
  const steps = () => (state.side ? pairs.length : frames.length);
  const step = () => (state.side ? pairs.findIndex((p) => p.includes(state.at)) : state.at);
  const go = (to) => {
    state.at = state.side ? pairs[to][0] : to;
    slider.value = String(to);
    redraw();
  };
  const settle = () => {
    slider.max = String(steps() - 1);
    const single = steps() < 2;
    slider.hidden = single;
    play.hidden = single;
    go(step());
  };
  const stop = () => {
    clearInterval(state.timer);
    state.timer = 0;
    play.textContent = "▶ play";
  };
  play.onclick = () => {
    if (state.timer) {
      stop();
      return;
    }
    if (step() === steps() - 1) {
      go(0);
    }
    play.textContent = "⏸ pause";
    state.timer = setInterval(() => {
      if (step() + 1 < steps()) {
        go(step() + 1);
      } else {
        stop();
      }
    }, 150);
  };
  slider.oninput = () => { stop(); go(Number(slider.value)); };
  mode.onchange = () => { state.mode = mode.value; redraw(); };
  side.onchange = () => { state.side = side.checked; settle(); };
  figures.forEach((figure) => {
    figure.canvas.onmousemove = (event) => {
      const { size, columns } = grid(figure.canvas.parentElement.clientWidth || 640);
      const column = Math.floor(event.offsetX / size);
      const rectangle = Math.floor(event.offsetY / size) * columns + column;
      const frame = figure.frame;
      const index = column < columns && rectangle < cells ? cellAt(frame, rectangle) : -1;
      if (index < 0) {
        about.textContent = "";
        return;
      }
      const of = (name) => value[frame[name].charCodeAt(index)];
      const where = mib(index * frame.per_cell * frame.block_bytes);
      const blocks = frame.per_cell === 1 ? "a block" : `${frame.per_cell} blocks`;
      const space = spaceOf(frame, index);
      about.textContent = `${blocks} at ${where}: ${data.spaces[space]}`
        + (isFree(space) ? "" : `, ${Math.round((of("used") / 63) * 100)} % in use, ${of("age")} collections old, `
          + `${of("holes")} holes, ${Math.round((of("pins") / 63) * 100)} % pinned`);
    };
    figure.canvas.onmouseleave = () => { about.textContent = ""; };
  });
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  settle();
  return {
    show: (index) => { stop(); go(index); },
    mode: (name) => { mode.value = name; state.mode = name; redraw(); },
  };
}
