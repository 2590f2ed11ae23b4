// Cards, tables and lists: texts of the page's data in elements.

const get = (id) => document.getElementById(id);

function pairs(rows) {
  return element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function drawCard(holder, trial, close) {
  if (!trial) {
    holder.replaceChildren(element("p", { class: "note" }, "No trial is selected."));
    return;
  }
  const button = element("button", { type: "button", class: "close" }, "close");
  button.addEventListener("click", close);
  holder.replaceChildren(
    button,
    element("h3", {}, trial.title),
    pairs(trial.card),
    element("div", { class: "plot" }, ...figure(trial.chart, 0, { titled: false })),
    element("p", { class: "note" }, trial.commands),
  );
}

function drawMembers(table, members, selected, keeps, choose) {
  const rows = members.rows.filter(([trial]) => keeps(Number(trial))).map(([trial, ...cells]) => {
    const open = element("button", { type: "button", "aria-label": `card of trial ${trial}` }, trial);
    open.addEventListener("click", () => choose(Number(trial)));
    const style = (i) => ({ class: members.right[i + 1] ? "number" : members.head[i + 1] === "architecture" ? "long" : "" });
    return element("tr", { "aria-selected": String(selected === Number(trial)) },
      element("td", {}, open), ...cells.map((text, i) => element("td", style(i), text)));
  });
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...members.head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows),
  );
}

function drawAccount(holder, account) {
  const roles = new Set(account.chart.series.map((series) => series.role));
  const rows = account.rows.map(([name, text]) =>
    [element("span", {}, ...(roles.has(name) ? [element("span", { class: `swatch role-${name}` }), " "] : []), name), text]);
  holder.replaceChildren(...figure(account.chart, holder.clientWidth, { titled: false }), pairs(rows), element("p", {}, account.saving));
}

// The charts of a section, which is hidden without any.
function drawSection(name, charts) {
  get(`${name}-section`).hidden = !charts.length;
  const holder = get(name);
  holder.replaceChildren(...charts.flatMap((chart) => figure(chart, holder.clientWidth)));
}
