// Draws charts as nas/charts describes them: positions, ticks, texts and cut error bars are given.

const COLUMN = 400;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// One chart with its title and legend. `keeps` says which marks are shown, `point` the attributes
// of a mark that can be selected.
function figure(chart, width, { titled = true, keeps = () => true, point = () => null } = {}) {
  const wide = chart.framed ? Math.max(280, width) : chart.pictures.length ? COLUMN : width || COLUMN;
  const high = chart.height * COLUMN;
  const labels = chart.y.ticks.map(([, text]) => text.length);
  const box = chart.framed
    ? { left: 14 + 7 * Math.max(0, ...labels), right: wide - 20, top: 26, bottom: high - 44 }
    : { left: 0, right: wide, top: 0, bottom: high };
  const at = {
    x: (value) => box.left + ((value - chart.x.low) / (chart.x.high - chart.x.low)) * (box.right - box.left),
    y: (value) => box.bottom - ((value - chart.y.low) / (chart.y.high - chart.y.low)) * (box.bottom - box.top),
  };
  const root = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "group", "aria-label": chart.title });
  if (chart.framed) root.append(...axes(chart, box, at));
  root.append(...chart.pictures.map((picture) => shown(picture, at)));
  for (const series of chart.series) {
    const marks = series.marks.filter((mark) => keeps(mark, series));
    if (series.line && marks.length) root.append(joined(series, marks, at));
    root.append(...marks.map((mark) => drawn(series, mark, at, point)));
  }
  for (const t of chart.texts) {
    const style = { x: at.x(t.x), y: at.y(t.y) + 4, "text-anchor": t.anchor, class: `${t.soft ? "soft small" : ""}${t.tag ? " tag" : ""}` };
    root.append(svg("text", style, t.text));
  }
  const title = titled && chart.title ? [element("p", { class: "note" }, chart.title)] : [];
  return [...title, root, ...(chart.framed || chart.pictures.length ? [legend(chart)] : [])];
}

function axes(chart, box, at) {
  const made = [];
  for (const [value, text] of chart.y.ticks) {
    const y = at.y(value);
    if (chart.y.grid) made.push(svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: y, y2: y }));
    made.push(svg("text", { class: "soft", x: box.left - 6, y: y + 4, "text-anchor": "end" }, text));
  }
  for (const [value, text] of chart.x.ticks) {
    const x = at.x(value);
    if (chart.x.grid) made.push(svg("line", { class: "gridline", x1: x, x2: x, y1: box.top, y2: box.bottom }));
    made.push(svg("text", { class: "soft", x, y: box.bottom + 18, "text-anchor": "middle" }, text));
  }
  return [
    ...made,
    svg("path", { class: "axis", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` }),
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, chart.x.label),
    svg("text", { x: 2, y: 12 }, chart.y.label),
  ];
}

function joined(series, marks, at) {
  const [first, ...rest] = marks;
  const step = series.line === "stairs" ? (m) => `H${at.x(m.x)}V${at.y(m.y)}` : (m) => `L${at.x(m.x)},${at.y(m.y)}`;
  const d = `M${at.x(first.x)},${at.y(first.y)}${rest.map(step).join("")}`;
  return svg("path", { class: `line ${series.line} role-${series.role}`, d });
}

function drawn(series, mark, at, point) {
  const attributes = point(mark, series);
  const [x, y] = [at.x(mark.x), at.y(mark.y)];
  const made = svg("g", { ...(attributes || {}), class: `role-${series.role}${attributes ? " point" : ""}` });
  if (attributes) made.append(svg("circle", { class: "halo", cx: x, cy: y, r: 11 }));
  if (series.shape === "box") made.append(...filled(series, at.x(mark.x_low), at.x(mark.x_high), at.y(mark.y_high), at.y(mark.y_low)));
  else if (series.shape === "frame") made.append(outline(at.x(mark.x_low), at.x(mark.x_high), at.y(mark.y_high), at.y(mark.y_low)));
  else if (series.shape !== "ring" && series.shape !== "tick") made.append(...errorBars(mark, at));
  made.append(...shape(series.shape, x, y));
  return made;
}

function filled(series, left, right, top, bottom) {
  const made = [svg("rect", { class: `box ${series.fill}`, x: left, y: top, width: Math.max(0, right - left), height: bottom - top })];
  if (series.fill !== "hatched") return made;
  for (let x = left; x < right; x += 6) {
    const across = Math.min(right - x, bottom - top);
    made.push(svg("path", { class: "bar", d: `M${x},${bottom}l${across},${-across}` }));
  }
  return made;
}

function outline(left, right, top, bottom) {
  return svg("rect", { class: "frame", x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
}

// A picture as a canvas: the page's policy allows no image, not even one inside the page.
function shown(picture, at) {
  const canvas = element("canvas", { width: picture.width, height: picture.height, class: "pixels" });
  const bytes = Uint8Array.from(atob(picture.pixels), (character) => character.charCodeAt(0));
  const drawing = canvas.getContext("2d");
  const image = drawing.createImageData(picture.width, picture.height);
  for (let i = 0; i < picture.width * picture.height; i += 1) {
    image.data.set([bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2], 255], 4 * i);
  }
  drawing.putImageData(image, 0, 0);
  const [x, y] = [at.x(picture.x_low), at.y(picture.y_high)];
  const size = { width: at.x(picture.x_high) - x, height: at.y(picture.y_low) - y };
  return svg("foreignObject", { x, y, ...size }, canvas);
}

function errorBars(mark, at) {
  const [x, y] = [at.x(mark.x), at.y(mark.y)];
  const ends = { left: [at.x(mark.x_low), y], right: [at.x(mark.x_high), y], bottom: [x, at.y(mark.y_low)], top: [x, at.y(mark.y_high)] };
  return [
    svg("path", { class: "bar", d: `M${ends.left}L${ends.right}M${ends.bottom}L${ends.top}` }),
    ...mark.cut.map((side) => arrow(side, ...ends[side])),
  ];
}

function arrow(side, x, y) {
  const back = { left: "l6,-3v6", right: "l-6,-3v6", bottom: "l-3,-6h6", top: "l-3,6h6" }[side];
  return svg("path", { class: "mark cut", d: `M${x},${y}${back}Z` });
}

function shape(name, x, y) {
  const diamond = (r) => `M${x},${y - r}l${r},${r}l${-r},${r}l${-r},${-r}z`;
  if (name === "square") return [svg("rect", { class: "mark", x: x - 5, y: y - 5, width: 10, height: 10 })];
  if (name === "circle") return [svg("circle", { class: "mark", cx: x, cy: y, r: 4 })];
  if (name === "diamond") return [svg("path", { class: "mark", d: diamond(5) })];
  if (name === "ring") return [svg("path", { class: "ring", d: diamond(10) })];
  return name === "tick" ? [svg("path", { class: "bar", d: `M${x},${y - 10}v8` })] : [];
}

function legend(chart) {
  const entry = (role, text, ...shapes) =>
    element("span", {}, svg("svg", { class: `role-${role}`, width: 20, height: 20, viewBox: "0 0 20 20" }, ...shapes), text);
  const entries = chart.series.filter((s) => s.label).map((s) =>
    entry(s.role, s.label, ...(s.shape === "box" ? filled(s, 2, 18, 6, 14) : s.shape === "frame" ? [outline(3, 17, 5, 15)] : shape(s.shape, 10, s.shape === "tick" ? 16 : 10))));
  if (chart.cut) entries.push(entry("guide", chart.cut, arrow("top", 10, 6)));
  return element("div", { class: "legend", "aria-hidden": "true" }, ...entries);
}
