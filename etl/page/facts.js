// Add up the filtered rows. Counts are exact numbers. Amounts are summed as whole units and as
// millionths, each exact, and read as one BigInt of millionths.

const WEEK = 7;
const BLOCK = 28;
const MONDAY = 4;
const MOST_STEPS = 95;
const ALL = null;

const bucketOf = (calendar, day) => {
  if (day >= calendar.daysFrom) return { start: day, length: 1 };
  const length = day >= calendar.weeksFrom ? WEEK : BLOCK;
  return { start: Math.floor((day - MONDAY) / length) * length + MONDAY, length };
};

const amount = () => ({ units: 0, millionths: 0 });
const exact = (sum) => BigInt(sum.units) * 1000000n + BigInt(sum.millionths);
const more = (sum, column, row) => {
  sum.units += column.units[row];
  sum.millionths += column.millionths[row];
};

const costs = () => ({
  priced: 0, conversions: 0, charged: 0, price: amount(), wasted: amount(), fee: amount(),
});
const group = () => ({ attempts: 0, converted: 0, notFinal: 0, priced: 0, costs: new Map() });

const entry = (map, key, make) => {
  let found = map.get(key);
  if (found === undefined) {
    found = make();
    map.set(key, found);
  }
  return found;
};

/** Say by code which are wanted; null: all. */
const wanted = (codes) => {
  if (codes === ALL) return null;
  const table = [];
  for (const code of codes) table[code] = true;
  return table;
};

/** Call `visit` for each filtered row of a grid. */
const scan = (grid, asked, visit) => {
  const { day, service, channel, country } = grid;
  const services = wanted(asked.service);
  const channels = wanted(asked.channel);
  const countries = wanted(asked.country);
  for (let row = 0; row < grid.rows; row += 1) {
    if (
      day[row] >= asked.from && day[row] <= asked.to &&
      (!services || services[service[row]]) &&
      (!channels || channels[channel[row]]) &&
      (!countries || countries[country[row]])
    ) visit(row);
  }
};

const addMain = (grid, row, sums) => {
  sums.attempts += grid.attempts[row];
  sums.converted += grid.converted[row];
  sums.notFinal += grid.not_final[row];
  sums.priced += grid.priced[row];
  if (grid.priced[row] === 0 && grid.conversions[row] === 0) return;
  const cost = entry(sums.costs, grid.currency[row], costs);
  cost.priced += grid.priced[row];
  cost.conversions += grid.conversions[row];
  cost.charged += grid.charged[row];
  more(cost.price, grid.price, row);
  more(cost.wasted, grid.wasted, row);
  more(cost.fee, grid.fee, row);
};

/** Choose how long a step of the charts is, and list the steps of the range. */
const stepsOf = (asked, calendar) => {
  const span = asked.to - asked.from + 1;
  let length = span <= MOST_STEPS ? 1 : span <= MOST_STEPS * WEEK ? WEEK : BLOCK;
  length = Math.max(length, bucketOf(calendar, asked.from).length);
  const start = (day) => (length === 1 ? day : Math.floor((day - MONDAY) / length) * length + MONDAY);
  const starts = [];
  for (let day = start(asked.from); day <= asked.to; day += length) starts.push(day);
  return { length, start, starts };
};

const sumMain = (grid, asked) => {
  const steps = stepsOf(asked, grid);
  const found = {
    total: group(), steps, byStep: new Map(), service: new Map(), channel: new Map(), country: new Map(),
  };
  for (const start of steps.starts) found.byStep.set(start, group());
  scan(grid, asked, (row) => {
    addMain(grid, row, found.total);
    addMain(grid, row, entry(found.byStep, steps.start(grid.day[row]), group));
    for (const key of ["service", "channel", "country"]) {
      addMain(grid, row, entry(found[key], grid[key][row], group));
    }
  });
  return found;
};

const sumTotal = (grid, asked) => {
  const total = group();
  scan(grid, asked, (row) => addMain(grid, row, total));
  return total;
};

/** Add up the named measures of a small grid by one key, or by several joined. */
const sumBy = (grid, asked, keys, measures) => {
  const found = new Map();
  scan(grid, asked, (row) => {
    const sums = entry(found, keys.map((key) => grid[key][row]).join(" "), () => ({
      keys: keys.map((key) => grid[key][row]),
      ...Object.fromEntries(measures.map((name) => [name, 0])),
    }));
    for (const name of measures) sums[name] += grid[name][row];
  });
  return [...found.values()];
};

/** Add up the named measures of a small grid by one key, in all and by steps of time. */
const sumSteps = (grid, asked, key, measures) => {
  const nothing = () => Object.fromEntries(measures.map((name) => [name, 0]));
  const steps = stepsOf(asked, grid);
  const found = { steps, total: nothing(), byStep: new Map(), byKey: new Map() };
  for (const start of steps.starts) found.byStep.set(start, nothing());
  scan(grid, asked, (row) => {
    const places = [
      found.total, entry(found.byStep, steps.start(grid.day[row]), nothing), entry(found.byKey, grid[key][row], nothing),
    ];
    for (const name of measures) for (const sums of places) sums[name] += grid[name][row];
  });
  return found;
};

/** Name the first and the last day that the page has whole: not cut by its own moment or window. */
const wholeDays = (known) => {
  const days = (text) => Date.parse(text) / 86400000;
  const { since, until } = known.asked;
  const end = Math.min(days(known.asOf ?? known.madeAt), until ? days(until) : Infinity);
  const first = since ? Math.max(known.firstDay, Math.ceil(days(since))) : known.firstDay;
  return { first, last: Math.min(known.lastDay, Math.floor(end) - 1) };
};

/** Give the whole days of a range, and as many just before; null if the page does not have them. */
const comparison = (asked, known, grid) => {
  const whole = wholeDays(known);
  const to = Math.min(asked.to, whole.last);
  const days = to - asked.first + 1;
  const from = asked.first - days;
  const edge = (day) => bucketOf(grid, day).start === day;
  const cut = to < asked.to;
  if (days < 1 || from < whole.first || !edge(from) || !edge(asked.first) || (cut && !edge(to + 1))) return null;
  return { now: { ...asked, to }, past: { ...asked, from, to: asked.first - 1 }, days, cut };
};
