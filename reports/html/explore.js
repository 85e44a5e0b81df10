"use strict";
// The explorer: its form is the state; every change asks for a forecast and draws it.
(() => {
const { draw, node, seconds, binary, percent, si, digits } = window.roofcast;
const form = document.getElementById("asked"), place = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") || "";
const NUMBERS = ["batch", "sequence", "devices", "tp", "pp", "ep", "zero"], TEXTS = ["mode", "precision", "recompute"];
const SPAN = 3; // a slider goes from 2^-3 to 2^3
const REST = 250; // ms without a move after which all is asked that takes longer
let factors = {}, past = [], shown = "", running = false, again = null, last = null, resting = 0;

function asked() {
  const field = name => form.elements[name].value.trim(), options = {};
  for (const name of TEXTS) if (field(name)) options[name] = field(name);
  for (const name of NUMBERS) if (field(name)) options[name] = Number(field(name));
  const changed = Object.fromEntries(Object.entries(factors).filter(([, x]) => x !== 1));
  return { model: field("model"), device: field("device"), pasted: form.elements.pasted.value, options, factors: changed };
}
function fill(wanted) {
  for (const name of ["model", "device", "pasted"]) form.elements[name].value = wanted[name] ?? "";
  for (const name of [...TEXTS, ...NUMBERS]) form.elements[name].value = wanted.options[name] ?? (name === "mode" ? "train" : "");
  factors = { ...wanted.factors };
  place("sliders").replaceChildren();
}
function send(path) {
  return fetch(path, { method: "POST", headers: { "Content-Type": "application/json", "X-Token": token }, body: JSON.stringify(asked()) });
}
// a slider that moves gets a quick answer, one that rests the whole one: with what changed nothing,
// and what would make the step fit. One request at a time; of the moves meanwhile only the last counts
async function ask(path = "/forecast") {
  clearTimeout(resting);
  document.body.dataset.state = "moving";
  if (running) { again = path; return; }
  running = true;
  const wanted = JSON.stringify(asked());
  try {
    const reply = await send(path), found = await reply.json();
    place("error").textContent = found.error || "";
    if (!found.error) {
      last = window.roofcast.last = found; show(found);
      if (path !== "/move") settled(wanted);
    }
  } catch (error) { place("error").textContent = "The server has stopped; start roofcast explore again."; }
  running = false;
  document.body.dataset.answered = String(1 + Number(document.body.dataset.answered || 0));
  if (again) { const next = again; again = null; ask(next); }
  else if (path === "/move") resting = setTimeout(() => ask(), REST);
  else document.body.dataset.state = "settled";
}
function settled(wanted) { // a state to come back to
  if (shown && shown !== wanted) past.push(shown);
  shown = wanted;
  place("undo").disabled = !past.length;
  history.replaceState(null, "", `#${encodeURIComponent(wanted)}`);
}
function sliders(numbers) {
  const holder = place("sliders"), key = JSON.stringify(numbers.map(([name]) => name));
  if (holder.dataset.numbers !== key || !holder.children.length) {
    holder.dataset.numbers = key;
    factors = Object.fromEntries(Object.entries(factors).filter(([name]) => numbers.some(([n]) => n === name)));
    holder.replaceChildren(...numbers.map(([name]) => {
      const input = node("input", { type: "range", min: -SPAN, max: SPAN, step: 0.125, value: Math.log2(factors[name] ?? 1), "aria-label": name, "data-number": name,
        oninput: event => { factors[name] = 2 ** Number(event.target.value); ask("/move"); } });
      return node("div", { class: "slider" }, node("span", {}, name), node("output", { "data-value": name }), input);
    }));
  }
  for (const [name, value, unit] of numbers) {
    const factor = factors[name] ?? 1, text = unit === "B" ? binary(value * factor) : si(value * factor, unit === "1" ? "" : unit);
    holder.querySelector(`[data-value="${CSS.escape(name)}"]`).textContent = factor === 1 ? text : `${text} (× ${digits(factor)})`;
  }
}
function show(found) {
  const one = found.forecasts[0], f = one.json, m = f.memory, unit = f.mode === "train" ? "step" : "pass";
  const rows = [["80 % interval", f.low_s === null ? "unknown" : `${seconds(f.low_s)} to ${seconds(f.high_s)}`],
    ["throughput", f.tokens_per_s ? `${digits(f.tokens_per_s)} tokens/s` : `${digits(f.samples_per_s)} samples/s`],
    ["roofline lower bound", seconds(f.lower_bound_s)], ["MFU", f.mfu === null ? "—" : percent(f.mfu)],
    ["peak memory", m.capacity_bytes ? `${binary(m.peak_bytes)} of ${binary(m.capacity_bytes)}` : binary(m.peak_bytes)],
    ["power", f.power_w === null ? "unknown" : `${si(f.power_w, "W")} per ${f.power_scope === "board" ? "board" : "device"}`],
    ["largest batch that fits", m.largest_batch === null ? "—" : m.largest_batch.toLocaleString("en")]];
  const near = m.low_bytes !== null && m.low_bytes < m.capacity_bytes && m.capacity_bytes < m.high_bytes;
  const fits = m.fits === null ? "memory capacity unknown" : `${near ? "may" : m.fits ? "" : "does"} ${m.fits ? "fit" : "not fit"}${near || !m.fits ? "" : "s"}`.trim();
  place("headline").replaceChildren(node("h3", {}, one.title), node("p", { class: "headline" }, `${seconds(f.step_time_s)} per ${unit}`), node("p", { class: `verdict ${m.fits === false ? "bad" : m.fits ? "good" : ""}` }, fits), node("p", { class: "quiet" }, one.what),
    node("dl", {}, ...rows.map(([label, text]) => node("div", {}, node("dt", {}, label), node("dd", {}, text)))));
  place("diagnosis").textContent = f.diagnosis;
  place("assumed").replaceChildren(...f.assumptions.map(text => node("li", {}, text)));
  for (const picture of ["roofline", "layers", "memory"]) { const at = place(picture), open = opened(at); if (picture !== "roofline") at.replaceChildren(); draw[picture](at, one, "explorer"); reopen(at, open); }
  sliders(found.numbers);
}
const path = details => { const names = []; for (let at = details; at; at = at.parentElement.closest("details")) names.push(at.querySelector(".label").textContent); return names.join("<"); };
const opened = at => new Map([...at.querySelectorAll("details")].map(d => [path(d), d.open]));
function reopen(at, open) { // lines of the tree that were open stay open
  for (let i = 0; i < 12; i++) for (const d of at.querySelectorAll("details")) { const was = open.get(path(d)); if (was !== undefined && d.open !== was) { d.open = was; d.dispatchEvent(new Event("toggle")); } }
}
function download(name, blob) { const link = node("a", { href: URL.createObjectURL(blob), download: name }); link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000); }
form.addEventListener("change", event => { if (event.target.type !== "range") ask(); });
form.addEventListener("submit", event => event.preventDefault());
place("undo").addEventListener("click", () => { const before = past.pop(); if (before) { shown = ""; fill(JSON.parse(before)); ask(); } });
place("reset").addEventListener("click", () => { factors = {}; place("sliders").replaceChildren(); ask(); });
place("share").addEventListener("click", async () => { try { await navigator.clipboard.writeText(location.href); place("error").textContent = ""; } catch { prompt("The link:", location.href); } });
place("file").addEventListener("click", () => { if (last && last.scenario) download("scenario.toml", new Blob([last.scenario], { type: "text/plain" })); else place("error").textContent = "A pasted model is saved by you: write it to a file, and name that file as model."; });
place("report").addEventListener("click", async () => { const reply = await send("/report"); if (reply.ok) download("report.html", await reply.blob()); else place("error").textContent = (await reply.json()).error; });
if (location.hash.length > 1) { try { fill(JSON.parse(decodeURIComponent(location.hash.slice(1)))); } catch { place("error").textContent = "The link holds no state of the explorer."; } }
ask();
})();
