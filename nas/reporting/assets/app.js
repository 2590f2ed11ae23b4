// State, events, and the polling of a live page.

const POLL_MS = 2000;
let data, byNumber;
use(JSON.parse(get("data").textContent));
const view = { budget: Infinity, least: -Infinity, frontOnly: false, selected: null, by: 0 };

function use(fresh) {
  data = fresh;
  byNumber = new Map(data.trials.map((t) => [t.trial, t]));
}

function trialOf(number) {
  return byNumber.get(number);
}

function pointOf(number) {
  return get("plot").querySelector(`[data-trial="${number}"]`);
}

function keeps(number) {
  const t = trialOf(number);
  const quality = t.quality_at === null ? -Infinity : t.quality_at;
  return t.energy_j <= view.budget && quality >= view.least && (!view.frontOnly || t.on_front);
}

// Trials that the filter keeps, by joules.
function kept() {
  return data.trials.filter((t) => keeps(t.trial)).sort((a, b) => a.energy_j - b.energy_j);
}

// What the budget's slider selects: the joules of each trial, ascending.
function budgets() {
  return [...data.trials].sort((a, b) => a.energy_j - b.energy_j);
}

function render() {
  const focused = document.activeElement && document.activeElement.getAttribute("data-trial");
  for (const [id, text] of Object.entries(data.texts)) get(id).textContent = text;
  const badge = element("span", { class: "badge" }, "joules are an estimate");
  get("status").replaceChildren(data.texts.status, ...(data.is_estimate ? [badge] : []));
  get("written").textContent = `Written ${data.written}.`;
  get("quality").setAttribute("aria-label", data.filter.quality);
  get("quality-sense").textContent = data.filter.sense;
  get("quality-unit").textContent = data.filter.unit;
  // The attribute is what a reset of the form sets.
  for (const name of ["max", "value"]) get("budget").setAttribute(name, data.trials.length);
  for (const id of ["budget", "budget-text"]) get(id).setAttribute("aria-label", data.filter.budget);
  get("tiles").replaceChildren(...data.tiles.map(([value, name]) => element("li", {}, element("b", {}, value), name)));
  get("test-note").replaceChildren(...data.members.notes.map((note) => element("p", {}, note)));
  applyBudget(view.budget);
  drawCard(get("card"), trialOf(view.selected), close);
  drawSection("progress", data.charts.progress.slice(view.by, view.by + 1));
  for (const name of ["examples", "predictions", "importance", "fidelity"]) drawSection(name, data.charts[name] || []);
  drawAccount(get("account"), data.account);
  get("provenance").replaceChildren(...data.provenance.map(pairs));
  if (focused !== null && pointOf(focused)) focusOn(Number(focused));
}

// The parts that a filter or a selection changes.
function drawPicture() {
  const shown = kept();
  const [chart] = data.charts.front;
  const holder = get("plot");
  holder.replaceChildren(...(chart
    ? figure(chart, holder.clientWidth, {
      titled: false,
      keeps: (mark) => (mark.trial === null ? !view.frontOnly : keeps(mark.trial)),
      point: (mark, series) => (mark.trial === null || series.shape === "ring" ? null : {
        role: "button",
        tabindex: -1,
        "data-trial": mark.trial,
        "aria-label": trialOf(mark.trial).label,
        "aria-pressed": String(view.selected === mark.trial),
      }),
    })
    : [element("p", {}, "No trial is complete yet.")]));
  drawMembers(get("members"), data.members, view.selected, keeps, choose);
  const front = shown.filter((t) => t.on_front).length;
  get("shown").textContent = `${shown.length} of ${data.trials.length} trials shown, ${front} on the front`;
  const first = shown.find((t) => t.trial === view.selected) || shown.find((t) => t.on_front) || shown[0];
  if (first) pointOf(first.trial).setAttribute("tabindex", 0);
}

