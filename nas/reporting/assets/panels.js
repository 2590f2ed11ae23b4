// Everything beside the main picture: tiles, the card, tables, progress, account, provenance.

function pairs(rows) {
  const kept = rows.filter(([, value]) => value !== null && value !== undefined);
  return element("dl", {}, ...kept.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function drawTiles(holder, data) {
  const s = data.summary;
  const front = data.trials.filter((t) => t.place === "front");
  const label = meterLabel(s.meter, s.is_estimate);
  const tiles = [
    [`${s.complete + s.stopped + s.failed} of ${data.trials_asked}`, "trials evaluated"],
    [String(s.dropped), "dropped by the gate"],
    [String(front.length), "on the front"],
    [front.length ? quality(Math.max(...front.map((t) => t.quality))) : "none yet", `best ${metric.name}`],
    [front.length ? joules(Math.min(...front.map((t) => t.energy_j))) : "none yet", `fewest per ${data.unit}${data.provenance.is_estimate ? " (estimate)" : ""}`],
    [joules(s.spent_energy_j), `spent (${label})`],
  ];
  holder.replaceChildren(...tiles.map(([value, name]) => element("li", {}, element("b", {}, value), name)));
}

function interval(trial) {
  return trial.energy_low_j ? ` [${joules(trial.energy_low_j)}, ${joules(trial.energy_high_j)}]` : "";
}

function flagTexts(flags) {
  return flags.map((f) => (f.text === f.flag ? f.flag : `${f.flag}: ${f.text}`)).join("; ");
}

function drawCard(holder, trial, data, close) {
  if (!trial) {
    holder.replaceChildren(element("p", { class: "note" }, "No trial is chosen."));
    return;
  }
  const button = element("button", { type: "button", class: "close" }, "close");
  button.addEventListener("click", close);
  const kind = trial.joules === "predicted" ? "predicted" : meterLabel(data.provenance.meter, trial.is_estimate);
  const predicted = trial.predicted_energy_j
    ? `${joules(trial.predicted_energy_j)} [${joules(trial.predicted_low_j)}, ${joules(trial.predicted_high_j)}]`
    : null;
  holder.replaceChildren(
    button,
    element("h3", {}, `trial ${trial.trial}${trial.baseline ? " (baseline)" : ""}: ${trial.text}`),
    pairs([
      ["place", trial.place === "front" ? "on the front" : trial.place === "trained" ? "dominated" : trial.place],
      ["why", trial.reason],
      [metric.name, trial.quality === null ? null : `${quality(trial.quality)} ± ${qualityError(trial.quality, trial.quality_se)} (validation)`],
      [`test ${metric.name}`, trial.test_quality === null ? null : `${quality(trial.test_quality)} (never chosen by)`],
      ["inherited", trial.inherited_quality === null ? null : quality(trial.inherited_quality)],
      [`joules (${kind})`, trial.energy_j === null ? null : `${joules(trial.energy_j)}${interval(trial)} per ${data.unit}`],
      ["board's limits", trial.limits || null],
      ["flags", trial.flags.length ? flagTexts(trial.flags) : null],
      ["predicted", predicted],
      ["P(Pareto)", trial.front_probability === null ? null : percent(trial.front_probability, 0)],
      ["latency", trial.latency_s === null ? null : `${digits(trial.latency_s * 1e3)} ms a batch`],
      ["parameters", trial.params === null ? null : whole(trial.params)],
      ["memory, counted", trial.peak_memory_bytes === null ? null : bytes(trial.peak_memory_bytes)],
      ["cost of search", trial.train_energy_j === null ? null : `training ${joules(trial.train_energy_j)}, measuring ${joules(trial.measure_energy_j)}`],
      ["evaluations", trial.n_evaluations > 1 ? `mean of ${trial.n_evaluations}` : null],
    ]),
    ...(trial.blocks.length ? [drawArchitecture(trial)] : []),
    element("p", { class: "note" }, `nas explain RUN ${trial.trial}; nas export RUN --trial ${trial.trial} --to model`),
  );
}

function drawMembers(table, data, view, choose) {
  const members = data.trials.filter((t) => t.place === "front" && view.keeps(t)).sort((a, b) => a.energy_j - b.energy_j);
  const head = ["trial", metric.name, `joules per ${data.unit}`, "parameters", "architecture", "P(Pareto)", `test ${metric.name}`];
  const hasFlags = members.some((t) => t.flags.length);
  const hasLimits = new Set(members.map((t) => t.limits)).size > 1;
  if (hasLimits) head.push("board's limits");
  if (hasFlags) head.push("flags");
  const rows = members.map((t) => {
    const open = element("button", { type: "button", "aria-label": `card of trial ${t.trial}` }, String(t.trial));
    open.addEventListener("click", () => choose(t.trial));
    return element("tr", { "aria-selected": String(view.selected === t.trial) },
      element("td", {}, open),
      element("td", { class: "number" }, `${quality(t.quality)} ± ${qualityError(t.quality, t.quality_se)}`),
      element("td", {}, `${joules(t.energy_j)}${interval(t)}`),
      element("td", { class: "number" }, whole(t.params)),
      element("td", { class: "long" }, t.baseline ? `${t.text} (baseline)` : t.text),
      element("td", { class: "number" }, t.front_probability === null ? "" : percent(t.front_probability, 0)),
      element("td", { class: "number" }, t.test_quality === null ? "" : quality(t.test_quality)),
      ...(hasLimits ? [element("td", {}, t.limits || "unknown")] : []),
      ...(hasFlags ? [element("td", { title: flagTexts(t.flags) }, t.flags.map((f) => f.flag).join(", "))] : []),
    );
  });
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows),
  );
}

