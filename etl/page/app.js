// Hold the filters, and draw everything again when one changes.

const known = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const KINDS = ["service", "channel", "country"];
const PRESETS = [[7, "7 days"], [28, "28 days"], [90, "90 days"], [0, "All"]];
const grids = {};
let asked = null;

const clamp = (day) => Math.min(Math.max(day, known.firstDay), known.lastDay);

/** Widen a range to whole buckets of a grid; `first` is the page's first day of it. */
const widened = (range, grid) => {
  const from = bucketOf(grid, range.from).start;
  const last = bucketOf(grid, range.to);
  const to = Math.min(last.start + last.length - 1, known.lastDay);
  return { ...range, from, first: Math.max(from, known.firstDay), to };
};

const initial = () => ({
  from: Math.max(known.firstDay, known.lastDay - 89), to: known.lastDay, service: ALL, channel: ALL, country: ALL,
});

const setRange = (from, to) => Object.assign(asked, { from: clamp(from), to: clamp(to) });

/** Filter a kind by some codes; no codes mean no filter. */
const choose = (kind, codes) => {
  asked[kind] = codes?.length ? [...codes].sort((a, b) => a - b) : ALL;
  show();
};

const fillForm = () => {
  for (const id of ["from", "to"]) {
    at(id).min = iso(known.firstDay);
    at(id).max = iso(known.lastDay);
    at(id).value = iso(id === "from" ? Math.max(asked.from, known.firstDay) : asked.to);
  }
  KINDS.forEach((kind) => fillPick(kind, asked[kind]));
  const span = known.lastDay - known.firstDay + 1;
  for (const button of at("presets").children) {
    // Days beyond the first are all there are: then only that is said.
    const length = Number(button.dataset.days) || span;
    const whole = length >= span && Number(button.dataset.days) > 0;
    const pressed = !whole && asked.to === known.lastDay && asked.first === known.lastDay - length + 1;
    button.setAttribute("aria-pressed", String(pressed));
  }
};

const delta = (now, then, { good = 0, unit = "%", of = "" } = {}) => {
  if (then === null || now === null || (unit === "%" && !then)) return null;
  const change = unit === "%" ? ((now - then) * 100) / Math.abs(then) : now - then;
  const words = `${change > 0 ? "+" : change < 0 ? "−" : "±"}${Math.abs(change).toFixed(1)}${unit}`;
  const tone = good && Math.abs(change) >= 0.05 ? (change * good > 0 ? "better" : "worse") : "";
  return el("span", { class: tone }, `${change > 0 ? "▲" : change < 0 ? "▼" : ""} ${words}${of}`.trim());
};

/** Say with what a change compares. */
const against = ({ days, cut }) => ` on the ${plural(days, "day")} before${cut ? ", whole days only" : ""}`;

const tile = ({ title, figures, change, then, note, means }) => {
  const made = el("article", { class: "tile" }, el("h2", {}, title));
  for (const [big, little] of figures) made.append(el("p", { class: "figure" }, big, ...(little ? [" ", el("small", {}, little)] : [])));
  const line = el("p", { class: "delta" });
  if (change) line.append(change, against(then));
  if (note) line.append(line.childNodes.length ? " · " : "", note);
  made.append(line, el("details", {}, el("summary", {}, "What is this?"), el("p", {}, means)));
  return made;
};

/** Compare costs in one currency, by what has a price in both times. */
const costChanges = (then, code, of) => {
  if (!then) return {};
  const [now, past] = [then.now, then.past].map((one) => one.costs.get(code) ?? noCost);
  const whole = [then.now, then.past].every((one) => one.priced === one.attempts);
  const price = (cost) => Number(exact(cost.price)) / (whole ? 1 : cost.priced || NaN);
  const fees = bothOf(now) !== null && bothOf(past) !== null;
  const per = (cost) => eachNumber(fees ? bothOf(cost) : exact(cost.price), cost.conversions);
  const [after, before] = [price(now), price(past)];
  return {
    cost: Number.isNaN(after + before) ? null : delta(after, before, { of: `${of}${whole ? "" : " per priced attempt"}` }),
    each: delta(per(now), per(past), { good: -1, of }),
  };
};

