"use strict";
// The pictures of a report, drawn from the data in the page. No library, no network.
(() => {
const held = document.getElementById("data"); // of a report; the explorer asks for its data
const data = held ? JSON.parse(held.textContent) : { forecasts: [] };
const NS = "http://www.w3.org/2000/svg";
const PHASES = { forward: ["--blue", "circle"], backward: ["--vermillion", "diamond"], update: ["--green", "triangle"] };
const KINDS = { parameters: "--blue", gradients: "--vermillion", optimizer: "--green", activations: "--orange", transient: "--purple", "communication buffers": "--sky", "KV cache": "--sky", framework: "--grey" };
const breadth = () => innerWidth < 700 ? 640 : 1060; // of a picture; on a telephone its texts are larger

// ---- small helpers -------------------------------------------------------------------------
function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
function shape(name, attributes = {}, text = null) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}
const colour = name => `var(${name})`;
const formats = {};
function digits(value, least = 3) { // three significant digits, as the command prints them
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(3)))));
  const most = Math.max(0, 2 - size), key = `${most} ${least}`;
  formats[key] ||= new Intl.NumberFormat("en", { maximumFractionDigits: most, minimumFractionDigits: least ? most : 0 }); // slow to make
  return formats[key].format(value);
}
function si(value, unit, least = 3) {
  const steps = [[1e24, "Y"], [1e21, "Z"], [1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
  const [factor, prefix] = steps.find(([f]) => Math.abs(value) >= f) || [1, ""];
  return `${digits(value / factor, least)} ${prefix}${unit}`.trim();
}
function binary(value) {
  const steps = [[2 ** 50, "PiB"], [2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
  const [factor, unit] = steps.find(([f]) => Math.abs(value) >= f) || [1, "B"];
  return `${digits(value / factor)} ${unit}`;
}
function seconds(value) {
  const steps = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
  const [factor, unit] = steps.find(([f]) => Math.abs(value) >= f) || [1e-9, "ns"];
  return `${digits(value / factor)} ${unit}`;
}
function percent(value) { // as the command prints it
  const v = 100 * value;
  if (v === 0) return "0 %";
  if (v < 0.05) return "< 0.1 %";
  return `${v >= 10 ? v.toFixed(0) : v >= 1 ? v.toFixed(1) : v.toFixed(1)} %`;
}

// ---- saving a picture as PNG ----------------------------------------------------------------
async function png(svg, name) {
  const copy = svg.cloneNode(true), style = getComputedStyle(document.documentElement);
  const box = svg.viewBox.baseVal;
  copy.setAttribute("width", box.width); copy.setAttribute("height", box.height);
  const text = new XMLSerializer().serializeToString(copy)
    .replace(/var\((--[a-z]+)\)/g, (_, key) => style.getPropertyValue(key).trim());
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  await image.decode();
  const canvas = node("canvas", { width: 2 * box.width, height: 2 * box.height });
  const pen = canvas.getContext("2d");
  pen.fillStyle = style.getPropertyValue("--paper"); pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const link = node("a", { href: canvas.toDataURL("image/png"), download: name });
  link.click();
}
function save(svg, name) {
  return node("button", { type: "button", "data-save": name, onclick: () => png(svg(), `${name}.png`) }, "Save as PNG");
}
function scrolling(svg) { // a picture that a narrow page scrolls, also with the keyboard
  return node("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": svg.getAttribute("aria-label") }, svg);
}
function canvas(width, height, label) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, "font-family": "system-ui, 'DejaVu Sans', sans-serif", "font-size": 13 });
  return svg;
}
function select(label, options, change, chosen = "") {
  const field = node("select", { "aria-label": label, onchange: event => change(event.target.value) }, ...options.map(([value, text]) => node("option", { value, selected: value === chosen }, text)));
  return node("label", {}, label, field);
}
function box(label, checked, change) {
  return node("label", {}, node("input", { type: "checkbox", checked, onchange: event => change(event.target.checked) }), label);
}

