// Figures as people read them, and budgets as they write them.

const JOULES = [["kJ", 1e3], ["J", 1], ["mJ", 1e-3], ["µJ", 1e-6], ["nJ", 1e-9]];
const SCALES = { "": 1, j: 1, kj: 1e3, mj: 1e-3, uj: 1e-6, "µj": 1e-6, "μj": 1e-6, nj: 1e-9 };

function digits(value) {
  const text = Number(value.toPrecision(3));
  return Math.abs(text) >= 1e5 ? text.toExponential(2) : String(text);
}

function joules(value) {
  if (value === null || value === undefined) return "unknown";
  const [unit, scale] = JOULES.find(([, s]) => value >= s * 0.9995) || ["J", 1];
  return `${digits(value / scale)} ${unit}`;
}

// Joules in what was typed, NaN where it is none.
function parseJoules(text) {
  const match = /^\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zµμ]*)\s*$/i.exec(text);
  const scale = match ? SCALES[match[2].toLowerCase()] : undefined;
  const value = scale === undefined ? NaN : Number(match[1]) * scale;
  return value > 0 && Number.isFinite(value) ? value : NaN;
}

function percent(value, places = 2) {
  return value === null || value === undefined ? "unknown" : `${(100 * value).toFixed(places)}%`;
}

// What qualities are of the task: shares in [0, 1], which people read in the metric's own unit.
let metric = { name: "accuracy", scale: "percent" };

function quality(share, places = 2) {
  if (share === null || share === undefined) return "unknown";
  if (metric.scale === "percent") return percent(share, places);
  return metric.scale === "bits" ? (-Math.log2(share)).toFixed(places + 1) : (100 * share).toFixed(places);
}

function qualityError(share, error) {
  if (metric.scale !== "bits") return quality(error);
  return (error / (share * Math.LN2)).toFixed(3);
}

// Where a share stands on an axis of quality: linear in what is printed, better is higher.
function position(share) {
  return metric.scale === "bits" ? Math.log2(share) : 100 * share;
}

function positionError(share, error) {
  return metric.scale === "bits" ? error / (share * Math.LN2) : 100 * error;
}

// The share of a score that was typed: percent, hundredths, or bits, where less is better.
function qualityShare(score) {
  return metric.scale === "bits" ? 2 ** -score : score / 100;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function whole(value) {
  return value === null || value === undefined ? "unknown" : Math.round(value).toLocaleString("en");
}

function bytes(value) {
  if (value === null || value === undefined) return "unknown";
  const [unit, scale] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, s]) => value >= s) || ["B", 1];
  return `${digits(value / scale)} ${unit}`;
}

function grams(value) {
  const [unit, scale] = [["t", 1e6], ["kg", 1e3], ["g", 1]].find(([, s]) => value >= s) || ["mg", 1e-3];
  return `${digits(value / scale)} ${unit}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${digits(seconds / 3600)} h`;
}

function meterLabel(meter, isEstimate) {
  return isEstimate && meter !== "estimate" ? `${meter}, estimate` : meter;
}
