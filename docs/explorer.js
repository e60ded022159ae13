// The explorer: which of the published effects are shown, in what order, and as what they are copied. The page carries the numbers as
// the library computed them; none is computed here. What is chosen stands in the address, so that a view can be linked to.
(() => {
  "use strict";
  const root = document.querySelector(".explorer");
  if (!root) return;
  const part = (name) => root.querySelector(`.explorer-${name}`);
  const { columns, rows, measures, spec, start } = JSON.parse(part("data").textContent);
  const form = part("form").elements, heads = [...root.querySelectorAll("th[data-column]")];
  const choices = ["dataset", "protocol", "model", "measure", "alpha"]; // the value "" stands for all
  const effects = rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])));
  const view = { ...start };
  let shown = [], drawings = 0;

  // --- numbers as texts
  const called = (choice, value) => [...form[choice].options].find((option) => option.value === value).text;
  const number = (x, places) => x.toFixed(places).replace("-", "−");
  const change = (x, places) => (x > 0 ? "+" : "") + number(x, places);
  const texts = (row) => {
    const { places } = measures[row.measure];
    return {
      dataset: called("dataset", row.dataset), protocol: row.protocol, model: called("model", row.model), alpha: String(row.alpha),
      estimate: change(row.estimate, places), low: row.low === null ? "none" : `${change(row.low, places)} to ${change(row.high, places)}`,
      verdict: row.verdict + (row.note && ` (${row.note})`), base: number(row.base, places), value: number(row.value, places),
      people: String(row.people), folds: String(row.folds), seeds: String(row.seeds),
    };
  };
  for (const row of effects) row.text = texts(row);
  const quoted = (x) => (/[",\n]/.test(x) ? `"${x.replaceAll('"', '""')}"` : x ?? "");
  const csv = (some) => [columns, ...some.map((row) => columns.map((name) => row[name]))]
    .map((values) => values.map(quoted).join(",") + "\n").join("");

  // --- the address
  const remember = (how) => {
    const asked = new URLSearchParams(Object.entries(view).filter(([name, value]) => value !== start[name])).toString();
    history[how](null, "", asked ? `#${asked}` : location.pathname + location.search);
  };
  const known = (name, value) => name === "words" || (name === "sort" && heads.some((th) => value.replace(/^-/, "") === th.dataset.column))
    || (choices.includes(name) && [...form[name].options].some((option) => option.value === value));
  const follow = () => {
    const asked = location.hash.slice(1), wrong = [];
    if (!asked || asked.includes("=")) { // else it is an anchor of the page
      Object.assign(view, start);
      for (const [name, value] of new URLSearchParams(asked)) {
        if (known(name, value)) view[name] = value; else wrong.push(`${name}=${value}`);
      }
    }
    for (const name of [...choices, "words"]) form[name].value = view[name];
    show();
    if (wrong.length) part("said").textContent = `The address asks for ${wrong.join(" and ")}. There is no such thing here, so it was left out.`;
  };

  // --- which effects, and in what order
  const choose = () => {
    const words = view.words.toLowerCase().split(/\s+/).filter(Boolean), column = view.sort.replace(/^-/, "");
    const fits = (row) => choices.every((name) => !view[name] || String(row[name]) === view[name])
      && words.every((word) => Object.values(row.text).join(" ").toLowerCase().includes(word));
    const way = view.sort.startsWith("-") ? -1 : 1;
    const order = ({ [column]: a }, { [column]: b }) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last, whichever way
      return way * (typeof a === "string" ? a.localeCompare(b) : a - b);
    };
    shown = effects.filter(fits);
    if (column) shown.sort(order);
  };

  // --- what is seen
  const line = (row) => {
    const tr = document.createElement("tr"), { text } = row;
    for (const [name, words] of Object.entries(text)) {
      const cell = document.createElement(name === "dataset" ? "th" : "td");
      if (name === "dataset") cell.scope = "row";
      cell.textContent = words;
      tr.append(cell);
    }
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy ${text.dataset}, ${text.protocol}, ${text.model}, α = ${text.alpha} as CSV`);
    button.addEventListener("click", () => copy([row]));
    tr.appendChild(document.createElement("td")).append(button);
    return tr;
  };
  const draw = async () => {
    const plot = part("plot"), mine = ++drawings;
    plot.hidden = !shown.length || !window.vegaEmbed;
    if (plot.hidden) return;
    const values = shown.map(({ text, ...row }) => ({
      ...row, cell: `${text.dataset}, ${text.model}\n${text.protocol}, α = ${text.alpha}`, change: text.estimate, interval: text.low,
    }));
    const next = document.createElement("div"); // the old picture stays until the new one is drawn
    plot.append(next);
    const drawn = { ...spec, data: { values }, width: "container", height: 34 * values.length };
    await window.vegaEmbed(next, drawn, { actions: false, renderer: "svg" });
    if (mine === drawings) plot.replaceChildren(next); else next.remove();
  };
  const show = () => {
    choose();
    const { label, axis, better } = measures[view.measure], verdicts = {};
    for (const row of shown) verdicts[row.verdict] = (verdicts[row.verdict] ?? 0) + 1;
    const all = effects.filter((row) => row.measure === view.measure).length;
    part("title").textContent = `Change in ${axis}` + (better ? ` (${better} is better)` : "");
    part("count").textContent = shown.length
      ? `${shown.length} of ${all} effects on ${label}: ${Object.entries(verdicts).map(([word, n]) => `${n} ${word}`).join(", ")}.`
      : "No published result is like that. Choose less, or start again.";
    part("caption").textContent = `Test part: ${axis} without and with smoothing.`;
    part("said").textContent = "";
    for (const th of heads) {
      const way = { [th.dataset.column]: "ascending", [`-${th.dataset.column}`]: "descending" };
      th.setAttribute("aria-sort", way[view.sort] ?? "none");
    }
    part("lines").replaceChildren(...shown.map(line));
    part("table").hidden = part("all").disabled = !shown.length;
    draw();
  };
  const copy = async (some) => {
    const text = csv(some);
    try {
      await navigator.clipboard.writeText(text);
      part("said").textContent = `${some.length === 1 ? "The row is" : `${some.length} rows are`} in the clipboard, as CSV below a line of names.`;
    } catch { // a browser that lends no page its clipboard: here is the text, to be copied by hand
      part("said").textContent = text;
    }
  };

  // --- what the reader does
  part("form").addEventListener("submit", (event) => event.preventDefault());
  const listen = (name, event, how) => form[name].addEventListener(event, () => {
    view[name] = form[name].value;
    show();
    remember(how);
  });
  choices.forEach((name) => listen(name, "change", "pushState"));
  listen("words", "input", "replaceState"); // each letter is not a step to go back to
  part("again").addEventListener("click", () => {
    Object.assign(view, start);
    remember("pushState");
    follow();
  });
  part("all").addEventListener("click", () => copy(shown));
  for (const th of heads) {
    th.firstElementChild.addEventListener("click", () => {
      view.sort = (view.sort === th.dataset.column ? "-" : "") + th.dataset.column;
      show();
      remember("pushState");
    });
  }
  addEventListener("popstate", follow);
  part("live").hidden = false;
  part("static").hidden = true;
  follow();
})();