const moneyTiles = (sums, then) => {
  const list = currenciesOf(known, sums);
  const by = (one, code) => one?.costs.get(code) ?? noCost;
  const name = (code) => named(known, "currency", code);
  const first = list[0];
  const lines = (write) => (list.length ? list.map((code) => [write(by(sums.total, code)), name(code)]) : [[DASH, ""]]);
  const cost = first === undefined ? null : by(sums.total, first);
  const change = costChanges(cost && then, first, list.length > 1 ? ` in ${name(first)}` : "");
  return [
    {
      title: "Cost", figures: lines((one) => money(exact(one.price))), change: change.cost, then,
      note: cost && sums.total.priced < sums.total.attempts ? `${percent(sums.total.attempts - sums.total.priced, sums.total.attempts)} not priced` : "",
      means: "The sum of the API's prices of these attempts, each currency apart, without the fees for successful verifications. Attempts without a price are not in it.",
    },
    {
      title: "Cost per conversion",
      figures: lines((one) => (bothOf(one) !== null && one.conversions ? each(bothOf(one), one.conversions) : each(exact(one.price), one.conversions))),
      change: change.each, then,
      note: !cost || !cost.conversions ? "" : bothOf(cost) === null ? "fees not known: price alone" : "fees included",
      means: "What all attempts cost, unconverted ones too, divided by the successful verifications among them; each currency apart. It includes the fee where one is known for every conversion.",
    },
    {
      title: "Spent on unconverted", figures: lines((one) => money(exact(one.wasted))),
      note: cost && exact(cost.price) > 0n ? `${percent(Number(exact(cost.wasted)), Number(exact(cost.price)))} of the cost${list.length > 1 ? ` in ${name(first)}` : ""}` : "",
      means: "The part of the cost that went on attempts that did not convert.",
    },
  ];
};

/** Compare verifications with the days before, if the page has both in whole steps. */
const successTile = () => {
  const range = widened(asked, grids.success);
  const rate = (one) => one && share(one.converted, one.verifications);
  const sum = (days) => sumSteps(grids.success, days, "channel", SUCCESS).total;
  const total = sum(range);
  const same = range.first === asked.first && range.to === asked.to;
  const then = same ? comparison(asked, known, grids.success) : null;
  return {
    title: "Verification success", figures: [[percent(total.converted, total.verifications), ""]],
    change: then && delta(rate(sum(then.now)), rate(sum(then.past)), { good: 1, unit: " points" }), then,
    note: same ? `${count(total.converted)} of ${count(total.verifications)}` : `${iso(range.first)} to ${iso(range.to)}`,
    means: known.definitions["verification-success-daily"].counts,
  };
};

const drawTiles = (sums, then) => {
  const { total } = sums;
  const rate = (one) => share(one.converted, one.attempts);
  const tiles = [
    {
      title: "Attempts", figures: [[count(total.attempts), ""]],
      change: then && delta(then.now.attempts, then.past.attempts), then, note: then ? "" : "no earlier days to compare with",
      means: known.definitions["conversion-daily"].counts,
    },
    {
      title: "Conversion rate", figures: [[percent(total.converted, total.attempts), ""]],
      change: then && delta(rate(then.now), rate(then.past), { good: 1, unit: " points" }), then, note: `${count(total.converted)} converted`,
      means: "Converted attempts divided by all attempts, as Twilio's Summary counts them. A verification may take several attempts, so more verifications succeed than attempts convert.",
    },
    successTile(),
    ...moneyTiles(sums, then),
    {
      title: "Not final", figures: [[percent(total.notFinal, total.attempts), ""]],
      note: `${count(total.notFinal)} attempts can still change`,
      means: "Attempts that were last fetched at an age when their price or conversion could still change.",
    },
  ];
  at("tiles").replaceChildren(...tiles.map(tile));
};