// ---- roofline -------------------------------------------------------------------------------
function roofline(place, one, name) {
  const W = breadth(), H = W < 700 ? 470 : 560, LEFT = 78, RIGHT = 206, TOP = 16, BOTTOM = 52;
  const roofsOf = kind => one.roofs.filter(r => r.kind === kind).sort((a, b) => b.printed - a.printed);
  const named = list => [...new Set(list)], groupOf = p => p.name.split(".").slice(0, -1).join(".") || p.name;
  // only the picture is drawn again where other numbers leave the choices as they are
  const choices = JSON.stringify([groupOf, p => p.op, p => p.precision, p => p.phase].map(of => named(one.points.map(of)).sort()).concat(one.roofs.map(r => r.label).sort()));
  if (place.again && place.again.choices === choices) { place.again.draw(one); return; }
  place.again = null; place.replaceChildren();
  if (!one.roofs.some(r => r.kind === "compute") || !one.points.length) { place.append(node("p", {}, "No floating-point rate is known, so there is no roofline.")); return; }
  // what is chosen stays where the picture is drawn again with other numbers
  const state = place.chosen ||= { phases: new Set(Object.keys(PHASES)), kind: "", layer: "", least: 0.1, format: "", level: "", printed: true, achieved: true };
  const groups = named(one.points.map(groupOf));
  let svg, total, compute, memory, dram, xmin, xmax, ymax, ymin;
  function take(next) {
    one = next; total = one.json.step_time_s; compute = roofsOf("compute"); memory = roofsOf("memory");
    dram = memory.find(r => r.label !== "L1" && r.label !== "L2" && r.label !== "L3") || memory[memory.length - 1];
    if (!memory.some(r => r.label === state.level)) state.level = dram.label;
    const xs = one.points.map(p => p.flops / p.bytes), ys = one.points.map(p => p.flops / p.time_s), ridges = compute.map(r => r.printed / dram.printed);
    xmin = Math.min(...xs, 0.6) / 2; xmax = Math.max(...xs, ...ridges) * 3;
    ymax = compute[0].printed * 2.2; ymin = Math.max(Math.min(...ys) / 2.5, ymax / 1e6);
  }
  take(one);
  const said = node("p", { class: "told", "aria-live": "polite" }, "Point at a mark, or reach it with Tab, to read its op.");
  const holder = node("figure");
  const X = v => LEFT + (W - LEFT - RIGHT) * Math.log(v / xmin) / Math.log(xmax / xmin);
  const Y = v => H - BOTTOM - (H - TOP - BOTTOM) * Math.log(v / ymin) / Math.log(ymax / ymin);

  function axes() {
    for (let e = Math.ceil(Math.log10(xmin)); e <= Math.log10(xmax); e++) {
      svg.append(shape("line", { x1: X(10 ** e), x2: X(10 ** e), y1: TOP, y2: H - BOTTOM, stroke: colour("--grid") }));
      svg.append(shape("text", { x: X(10 ** e), y: H - BOTTOM + 18, "text-anchor": "middle", fill: colour("--quiet") }, e < 0 ? String(10 ** e) : (10 ** e).toLocaleString("en")));
    }
    for (let e = Math.ceil(Math.log10(ymin)); e <= Math.log10(ymax); e++) {
      svg.append(shape("line", { x1: LEFT, x2: W - RIGHT, y1: Y(10 ** e), y2: Y(10 ** e), stroke: colour("--grid") }));
      svg.append(shape("text", { x: LEFT - 8, y: Y(10 ** e) + 4, "text-anchor": "end", fill: colour("--quiet") }, si(10 ** e, "", 0)));
    }
    svg.append(shape("text", { x: (LEFT + W - RIGHT) / 2, y: H - 10, "text-anchor": "middle", fill: colour("--ink") }, "arithmetic intensity [FLOP per byte of device memory traffic]"));
    svg.append(shape("text", { x: 16, y: (H - BOTTOM) / 2, "text-anchor": "middle", fill: colour("--ink"), transform: `rotate(-90 16 ${(H - BOTTOM) / 2})` }, "performance [FLOP/s]"));
  }
  function line(x1, y1, x2, y2, dash, width, label) {
    const made = shape("line", { x1: X(x1), y1: Y(y1), x2: X(x2), y2: Y(y2), stroke: colour("--ink"), "stroke-width": width, "stroke-dasharray": dash, "data-roof": label });
    svg.append(made);
  }
  function slope(rate, top, dash, width, label) {
    const start = Math.max(xmin, ymin / rate);
    if (start < top / rate) line(start, start * rate, Math.min(top / rate, xmax), Math.min(top, rate * xmax), dash, width, label);
  }
  function roofs() {
    const shown = state.format ? compute.filter(r => r.precisions.includes(state.format)) : compute;
    const used = shown.length ? shown : compute;
    const level = memory.find(r => r.label === state.level) || dram;
    const names = [];
    if (state.printed) {
      slope(level.printed, used[0].printed, "none", 2, `${level.label} ${si(level.printed, "B/s")}`);
      for (const r of used) { line(Math.max(r.printed / level.printed, xmin), r.printed, xmax, r.printed, "none", 2, r.label); names.push([Y(r.printed), `${r.label}: ${si(r.printed, "FLOP/s")}`]); }
    }
    if (state.achieved) {
      if (level.achieved) slope(level.achieved, used[0].achieved || used[0].printed, "5 4", 1.5, `${level.label} achieved`);
      for (const r of used) if (r.achieved) {
        line(Math.max(r.achieved / (level.achieved || level.printed), xmin), r.achieved, xmax, r.achieved, "5 4", 1.5, `${r.label} achieved`);
        names.push([Y(r.achieved), `${r.label} achieved ${si(r.achieved, "")}`]);
      }
    }
    names.sort((a, b) => a[0] - b[0]);
    // labels that would overlap are a block around the mean of their roofs, with a line to each
    const blocks = [];
    const start = b => Math.max(b.reduce((sum, [y]) => sum + y, 0) / b.length - 7.5 * (b.length - 1), TOP + 4);
    for (const each of names) {
      blocks.push([each]);
      while (blocks.length > 1 && start(blocks.at(-2)) + 15 * blocks.at(-2).length > start(blocks.at(-1))) { const last = blocks.pop(); blocks.at(-1).push(...last); }
    }
    for (const block of blocks) block.forEach(([y, text], i) => {
      const at = start(block) + 15 * i;
      svg.append(shape("line", { x1: W - RIGHT, y1: y, x2: W - RIGHT + 16, y2: at, stroke: colour("--quiet"), "stroke-width": 0.8, "data-leader": text }));
      svg.append(shape("text", { x: W - RIGHT + 20, y: at + 4, fill: colour("--ink"), "font-size": 12 }, text));
    });
    const at = Math.max(xmin, ymin / level.printed) * 1.4;
    const angle = -Math.atan2(Y(at * level.printed) - Y(2 * at * level.printed), X(2 * at) - X(at)) * 180 / Math.PI;
    svg.append(shape("text", { x: X(at), y: Y(at * level.printed) - 7, fill: colour("--ink"), "font-size": 12, transform: `rotate(${angle} ${X(at)} ${Y(at * level.printed) - 7})` }, `${level.label}: ${si(level.printed, "B/s")}`));
  }
  function mark(p) {
    const [ink, kind] = PHASES[p.phase], x = X(p.flops / p.bytes), y = Y(Math.max(p.flops / p.time_s, ymin));
    const r = Math.max(4, 46 * Math.sqrt(p.time_s / total)) / (kind === "circle" ? 1.77 : kind === "diamond" ? 1.41 : 1.3);
    const path = kind === "diamond" ? `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z` : `M${x} ${y - r}L${x + r} ${y + 0.8 * r}L${x - r} ${y + 0.8 * r}Z`;
    const made = kind === "circle" ? shape("circle", { cx: x, cy: y, r }) : shape("path", { d: path });
    const text = `${p.name}, ${p.phase === "update" ? "optimizer" : p.phase}: ${seconds(p.time_s)} (${percent(p.time_s / total)} of the step), ${si(p.flops, "FLOP")}, ${si(p.bytes, "B")}, ${digits(p.flops / p.bytes)} FLOP/B, ${si(p.flops / p.time_s, "FLOP/s")}; ${bound(p)}`;
    for (const [key, value] of Object.entries({ fill: colour(ink), "fill-opacity": kind === "diamond" ? 0.12 : 0.5, stroke: colour(ink), "stroke-width": 1.5, tabindex: 0, role: "img", "aria-label": text, "data-mark": p.name })) made.setAttribute(key, value);
    const tell = () => { said.textContent = text; };
    made.addEventListener("mouseenter", tell); made.addEventListener("focus", tell); made.addEventListener("click", tell);
    svg.append(made);
  }
  function bound(p) {
    if (p.phase === "update") return "the optimizer is bound by memory bandwidth";
    const row = one.json.layers.find(l => l.name === p.name);
    return row ? `bound by ${row.bound}` : "";
  }
  function draw() {
    svg = canvas(W, H, `Roofline of ${one.title}`);
    axes(); roofs();
    const shown = one.points.filter(p => state.phases.has(p.phase) && (!state.kind || p.op === state.kind) && (!state.format || p.precision === state.format)
      && (!state.layer || p.name === state.layer || p.name.startsWith(state.layer + ".")) && p.time_s >= state.least / 100 * total);
    shown.forEach(mark);
    let y = TOP + 14;
    for (const [phase, [ink, kind]] of Object.entries(PHASES)) {
      if (!one.points.some(p => p.phase === phase)) continue;
      const x = LEFT + 14;
      svg.append(kind === "circle" ? shape("circle", { cx: x, cy: y, r: 6, fill: colour(ink), "fill-opacity": 0.5, stroke: colour(ink) })
        : shape("path", { d: kind === "diamond" ? `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z` : `M${x} ${y - 7}L${x + 7} ${y + 5}L${x - 7} ${y + 5}Z`, fill: colour(ink), "fill-opacity": kind === "diamond" ? 0.12 : 0.5, stroke: colour(ink) }));
      svg.append(shape("text", { x: x + 13, y: y + 4, fill: colour("--ink"), "font-size": 12 }, phase === "update" ? "optimizer" : phase));
      y += 18;
    }
    holder.replaceChildren(scrolling(svg));
    count.textContent = `${shown.length} of ${one.points.length} marks`;
  }
  const count = node("span", { class: "quiet" });
  const set = key => value => { state[key] = value; draw(); };
  const kinds = named(one.points.map(p => p.op)).sort(), formats = named(one.points.map(p => p.precision)).sort();
  if (!kinds.includes(state.kind)) state.kind = "";
  if (!groups.includes(state.layer)) state.layer = "";
  if (!formats.includes(state.format)) state.format = "";
  const slider = node("input", { type: "range", min: 0, max: 5, step: 0.05, value: state.least, "data-least": true, "aria-label": "Hide ops under this share of the step, percent", oninput: event => { state.least = +event.target.value; shareText.textContent = `${event.target.value} %`; draw(); } });
  const shareText = node("span", {}, `${state.least} %`);
  place.append(node("div", { class: "controls" },
    select("kind of op", [["", "all"], ...kinds.map(k => [k, k])], set("kind"), state.kind),
    select("layer", [["", "all"], ...groups.map(k => [k, k])], set("layer"), state.layer),
    select("format", [["", "all"], ...formats.map(k => [k, k])], set("format"), state.format),
    select("memory roof", memory.map(r => [r.label, r.label]).reverse(), set("level"), state.level),
    node("label", {}, "hide ops under", slider, shareText)),
  node("div", { class: "controls" },
    ...Object.keys(PHASES).filter(phase => one.points.some(p => p.phase === phase)).map(phase => box(phase === "update" ? "optimizer" : phase, state.phases.has(phase), on => { state.phases[on ? "add" : "delete"](phase); draw(); })),
    box("printed roofs (lines)", state.printed, set("printed")), box("achieved roofs (dashed)", state.achieved, set("achieved")), save(() => svg, `${name}-roofline`), count),
  holder, said, node("p", { class: "quiet" }, "The area of a mark is its share of the step. Printed roofs are those of the datasheet, achieved ones what long kernels sustain. Caches have a roof of their own; the intensity of a mark counts device memory traffic only."
    + (compute.some(r => r.achieved > r.printed) ? " An achieved roof above a printed one: the board runs above its printed clock." : "")));
  draw();
  place.again = { choices, draw: next => { take(next); draw(); } };
}

