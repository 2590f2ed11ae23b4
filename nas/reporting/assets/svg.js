// Elements, and the axes that all drawings share. Text is only ever set as text.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function linear(low, high, from, to) {
  const span = high > low ? high - low : 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

function log(low, high, from, to) {
  const scale = linear(Math.log10(low), Math.log10(high), from, to);
  return (value) => scale(Math.log10(value));
}

// An error bar from one point to another, cut at the frame, where an arrow head says that it goes on.
function errorBar(box, from, to) {
  const inside = (at) => ({ x: Math.min(box.right, Math.max(box.left, at.x)), y: Math.min(box.bottom, Math.max(box.top, at.y)) });
  const ends = [from, to].map(inside);
  const bar = svg("line", { "stroke-width": 1, x1: ends[0].x, y1: ends[0].y, x2: ends[1].x, y2: ends[1].y });
  const heads = [from, to].flatMap((at, i) => {
    const { x, y } = ends[i];
    const [dx, dy] = [Math.sign(at.x - x), Math.sign(at.y - y)];
    if (dx === 0 && dy === 0) return [];
    const side = `${x - 6 * dx - 3 * dy},${y - 6 * dy - 3 * dx}`;
    const other = `${x - 6 * dx + 3 * dy},${y - 6 * dy + 3 * dx}`;
    return [svg("path", { class: "cut", d: `M${x},${y}L${side}L${other}Z` })];
  });
  return [bar, ...heads];
}

// Round values between two, about as many as asked for.
function ticks(low, high, many) {
  const raw = (high - low) / many || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12); i += 1) found.push(i * step);
  return found;
}

// Values of 1, 2 and 5 in every decade, or decades alone where there are many.
function logTicks(low, high) {
  const steps = Math.log10(high / low) > 2.2 ? [1] : [1, 2, 5];
  const found = [];
  for (let p = Math.floor(Math.log10(low)); 10 ** p <= high; p += 1) {
    for (const m of steps) {
      const value = m * 10 ** p;
      if (value >= low && value <= high) found.push(value);
    }
  }
  // In a narrow frame, as of a single member, even ticks stand in for those that it lacks.
  return found.length > 1 ? found : ticks(low, high, 4);
}

// A frame of axes in `box` = {left, right, top, bottom}, with labels that fit its width.
function axes(root, box, x, y, xLabel, yLabel) {
  for (const [value, text] of y.ticks) {
    const at = y.scale(value);
    root.append(
      svg("line", { class: "gridline", x1: box.left, x2: box.right, y1: at, y2: at }),
      svg("text", { class: "soft", x: box.left - 6, y: at + 4, "text-anchor": "end" }, text),
    );
  }
  let free = -Infinity;
  for (const [value, text] of x.ticks) {
    const at = x.scale(value);
    root.append(svg("line", { class: "axis", x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 }));
    const half = text.length * 3.6;
    if (at - half < free) continue;
    free = at + half + 6;
    root.append(
      svg("text", { class: "soft", x: at, y: box.bottom + 18, "text-anchor": "middle" }, text),
    );
  }
  root.append(
    svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, xLabel),
    svg("text", { x: 2, y: 12 }, yLabel),
  );
}
