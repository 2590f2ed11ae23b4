// The picture of all trials, and the drawing of one architecture.

const MOST_DROPPED = 2000;

function isPoint(trial) {
  return (trial.place === "front" || trial.place === "trained") && trial.energy_j > 0;
}

function pointLabel(trial) {
  const on = trial.place === "front" ? "on the front" : "not on the front";
  const baseline = trial.baseline ? ", baseline" : "";
  return `trial ${trial.trial}${baseline}, ${on}: ${quality(trial.quality)} at ` +
    `${joules(trial.energy_j)} per ${data.unit}, ${trial.text}`;
}

function drawFront(holder, data, view) {
  const points = data.trials.filter(isPoint);
  holder.replaceChildren();
  if (!points.length) {
    holder.append(element("p", {}, "No trial is complete yet."));
    return [];
  }
  const width = Math.max(280, holder.clientWidth);
  const height = Math.min(440, Math.max(300, width * 0.62));
  const box = { left: 50, right: width - 12, top: 26, bottom: height - 44 };
  const dropped = data.trials.filter((t) => t.place === "dropped" && t.predicted_energy_j > 0);
  const [low, high] = data.axis.joules;
  const x = { scale: log(low, high, box.left, box.right), ticks: logTicks(low, high).map((v) => [v, joules(v)]) };
  const y = { scale: linear(data.axis.low, data.axis.high, box.bottom, box.top), ticks: data.axis.ticks };
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `All trials: ${metric.name} against joules per ${data.unit}` });
  const p = data.provenance;
  axes(root, box, x, y, `joules per ${data.unit} (${meterLabel(p.meter, p.is_estimate)})`, `validation ${metric.name}`);
  const shown = points.filter(view.keeps);
  const step = Math.max(1, Math.ceil(dropped.length / MOST_DROPPED));
  for (const trial of view.frontOnly ? [] : dropped.filter((_, i) => i % step === 0)) {
    const at = x.scale(trial.predicted_energy_j);
    root.append(svg("line", { class: "dropped", x1: at, x2: at, y1: box.bottom - 10, y2: box.bottom - 2 }));
  }
  const front = shown.filter((t) => t.place === "front").sort((a, b) => a.energy_j - b.energy_j);
  // Of more objectives the front is no staircase in two of them.
  if (front.length && !data.costs.length) {
    let path = `M${x.scale(front[0].energy_j)},${heightOf(front[0], box, y)}`;
    for (const t of front.slice(1)) path += `H${x.scale(t.energy_j)}V${heightOf(t, box, y)}`;
    root.append(svg("path", { class: "stair", d: path }));
  }
  // Members last, so that nothing covers them.
  const ordered = [...shown].sort((a, b) => (a.place === "front") - (b.place === "front"));
  for (const trial of ordered) root.append(drawPoint(trial, box, x, y, view));
  holder.append(root);
  return [...shown].sort((a, b) => a.energy_j - b.energy_j);
}

// Where a trial stands; without a finite score, at the bottom.
function heightOf(trial, box, y) {
  return Math.min(box.bottom, y.scale(position(trial.quality)));
}

function drawPoint(trial, box, x, y, view) {
  const cx = x.scale(trial.energy_j);
  const cy = heightOf(trial, box, y);
  const at = position(trial.quality);
  const error = Number.isFinite(at) ? positionError(trial.quality, trial.quality_se) : 0;
  const made = svg("g", {
    class: `point ${trial.place}`,
    role: "button",
    tabindex: -1,
    "data-trial": trial.trial,
    "aria-label": pointLabel(trial),
    "aria-pressed": String(view.selected === trial.trial),
  });
  made.append(
    svg("circle", { class: "halo", cx, cy, r: 11 }),
    ...errorBar(box, { x: x.scale(trial.energy_low_j || trial.energy_j), y: cy }, { x: x.scale(trial.energy_high_j || trial.energy_j), y: cy }),
    ...errorBar(box, { x: cx, y: y.scale(at - error) }, { x: cx, y: y.scale(at + error) }),
    trial.place === "front"
      ? svg("rect", { x: cx - 5, y: cy - 5, width: 10, height: 10 })
      : svg("circle", { cx, cy, r: 4 }),
  );
  if (trial.baseline) made.append(svg("path", { class: "ring", d: `M${cx},${cy - 10}l10,10l-10,10l-10,-10z` }));
  return made;
}

function drawLegend(holder, data) {
  const mark = (...shapes) => svg("svg", { width: 20, height: 20, viewBox: "0 0 20 20" }, ...shapes);
  const entries = [
    ["front", mark(svg("rect", { class: "front", x: 5, y: 5, width: 10, height: 10 })), "front"],
    ["trained", mark(svg("circle", { class: "trained", cx: 10, cy: 10, r: 4 })), "trained"],
    ["dropped", mark(svg("line", { class: "dropped", x1: 10, x2: 10, y1: 5, y2: 14 })), "dropped before training, at predicted joules"],
  ].filter(([place]) => data.trials.some((t) => t.place === place));
  if (data.trials.some((t) => t.baseline)) {
    entries.push(["", mark(svg("path", { class: "ring", d: "M10,2l8,8l-8,8l-8,-8z" })), "baseline"]);
  }
  holder.replaceChildren(...entries.map(([, shape, text]) => element("span", {}, shape, text)));
}

// Blocks from the input at the bottom to the output, as wide as they are.
function drawArchitecture(trial) {
  const rowHeight = 34;
  const blocks = trial.blocks;
  const height = rowHeight * (blocks.length + 2);
  const widest = Math.max(trial.d_model, ...blocks.map((b) => b.width));
  const band = 96;
  const middle = 62 + band / 2;
  const side = 62 + band + 10;
  const root = svg("svg", { viewBox: `0 0 330 ${height}`, role: "img", "aria-label": `architecture: ${trial.text}` });
  const stream = (trial.d_model / widest) * band;
  root.append(svg("rect", { class: "stream", x: middle - stream / 2, y: 4, width: stream, height: height - 8 }));
  const end = (row, text) => root.append(
    svg("rect", { class: "plain", x: middle - stream / 2, y: row * rowHeight + 8, width: stream, height: 18 }),
    svg("text", { x: side, y: row * rowHeight + 21 }, text),
  );
  end(0, "norm and head");
  blocks.forEach((block, index) => {
    const top = (blocks.length - index) * rowHeight;
    const wide = Math.max(2, (block.width / widest) * band);
    const known = ["fp32", "bf16", "int8", "fp8", "int8wo", "int4wo"].includes(block.precision);
    root.append(
      svg("rect", { class: `p-${known ? block.precision : "other"}`, x: middle - wide / 2, y: top + 4, width: wide, height: rowHeight - 8 }),
      svg("text", { x: side, y: top + 15 }, `${block.label}, ${block.precision}`),
      svg("text", { class: "soft", x: side, y: top + 29 }, block.detail),
    );
    if (index === 0 || blocks[index - 1].layer !== block.layer) {
      const times = block.repeats > 1 ? ` ×${block.repeats}` : "";
      root.append(svg("text", { class: "soft", x: 56, y: top + 21, "text-anchor": "end" }, `${block.layer}${times}`));
    }
  });
  end(blocks.length + 1, `embedding, ${trial.d_model} wide`);
  return root;
}