// ---- time by layer, as a tree that opens -----------------------------------------------------
function layers(place, one) {
  const total = one.json.step_time_s, root = { name: "", children: new Map(), time: 0 };
  for (const row of one.tree) {
    let at = root; at.time += row.time_s;
    for (const part of row.name.split(".")) {
      if (!at.children.has(part)) at.children.set(part, { name: part, children: new Map(), time: 0 });
      at = at.children.get(part); at.time += row.time_s;
    }
    at.row = row;
  }
  function join(item) { // a chain of single children is one line
    while (item.children.size === 1 && !item.row) { const [child] = item.children.values(); item = { ...child, name: `${item.name}.${child.name}` }; }
    return item;
  }
  function line(item) {
    const share = total > 0 ? item.time / total : 0;
    const detail = item.row ? [item.row.count > 1 ? `× ${item.row.count}` : "", item.row.bound ? `bound by ${item.row.bound}` : ""].filter(Boolean).join(", ") : "";
    const bar = node("i"); bar.style.width = `${Math.min(100 * share, 100)}%`;
    return node("span", { class: "row" }, node("span", { class: "label", title: detail }, item.name + (detail ? ` (${detail})` : "")), node("span", { class: "bar", "aria-hidden": "true" }, bar), node("span", { class: "number" }, `${seconds(item.time)}, ${percent(share)}`));
  }
  function list(item, open) {
    const children = [...item.children.values()].map(join).sort((a, b) => b.time - a.time);
    return node("ul", { class: "tree" }, ...children.map(child => {
      if (!child.children.size) return node("li", { class: "leaf" }, line(child));
      const summary = node("summary", {}, line(child)); summary.querySelector(".row").style.display = "inline-grid"; summary.querySelector(".row").style.width = "calc(100% - 1.2rem)";
      const details = node("details", { open }, summary);
      const fill = () => { if (details.children.length === 1) details.append(list(child, false)); };
      if (open) fill(); details.addEventListener("toggle", fill);
      return node("li", {}, details);
    }));
  }
  place.append(list(root, one.tree.length < 60), node("p", { class: "quiet" }, "Forward and backward passes of all repetitions. Open a line to see its parts."));
}

