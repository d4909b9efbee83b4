// Build elements and tables. Text is only ever set as text.

const el = (tag, attributes = {}, ...children) => {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) found.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) found.setAttribute(name, value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
};

const ROWS = 8;
const kept = new Map();

/** Columns of words are "text", of sentences "long"; the others hold numbers. */
const classOf = (kind) => ({ text: "text", long: "text long" })[kind] ?? null;

const cellText = (cell, decimals) => (typeof cell !== "object" ? cell : cell.amount ? amountText(cell.amount, decimals) : cell.text);
const cellRank = (cell) => (typeof cell === "object" ? cell.rank : cell);
/** A cell whose text sorts by a number; null is last either way. */
const ranked = (text, rank) => ({ text, rank });
/** A cell with an amount; all amounts of a column have as many decimals. */
const amountCell = (amount, rank) => (amount ? { amount, rank } : ranked(DASH, null));

/** Say how many decimals each column needs. */
const decimalsBy = (columns, rows) =>
  columns.map((_, place) => rows.reduce((most, { cells }) => Math.max(most, cells[place].amount ? decimalsOf(cells[place].amount) : 0), 0));

const compared = (left, right) => {
  if (left === right) return 0;
  if (left === null || left === undefined) return 1;
  if (right === null || right === undefined) return -1;
  return left < right ? -1 : 1;
};

const sortedRows = (rows, state) => {
  if (state.column === null) return rows;
  return [...rows].sort((one, other) => {
    const left = cellRank(one.cells[state.column]);
    const right = cellRank(other.cells[state.column]);
    const missing = [left, right].some((rank) => rank === null || rank === undefined);
    return compared(left, right) * (missing || state.up ? 1 : -1);
  });
};

/**
 * Draw a table: `columns` are [heading, kind], a row is {cells, open}; `open` is the share of it
 * that can still change. Headings sort; more than the first rows are shown on demand.
 */
const drawTable = ({ id, caption, columns, rows }) => {
  const state = entry(kept, id, () => ({ column: null, up: false, all: false }));
  const holder = el("div", { class: "table", id: `table-${id}` });
  const decimals = decimalsBy(columns, rows);
  const fill = (focus) => {
    const head = el("tr");
    columns.forEach(([heading, kind], place) => {
      const sort = state.column === place ? (state.up ? "ascending" : "descending") : null;
      const button = el("button", { type: "button" }, heading);
      button.addEventListener("click", () => {
        const again = state.column === place;
        Object.assign(state, { column: place, up: again ? !state.up : Boolean(kind) });
        fill(place);
      });
      head.append(el("th", { scope: "col", class: classOf(kind), "aria-sort": sort }, button));
    });
    const body = el("tbody");
    const order = sortedRows(rows, state);
    for (const row of state.all ? order : order.slice(0, ROWS)) {
      const line = el("tr", { class: row.open ? "open" : null });
      if (row.open) line.style.setProperty("--open", row.open);
      row.cells.forEach((cell, place) => {
        const attributes = { class: classOf(columns[place][1]) };
        const made = el(place ? "td" : "th", place ? attributes : { ...attributes, scope: "row" });
        made.textContent = cellText(cell, decimals[place]);
        line.append(made);
      });
      body.append(line);
    }
    const table = el("table", {}, el("caption", {}, el("span", {}, caption)), el("thead", {}, head), body);
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table);
    holder.replaceChildren(el("p", { class: "hint" }, "More columns: scroll the table sideways →"), scroll);
    if (rows.length > ROWS) {
      const words = state.all ? "Show fewer rows" : `Show all ${count(rows.length)} rows`;
      const button = el("button", { type: "button", class: "more", "aria-expanded": String(state.all) }, words);
      button.addEventListener("click", () => {
        state.all = !state.all;
        fill("more");
      });
      holder.append(button);
    }
    if (focus === "more") holder.querySelector(".more").focus();
    else if (focus !== undefined) holder.querySelectorAll("thead button")[focus].focus();
  };
  fill();
  return holder;
};

/** Show the hint of each table that is wider than its place. */
const hintAtWidth = () => {
  for (const holder of document.querySelectorAll(".table")) {
    const scroll = holder.querySelector(".scroll");
    holder.classList.toggle("wide", scroll.scrollWidth > scroll.clientWidth + 1);
  }
};