const definition = (names) => {
  const made = el("details", { class: "how" }, el("summary", {}, "How this is counted"));
  for (const { sentence, counts, columns, view } of names.map((name) => known.definitions[name])) {
    made.append(el("p", {}, sentence, " ", counts), el("p", {}, "In SQL: ", el("code", {}, view)));
    made.append(el("dl", {}, ...columns.flatMap(([term, meaning]) => [el("dt", {}, term), el("dd", {}, meaning)])));
  }
  return made;
};

const NEEDS = { success: "success", carriers: "carriers", errors: "errors", funnel: "funnel" };

const drawSection = (section, state) => {
  const card = el("section", { class: section.half ? "card half" : "card", id: `section-${section.id}`, "aria-labelledby": `title-${section.id}` });
  const grid = grids[NEEDS[section.id]];
  let here = state;
  const head = el("header", {}, el("h2", { id: `title-${section.id}` }, section.title));
  if (grid) {
    const range = widened(asked, grid);
    if (range.first !== state.asked.first || range.to !== state.asked.to) {
      here = { ...state, asked: range, sums: { ...state.sums, total: sumTotal(grids.main, range) } };
      head.append(el("p", { class: "flag" }, `Kept in longer steps here: shown are ${iso(range.first)} to ${iso(range.to)}.`));
    }
  }
  const { notFinal, attempts } = here.sums.total;
  if (notFinal) head.append(el("p", { class: "flag" }, `${percent(notFinal, attempts)} of these attempts are not final.`));
  card.append(head);
  const built = attempts || section.id === "freshness" ? section.build(here) : { plots: [], tables: [] };
  const plots = attempts ? built.plots : [];
  if (plots.length) card.append(el("div", { class: "plots" }, ...plots.map(figure)));
  else card.append(el("p", { class: "empty" }, attempts ? built.empty : "No attempts in these days with these filters."));
  for (const table of built.tables) if (table.rows.length) card.append(drawTable(table));
  card.append(definition(section.report));
  return card;
};

const say = (sums) => {
  const parts = KINDS.filter((kind) => asked[kind] !== ALL)
    .map((kind) => asked[kind].map((code) => named(known, kind, code)).join(" or "));
  const days = plural(asked.to - asked.first + 1, "day");
  at("said").textContent = `${iso(asked.first)} to ${iso(asked.to)}, ${days} of UTC${parts.length ? `, ${parts.join(", ")}` : ""}: ${plural(sums.total.attempts, "attempt")}.`;
};

const remember = () => {
  const words = new URLSearchParams({ from: iso(asked.first), to: iso(asked.to) });
  for (const kind of KINDS) for (const code of asked[kind] ?? []) words.append(kind, wordOf(kind, code));
  try {
    history.replaceState(null, "", `#${words}`);
  } catch {
    // A page that may not keep its address still works.
  }
};

/** Choose what the address says, and return what of it this page does not have. */
const recall = () => {
  const words = new URLSearchParams(location.hash.slice(1));
  const [from, to] = ["from", "to"].map((name) => dayOf(words.get(name) ?? ""));
  const gone = [];
  if (from > to) gone.push(`days from ${iso(from)} back to ${iso(to)}`);
  else if (from > known.lastDay || to < known.firstDay) gone.push(`the days ${iso(from)} to ${iso(to)}`);
  else if (Number.isFinite(from) && Number.isFinite(to)) {
    if (from < known.firstDay) gone.push(`days before ${iso(known.firstDay)}`);
    if (to > known.lastDay) gone.push(`days after ${iso(known.lastDay)}`);
    setRange(from, to);
  }
  for (const kind of KINDS) {
    const there = new Map(choices(kind).map((code) => [wordOf(kind, code), code]));
    const wanted = [...new Set(words.getAll(kind))];
    gone.push(...wanted.filter((word) => !there.has(word)).map((word) => `${kind} ${short(word)}`));
    const codes = wanted.filter((word) => there.has(word)).map((word) => there.get(word));
    if (codes.length) asked[kind] = codes.sort((a, b) => a - b);
  }
  return gone;
};