// ---- memory ---------------------------------------------------------------------------------
function memory(place, one, name) {
  const W = breadth(), LEFT = 78, RIGHT = 16, m = one.json.memory, capacity = m.capacity_bytes;
  const moments = one.memory.moments, H = moments.length > 1 ? 330 : 96;
  const svg = canvas(W, H, `Memory of ${one.title}: ${binary(m.peak_bytes)} at peak`);
  svg.setAttribute("role", "img");
  const top = Math.max(capacity || 0, m.peak_bytes) * 1.06;
  if (moments.length > 1) {
    const base = H - 46, X = i => LEFT + (W - LEFT - RIGHT) * i / moments.length, Y = v => base - (base - 14) * v / top, step = (W - LEFT - RIGHT) / moments.length;
    moments.forEach((moment, i) => {
      let at = 0;
      for (const [kind, ink] of Object.entries(KINDS)) {
        const bytes = moment[kind]; if (!bytes) continue;
        const rect = shape("rect", { x: X(i), y: Y(at + bytes), width: Math.max(step - 1, 0.5), height: Math.max(Y(at) - Y(at + bytes), 0), fill: colour(ink), "fill-opacity": 0.75 });
        rect.append(shape("title", {}, `${moment.moment}: ${kind} ${binary(bytes)}, together ${binary(moment.total)}`));
        svg.append(rect); at += bytes;
      }
    });
    for (let i = 0; i <= 4; i++) { const v = top * i / 4; svg.append(shape("text", { x: LEFT - 6, y: Y(v) + 4, "text-anchor": "end", fill: colour("--quiet"), "font-size": 12 }, i ? binary(v) : "0")); }
    if (capacity) { svg.append(shape("line", { x1: LEFT, x2: W - RIGHT, y1: Y(capacity), y2: Y(capacity), stroke: colour("--ink"), "stroke-dasharray": "6 4" })); svg.append(shape("text", { x: W - RIGHT, y: Y(capacity) - 5, "text-anchor": "end", fill: colour("--ink"), "font-size": 12 }, `capacity ${binary(capacity)}`)); }
    svg.append(shape("text", { x: (LEFT + W - RIGHT) / 2, y: base + 18, "text-anchor": "middle", fill: colour("--quiet") }, "through the backward pass, from the last layer to the first, then the optimizer"));
    legend(svg, H - 8, LEFT, Object.keys(KINDS).filter(kind => moments.some(x => x[kind])));
  } else {
    const X = v => LEFT + (W - LEFT - RIGHT) * v / top; let at = 0; const used = [];
    for (const [label, bytes] of one.memory.kinds) {
      const kind = Object.keys(KINDS).find(k => label.startsWith(k)) || "transient";
      const rect = shape("rect", { x: X(at), y: 14, width: Math.max(X(at + bytes) - X(at) - 1, 0.5), height: 34, fill: colour(KINDS[kind]), "fill-opacity": 0.75 });
      rect.append(shape("title", {}, `${label}: ${binary(bytes)}`)); svg.append(rect); at += bytes; if (!used.includes(kind)) used.push(kind);
    }
    if (capacity) { svg.append(shape("line", { x1: X(capacity), x2: X(capacity), y1: 6, y2: 56, stroke: colour("--ink"), "stroke-dasharray": "6 4" })); svg.append(shape("text", { x: X(capacity), y: 68, "text-anchor": "end", fill: colour("--ink"), "font-size": 12 }, `capacity ${binary(capacity)}`)); }
    legend(svg, H - 8, LEFT, used);
  }
  place.append(scrolling(svg), node("div", { class: "controls" }, save(() => svg, `${name}-memory`)));
}
function legend(svg, y, x, kinds) {
  for (const kind of kinds) {
    svg.append(shape("rect", { x, y: y - 10, width: 12, height: 12, fill: colour(KINDS[kind]), "fill-opacity": 0.75 }));
    svg.append(shape("text", { x: x + 17, y, fill: colour("--ink"), "font-size": 12 }, kind));
    x += 34 + 7.2 * kind.length;
  }
}