function focusOn(number) {
  for (const other of get("plot").querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", -1);
  const point = pointOf(number);
  point.setAttribute("tabindex", 0);
  point.focus();
}

function choose(number) {
  view.selected = number;
  get("tooltip").hidden = true;
  drawPicture();
  drawCard(get("card"), trialOf(number), close);
  get("card").focus({ preventScroll: false });
}

function close() {
  const before = view.selected;
  view.selected = null;
  drawPicture();
  drawCard(get("card"), null, close);
  get("tooltip").hidden = true;
  if (before !== null && pointOf(before)) focusOn(before);
}

function showTooltip(point) {
  const tip = get("tooltip");
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const at = point.querySelector(".halo").getBoundingClientRect();
  const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  // By the object model: the policy refuses style attributes, not this.
  tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
  tip.style.top = `${at.bottom + 6 + window.scrollY}px`;
}

function applyBudget(value) {
  view.budget = value;
  const within = budgets().filter((t) => t.energy_j <= value);
  get("budget").value = within.length;
  get("budget").setAttribute("aria-valuetext", Number.isFinite(value) ? within.map((t) => t.energy).pop() || "0 J" : "no budget");
  drawPicture();
}

// Joules of a text, NaN if it is none.
function parsedJoules(text) {
  const match = /^\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zμ]*)\s*$/i.exec(text.normalize("NFKC"));
  const value = match ? Number(match[1]) * data.filter.units[match[2]] : NaN;
  return value > 0 && Number.isFinite(value) ? value : NaN;
}

function wire() {
  const plot = get("plot");
  const pointAt = (event) => event.target.closest && event.target.closest("[data-trial]");
  plot.addEventListener("click", (event) => {
    const point = pointAt(event);
    if (point) choose(Number(point.getAttribute("data-trial")));
  });
  for (const kind of ["pointerover", "focusin"]) {
    plot.addEventListener(kind, (event) => { const point = pointAt(event); if (point) showTooltip(point); });
  }
  for (const kind of ["pointerout", "focusout"]) plot.addEventListener(kind, () => { get("tooltip").hidden = true; });
  plot.addEventListener("keydown", (event) => {
    const point = pointAt(event);
    if (!point) return;
    const number = Number(point.getAttribute("data-trial"));
    const order = kept();
    const at = order.findIndex((t) => t.trial === number);
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") choose(number);
    else if (to === undefined) return;
    else if (order[to]) focusOn(order[to].trial);
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && view.selected !== null) close(); });
  get("budget").addEventListener("input", () => {
    const trial = budgets()[Number(get("budget").value) - 1];
    const isAll = Number(get("budget").value) === data.trials.length;
    get("budget-text").value = isAll || !trial ? "" : trial.energy;
    get("budget-text").setAttribute("aria-invalid", "false");
    applyBudget(isAll ? Infinity : trial ? trial.energy_j : 0);
  });
  get("budget-text").addEventListener("input", () => {
    const text = get("budget-text").value;
    const value = text.trim() === "" ? Infinity : parsedJoules(text);
    get("budget-text").setAttribute("aria-invalid", String(Number.isNaN(value)));
    if (!Number.isNaN(value)) applyBudget(value);
  });
  get("quality").addEventListener("input", () => { const text = get("quality").value; view.least = text === "" ? -Infinity : data.filter.sign * Number(text); drawPicture(); });
  get("front-only").addEventListener("change", () => { view.frontOnly = get("front-only").checked; drawPicture(); });
  get("filter").addEventListener("submit", (event) => event.preventDefault());
  get("filter").addEventListener("reset", () => {
    Object.assign(view, { least: -Infinity, frontOnly: false });
    get("budget-text").setAttribute("aria-invalid", "false");
    applyBudget(Infinity);
  });
  for (const radio of document.getElementsByName("by")) {
    radio.addEventListener("change", () => { view.by = Number(radio.value); render(); });
  }
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; render(); } });
}

async function poll() {
  try {
    const answer = await fetch("data.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const fresh = await answer.json();
    document.documentElement.setAttribute("data-contact", "yes");
    if (fresh.version !== data.version) { use(fresh); render(); }
  } catch (error) {
    document.documentElement.setAttribute("data-contact", "no");
    get("status").textContent = `no answer from nas report (${error.message}); asking again`;
  }
  window.setTimeout(poll, POLL_MS);
}

wire();
render();
if (document.documentElement.getAttribute("data-live") === "yes") window.setTimeout(poll, POLL_MS);
