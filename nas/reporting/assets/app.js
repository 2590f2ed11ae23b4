// State, events, and the polling of a live page.

const POLL_MS = 2000;
const get = (id) => document.getElementById(id);
let data = JSON.parse(get("data").textContent);
const view = { budget: Infinity, least: 0, frontOnly: false, selected: null, by: "evaluations", order: [] };
view.keeps = (t) => t.energy_j <= view.budget && t.quality >= view.least && (!view.frontOnly || t.place === "front");

function trialOf(number) {
  return data.trials.find((t) => t.trial === number);
}

function pointOf(number) {
  return get("plot").querySelector(`[data-trial="${number}"]`);
}

function ends() {
  const energies = data.trials.filter(isPoint).map((t) => t.energy_j);
  return [Math.min(...energies), Math.max(...energies)];
}

function render() {
  const focused = document.activeElement && document.activeElement.getAttribute("data-trial");
  const label = meterLabel(data.provenance.meter, data.provenance.is_estimate);
  get("kicker").textContent = `JouleNAS, ${data.task} on ${data.provenance.device}`;
  get("title").textContent = data.run;
  metric = data.metric;
  get("front-head").textContent = `${capital(metric.name)} against joules`;
  const least = metric.scale === "bits" ? "most" : "least";
  get("quality").setAttribute("aria-label", `${least} ${metric.name}${metric.scale === "percent" ? " in percent" : ""}`);
  get("quality-sense").textContent = `at ${least}`;
  get("quality-unit").textContent = metric.scale === "percent" ? "%" : metric.name;
  get("budget").setAttribute("aria-label", `most joules per ${data.unit}`);
  get("budget-text").setAttribute("aria-label", `most joules per ${data.unit}, such as 20 uJ`);
  get("test-note").textContent = `Test ${metric.name} is recorded and never used to choose.`;
  get("bars-note").textContent = `Bars are 95% intervals of joules and standard errors of ${metric.name}; an arrow head marks one that goes on beyond the frame. ` +
    "Point for figures; click, or move with the arrow keys and press Enter, for a trial's card.";
  const ended = data.summary.finished ? "search ended" : `${data.summary.in_flight} trials in flight`;
  const estimate = data.provenance.is_estimate ? element("span", { class: "badge" }, "joules are an estimate") : null;
  get("status").replaceChildren(...[`${ended}; meter: ${label} `, estimate].filter((x) => x !== null));
  get("footer").textContent = `Written ${data.written} from ${data.run}, which started ${data.started}.`;
  drawTiles(get("tiles"), data);
  drawPicture();
  drawCard(get("card"), trialOf(view.selected), data, close);
  drawProgress(get("progress"), get("progress-note"), data, view.by);
  drawAccount(get("account"), data);
  drawFidelity(get("fidelity-section"), data);
  drawProvenance(get("provenance"), data);
  if (focused !== null && pointOf(focused)) focusOn(Number(focused));
}

// What a filter or a choice changes.
function drawPicture() {
  view.order = drawFront(get("plot"), data, view);
  drawLegend(get("legend"), data);
  drawMembers(get("members"), data, view, choose);
  const front = view.order.filter((t) => t.place === "front").length;
  const all = data.trials.filter(isPoint).length;
  get("shown").textContent = `${view.order.length} of ${all} trials shown, ${front} on the front`;
  const first = view.order.find((t) => t.trial === view.selected) || view.order.find((t) => t.place === "front") || view.order[0];
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
  drawPicture();
  drawCard(get("card"), trialOf(number), data, close);
  get("card").focus({ preventScroll: false });
}

function close() {
  const before = view.selected;
  view.selected = null;
  drawPicture();
  drawCard(get("card"), null, data, close);
  get("tooltip").hidden = true;
  if (before !== null && pointOf(before)) focusOn(before);
}

function showTooltip(point) {
  const trial = trialOf(Number(point.getAttribute("data-trial")));
  const tip = get("tooltip");
  tip.textContent = pointLabel(trial);
  tip.hidden = false;
  const at = point.querySelector(".halo").getBoundingClientRect();
  const left = Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  // By the object model: the policy refuses style attributes, not this.
  tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
  tip.style.top = `${at.bottom + 6 + window.scrollY}px`;
}

function applyBudget(value) {
  const [low, high] = ends();
  view.budget = value;
  const share = Math.log(value / low) / Math.log(high / low || 2);
  get("budget").value = Number.isFinite(value) ? Math.round(1000 * Math.min(1, Math.max(0, share))) : 1000;
  get("budget").setAttribute("aria-valuetext", Number.isFinite(value) ? joules(value) : "no budget");
  drawPicture();
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
    const at = view.order.findIndex((t) => t.trial === number);
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: view.order.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") choose(number);
    else if (to === undefined) return;
    else if (view.order[to]) focusOn(view.order[to].trial);
    event.preventDefault();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && view.selected !== null) close(); });
  get("budget").addEventListener("input", () => {
    const [low, high] = ends();
    const position = Number(get("budget").value);
    const value = position >= 1000 ? Infinity : low * (high / low) ** (position / 1000) * (1 + 1e-9);
    get("budget-text").value = position >= 1000 ? "" : joules(value);
    get("budget-text").setAttribute("aria-invalid", "false");
    applyBudget(value);
  });
  get("budget-text").addEventListener("input", () => {
    const text = get("budget-text").value;
    const value = text.trim() === "" ? Infinity : parseJoules(text);
    get("budget-text").setAttribute("aria-invalid", String(Number.isNaN(value)));
    if (!Number.isNaN(value)) applyBudget(value);
  });
  get("quality").addEventListener("input", () => { const text = get("quality").value; view.least = text === "" ? 0 : qualityShare(Number(text)); drawPicture(); });
  get("front-only").addEventListener("change", () => { view.frontOnly = get("front-only").checked; drawPicture(); });
  get("filter").addEventListener("submit", (event) => event.preventDefault());
  get("filter").addEventListener("reset", () => {
    Object.assign(view, { budget: Infinity, least: 0, frontOnly: false });
    get("budget-text").setAttribute("aria-invalid", "false");
    drawPicture();
  });
  for (const radio of document.getElementsByName("by")) {
    radio.addEventListener("change", () => { view.by = radio.value; drawProgress(get("progress"), get("progress-note"), data, view.by); });
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
    if (fresh.version !== data.version) { data = fresh; render(); }
  } catch (error) {
    document.documentElement.setAttribute("data-contact", "no");
    get("status").textContent = `no answer from nas report (${error.message}); asking again`;
  }
  window.setTimeout(poll, POLL_MS);
}

wire();
render();
if (document.documentElement.getAttribute("data-live") === "yes") window.setTimeout(poll, POLL_MS);