// ---- pipeline -------------------------------------------------------------------------------
function pipeline(place, one, name) {
  const p = one.pipeline;
  if (!p || !p.events.length) { place.append(node("p", {}, p && p.why_not ? `Not drawn: ${p.why_not}` : "Not drawn.")); return; }
  const stages = Math.max(...p.events.map(e => e[0])) + 1, end = p.shown < p.all ? Math.max(...p.events.map(e => e[2] + e[3])) : p.end_s;
  const W = breadth(), LEFT = 78, RIGHT = 16, row = Math.max(8, Math.min(26, 420 / stages)), H = stages * row + 64;
  const svg = canvas(W, H, `Pipeline of ${one.title}: ${stages} stages over ${seconds(end)}`); svg.setAttribute("role", "img");
  const X = t => LEFT + (W - LEFT - RIGHT) * t / end;
  for (const [stage, label, start, long] of p.events) {
    const ink = /^B|backward/.test(label) ? "--vermillion" : /^W/.test(label) ? "--purple" : label === "optimizer" ? "--green" : "--blue";
    const rect = shape("rect", { x: X(start), y: 6 + stage * row, width: Math.max(X(start + long) - X(start), 0.4), height: row - 2, fill: colour(ink), "fill-opacity": 0.75, stroke: colour("--paper"), "stroke-width": 0.4 });
    rect.append(shape("title", {}, `stage ${stage + 1}, ${label}: ${seconds(long)} from ${seconds(start)}`)); svg.append(rect);
  }
  const every = Math.ceil(stages / 20);
  for (let i = 0; i < stages; i += every) svg.append(shape("text", { x: LEFT - 8, y: 6 + i * row + row / 2 + 4, "text-anchor": "end", fill: colour("--quiet"), "font-size": 12 }, `stage ${i + 1}`));
  for (let i = 0; i <= 4; i++) svg.append(shape("text", { x: X(end * i / 4), y: stages * row + 24, "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle", fill: colour("--quiet"), "font-size": 12 }, i ? seconds(end * i / 4) : "0"));
  let x = LEFT;
  for (const [ink, text] of [["--blue", "forward"], ["--vermillion", "backward"], ["--purple", "gradients of weights"], ["--green", "optimizer"]]) {
    if (!p.events.some(([, label]) => ink === (/^B|backward/.test(label) ? "--vermillion" : /^W/.test(label) ? "--purple" : label === "optimizer" ? "--green" : "--blue"))) continue;
    svg.append(shape("rect", { x, y: H - 20, width: 12, height: 12, fill: colour(ink), "fill-opacity": 0.75 })); svg.append(shape("text", { x: x + 17, y: H - 10, fill: colour("--ink"), "font-size": 12 }, text)); x += 40 + 7.2 * text.length;
  }
  place.append(scrolling(svg), node("div", { class: "controls" }, save(() => svg, `${name}-pipeline`),
    p.shown < p.all ? node("span", { class: "quiet" }, `The first ${p.shown.toLocaleString("en")} of ${p.all.toLocaleString("en")} passes; roofcast trace writes all of them.`) : ""));
}