const show = () => {
  const open = new Set([...document.querySelectorAll("details[open]")].map((one) => one.parentElement.id));
  asked = widened(asked, grids.main);
  fillForm();
  const sums = sumMain(grids.main, asked);
  const then = comparison(asked, known, grids.main);
  drawTiles(sums, then && { ...then, now: sumTotal(grids.main, then.now), past: sumTotal(grids.main, then.past) });
  forget();
  const state = { known, grids, asked, sums, choose };
  at("sections").replaceChildren(...SECTIONS.map((section) => drawSection(section, state)));
  for (const id of open) if (id) at(id)?.querySelector("details.how")?.setAttribute("open", "");
  drawAll();
  hintAtWidth();
  say(sums);
  remember();
};

const listen = () => {
  for (const [days, label] of PRESETS) {
    const button = el("button", { type: "button", "data-days": days }, label);
    button.addEventListener("click", () => {
      setRange(days ? known.lastDay - days + 1 : known.firstDay, known.lastDay);
      show();
    });
    at("presets").append(button);
  }
  for (const id of ["from", "to"]) {
    at(id).addEventListener("change", () => {
      const [from, to] = ["from", "to"].map((name) => dayOf(at(name).value));
      if (!Number.isFinite(from) || !Number.isFinite(to)) return;
      if (from > to) {
        at("said").textContent = `From ${iso(from)} is later than To ${iso(to)}: still shown are ${iso(asked.first)} to ${iso(asked.to)}.`;
        return;
      }
      setRange(from, to);
      show();
    });
  }
  KINDS.forEach((kind) => listenPick(kind, (codes) => choose(kind, codes)));
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", (event) => {
    event.preventDefault();
    asked = initial();
    show();
  });
  at("theme").addEventListener("change", (event) => {
    if (event.target.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = event.target.value;
    drawAll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", hintAtWidth);
  matchMedia("(max-width: 40rem)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
};

const introduce = (gone) => {
  const narrowed = Object.entries(known.asked).filter(([, value]) => value?.length).map(([name, value]) => `${name} ${[].concat(value).join(", ")}`);
  at("about").textContent = `${iso(known.firstDay)} to ${iso(known.lastDay)} · all times and days are UTC · made ${minute(known.madeAt)} UTC${known.asOf ? ` · as known at ${minute(known.asOf)} UTC` : ""}${narrowed.length ? ` · only ${narrowed.join("; ")}` : ""}`;
  const undated = known.freshness.find((row) => row.measure === "no_date")?.number;
  const notes = gone.length ? [`Not on this page, so left out of the link's filters: ${gone.join(", ")}.`] : [];
  if (undated) notes.push(`${plural(undated, "attempt")} of unknown time ${undated === 1 ? "is" : "are"} in no chart.`);
  if (grids.main.daysFrom > known.firstDay) notes.push(`Before ${iso(grids.main.daysFrom)} this page counts in longer steps than days.`);
  at("notice").textContent = notes.join(" ");
  at("notice").hidden = !notes.length;
  at("foot").append(
    el("p", {}, "Prices are the API's own, exact to a millionth; currencies are never added up. Hatched or dashed: not final. A dash: there is nothing to divide by, or it is not known."),
    el("p", {}, `verify-attempts-etl ${known.version} · charts by Chart.js 4 (MIT) · this file asks the network for nothing`),
  );
};

const start = async () => {
  for (const [name, grid] of Object.entries(known.grids)) grids[name] = await unpacked(grid);
  asked = initial();
  KINDS.forEach(makePick);
  introduce(recall());
  listen();
  show();
  document.documentElement.dataset.ready = "yes";
};

start().catch((error) => {
  at("notice").textContent = `This page could not be drawn: ${error.message}. It needs a browser of 2023 or later.`;
  at("notice").hidden = false;
  throw error;
});