function drawProgress(holder, note, data, by) {
  holder.replaceChildren();
  if (!data.history) {
    note.textContent = "There is no front yet.";
    return;
  }
  const steps = data.history.steps.filter((s) => s[by] > 0);
  const width = Math.max(280, holder.clientWidth);
  const box = { left: 54, right: width - 12, top: 26, bottom: 186 };
  const high = Math.max(...steps.map((s) => s[by]));
  const most = Math.max(...steps.map((s) => s.hypervolume)) * 1.08 || 1;
  const isTrials = by === "evaluations";
  const x = { scale: linear(0, high, box.left, box.right), ticks: ticks(0, high, 6).map((v) => [v, isTrials ? String(v) : joules(v)]) };
  const y = { scale: linear(0, most, box.bottom, box.top), ticks: ticks(0, most, 4).map((v) => [v, digits(v)]) };
  const root = svg("svg", { viewBox: `0 0 ${width} 232`, role: "img", "aria-label": `hypervolume reached ${digits(steps[steps.length - 1].hypervolume)}` });
  const s = data.summary;
  axes(root, box, x, y, isTrials ? "trials evaluated" : `joules spent (${meterLabel(s.meter, s.is_estimate)})`, "hypervolume");
  let path = `M${x.scale(steps[0][by])},${y.scale(steps[0].hypervolume)}`;
  for (const step of steps.slice(1)) path += `H${x.scale(step[by])}V${y.scale(step.hypervolume)}`;
  root.append(svg("path", { class: "stair", d: path }));
  holder.append(root);
  const reference = data.history.reference;
  const elapsed = steps[steps.length - 1].elapsed_s;
  note.textContent = `Hypervolume in ${metric.name === "accuracy" ? "accuracy" : "shares"} × decades, from ${quality(reference[0], 1)} and ${joules(reference[1])}` +
    (elapsed === null ? "." : `; ${duration(elapsed)} from the first trial's end to the last's.`) +
    (data.coverage ? ` Of joules predicted before training ${data.coverage.n_inside} of ${data.coverage.n} were inside their ${percent(data.coverage.asked, 0)} interval.` : "");
}