// ---- sensitivity ----------------------------------------------------------------------------
function sensitivity(place, one, name) {
  const rows = one.sensitivity.filter(e => e.better_s > 0).sort((a, b) => b.better_s - a.better_s).slice(0, 14);
  if (!rows.length) { place.append(node("p", {}, "No number of the hardware would make the step shorter.")); return; }
  const W = breadth(), LEFT = W < 700 ? 170 : 220, RIGHT = 130, row = 26, H = rows.length * row + 66, total = one.json.step_time_s;
  const X = v => LEFT + (W - LEFT - RIGHT) * v / rows[0].better_s;
  const svg = canvas(W, H, `What a number twice as good saves of the step of ${one.title}`); svg.setAttribute("role", "img");
  rows.forEach((e, i) => {
    const y = 8 + i * row, ink = colour(e.rate ? "--blue" : "--orange");
    svg.append(shape("rect", { x: LEFT, y, width: Math.max(X(e.better_s) - LEFT, 1), height: row - 8, fill: ink, "fill-opacity": e.rate ? 0.75 : 0.35, stroke: ink }));
    svg.append(shape("text", { x: LEFT - 10, y: y + 13, "text-anchor": "end", fill: colour("--ink") }, e.number));
    svg.append(shape("text", { x: X(e.better_s) + 6, y: y + 13, fill: colour("--ink"), "font-size": 12 }, `${seconds(e.better_s)}, ${percent(e.better_s / total)}`));
  });
  svg.append(shape("line", { x1: LEFT, x2: LEFT, y1: 4, y2: rows.length * row + 4, stroke: colour("--ink") }));
  svg.append(shape("text", { x: LEFT, y: H - 36, fill: colour("--quiet") }, "time of the step that a number twice as good saves"));
  let x = LEFT;
  for (const [rate, text] of [[true, "a rate, doubled"], [false, "a latency, halved"]]) {
    if (!rows.some(e => e.rate === rate)) continue;
    const ink = colour(rate ? "--blue" : "--orange");
    svg.append(shape("rect", { x, y: H - 22, width: 12, height: 12, fill: ink, "fill-opacity": rate ? 0.75 : 0.35, stroke: ink }));
    svg.append(shape("text", { x: x + 18, y: H - 12, fill: colour("--ink"), "font-size": 12 }, text)); x += 150;
  }
  place.append(scrolling(svg), node("div", { class: "controls" }, save(() => svg, `${name}-sensitivity`)));
}

// ---- page -----------------------------------------------------------------------------------
const draw = { roofline, layers, memory, pipeline, sensitivity };
for (const section of document.querySelectorAll("section.forecast")) {
  const one = data.forecasts[+section.dataset.index];
  const name = one.title.replace(/[^A-Za-z0-9.-]+/g, "-");
  for (const place of section.querySelectorAll("[data-picture]")) draw[place.dataset.picture](place, one, name);
}
window.roofcast = { draw, node, seconds, binary, percent, si, digits };
const theme = document.getElementById("theme"), dark = () => document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const label = () => { theme.textContent = dark() ? "Light colours" : "Dark colours"; theme.setAttribute("aria-pressed", String(dark())); };
theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
label();
})();