function drawAccount(holder, data) {
  const s = data.summary;
  const parts = [
    ["training", s.train_energy_j, "s0"], ["measuring", s.measure_energy_j, "s1"],
    ["teacher", s.teacher_energy_j, "s2"], ["supernet", s.supernet_energy_j, "s3"],
    ["idle", s.idle_energy_j, "s4"],
  ];
  const known = parts.filter(([, value]) => value > 0);
  const total = s.spent_energy_j || 1;
  // Widths as attributes of a drawing: the page's policy admits no inline style.
  const bar = svg("svg", { viewBox: "0 0 600 26", width: "100%", height: 26, preserveAspectRatio: "none", role: "img", "aria-label": known.map(([name, value]) => `${name} ${percent(value / total, 0)}`).join(", ") });
  const colors = { s0: "#0072b2", s1: "#e69f00", s2: "#009e73", s3: "#cc79a7", s4: "#7f7f7f" };
  let at = 0;
  for (const [, value, style] of known) {
    const wide = (value / total) * 600;
    bar.append(svg("rect", { x: at, y: 0, width: Math.max(0, wide - 1.5), height: 26, fill: colors[style] }));
    at += wide;
  }
  const rows = known.map(([name, value, style]) => [
    element("span", {}, element("span", { class: `swatch ${style}` }), ` ${name}`),
    `${joules(value)} (${percent(value / total, 0)})`,
  ]);
  if (s.idle_energy_j === null) rows.push(["idle", "not seen by this meter"]);
  rows.push(["all", `${joules(s.spent_energy_j)} (${meterLabel(s.meter, s.is_estimate)})`]);
  rows.push(["carbon", `${grams(s.carbon_g)} CO2e at ${digits(s.carbon_g_per_kwh)} g/kWh`]);
  const saving = s.saving
    ? `Trial ${s.saving.better_trial} is at least as accurate as the baseline (trial ${s.saving.baseline_trial}) on validation data with ` +
      `${digits(s.saving.baseline_energy_j / s.saving.better_energy_j)}x fewer joules; that pays for the search after ${whole(s.saving.inferences_to_break_even)} ${data.unit === "sample" ? "inference" : data.unit}s.`
    : s.baseline_trial === null ? "" : "No trial that the search found is as accurate as the baseline with fewer joules.";
  holder.replaceChildren(bar, pairs(rows), element("p", {}, saving));
}

function drawFidelity(section, data) {
  section.hidden = !data.fidelity.length;
  if (section.hidden) return;
  const f = data.summary.fidelity;
  document.getElementById("fidelity-note").textContent = f
    ? `Kendall tau ${f.tau.toFixed(2)} (95% interval ${f.low.toFixed(2)} to ${f.high.toFixed(2)}) between inherited and final qualities of ${f.n} finalists.`
    : `Not known from ${data.fidelity.length} finalists.`;
  const holder = document.getElementById("fidelity");
  const size = Math.min(360, Math.max(280, holder.clientWidth));
  const box = { left: 50, right: size - 12, top: 26, bottom: size - 44 };
  const { low, high, ticks: marks } = data.fidelity_axis;
  const x = { scale: linear(low, high, box.left, box.right), ticks: marks };
  const y = { scale: linear(low, high, box.bottom, box.top), ticks: marks };
  const root = svg("svg", { viewBox: `0 0 ${size} ${size}`, width: size, role: "img", "aria-label": `inherited against final ${metric.name} of finalists` });
  axes(root, box, x, y, `inherited ${metric.name}`, `final ${metric.name}`);
  root.append(svg("line", { class: "axis", x1: box.left, y1: box.bottom, x2: box.right, y2: box.top }));
  for (const t of data.fidelity) root.append(svg("circle", { class: "front", cx: x.scale(position(t.inherited)), cy: y.scale(position(t.own)), r: 4 }));
  holder.replaceChildren(root);
}

function drawProvenance(holder, data) {
  const p = data.provenance;
  const ways = p.readings.map((r) => pairs([
    ["meter", meterLabel(r.meter, r.is_estimate)], ["source", r.source],
    ["device", r.driver === null ? r.device : `${r.device}, driver ${r.driver}`],
    ["board", r.board], ["board's limits", r.limits || null],
    ["flags", r.flagged ? `${r.flagged} of ${r.trials} trials have flags; their cards say which` : null],
    ["workload", r.workload], ["protocol", `${p.protocol}, hash ${r.protocol_hash}`],
    ["trials", `${r.trials}, in ${r.windows} windows; ${r.converged} intervals as narrow as asked`],
    ["kind", r.is_estimate ? "an estimate: joules follow from a stated power, not from a sensor" : "measured by a sensor"],
  ]));
  const versions = Object.entries(p.versions).map(([name, value]) => `${name} ${value}`).join(", ");
  holder.replaceChildren(...ways, pairs([
    ["search", `${p.sampler}, seed ${p.seed}, space ${data.space}, started ${data.started}`],
    ["versions", versions],
  ]));
}
