// Describe each section: its charts, tables and definitions.

const MOST_BARS = 12;

const share = (part, whole) => (whole ? (part * 100) / whole : null);
const rateCell = (part, whole) => ranked(percent(part, whole), share(part, whole));
const countCell = (value) => ranked(count(value), value);
const moneyCell = (value) => amountCell(amountOf(value), value === null ? null : Number(value));
const eachCell = (value, by) => amountCell(meanOf(value, by), eachNumber(value, by));
const attemptLabel = (item) => `${item.dataset.label}: ${item.raw === null ? DASH : count(item.raw)}`;

const feeOf = (cost) => (cost.conversions === 0 || cost.charged > 0 ? exact(cost.fee) : null);
/** Where no fee is known at all, that of no conversion is not 0 either, but not known. */
const feesOf = (cost, all) => (all.conversions && !all.charged ? [null, null] : [feeOf(cost), bothOf(cost)]);
const bothOf = (cost) => (cost.charged === cost.conversions ? exact(cost.price) + exact(cost.fee) : null);
const noCost = costs();

/** List the currencies of the selection, the most used first, without the unknown one. */
const currenciesOf = (known, sums) =>
  [...sums.total.costs.keys()].filter((code) => known.names.currency.names[code] !== null).sort((a, b) => a - b);

const timeAxis = (sums) => sums.steps.starts.map(near);
const openShare = (one) => (one.attempts ? one.notFinal / one.attempts : 0);
const openSteps = (sums) => [...sums.byStep.values()].map(openShare);
const stepRows = (sums, cells) =>
  [...sums.byStep].map(([day, one]) => ({ cells: [iso(day), ...cells(one)], open: openShare(one) })).reverse();

const conversionCells = (one) => [
  countCell(one.attempts), countCell(one.converted), countCell(one.attempts - one.converted),
  rateCell(one.converted, one.attempts), countCell(one.notFinal),
];
const CONVERSION_HEADS = [["Attempts"], ["Converted"], ["Unconverted"], ["Conversion rate"], ["Not final"]];
const convertedSeries = (list) => [
  { label: "Converted", colour: "good", values: list.map((one) => one.converted) },
  { label: "Unconverted", colour: "rest", values: list.map((one) => one.attempts - one.converted) },
];

const conversionOverTime = ({ sums }) => {
  const list = [...sums.byStep.values()];
  const rate = { label: "Conversion rate", colour: "second", kind: "line", axis: "rate", values: list.map((one) => share(one.converted, one.attempts)) };
  return {
    plots: [{
      id: "conversion", title: `Attempts and conversion rate by ${sums.steps.length === 1 ? "day" : sums.steps.length === WEEK ? "week" : "four weeks"}`,
      labels: timeAxis(sums), series: [...convertedSeries(list), rate], open: openSteps(sums),
      format: (value) => compact.format(value),
      tooltip: (item) => (item.dataset.yAxisID === "rate" ? `Conversion rate: ${item.raw === null ? DASH : `${item.raw.toFixed(1)}%`}` : attemptLabel(item)),
      says: `${count(sums.total.attempts)} attempts, ${percent(sums.total.converted, sums.total.attempts)} converted.`,
    }],
    tables: [{
      id: "conversion", caption: "Conversion over time, newest first",
      columns: [[stepName(sums.steps.length), "text"], ...CONVERSION_HEADS], rows: stepRows(sums, conversionCells),
    }],
  };
};

const SUCCESS = ["verifications", "converted", "attempts", "retried", "not_final"];
const successCells = (one) => [
  countCell(one.verifications), countCell(one.converted), countCell(one.verifications - one.converted),
  rateCell(one.converted, one.verifications), ranked(ratio(one.attempts, one.verifications), one.verifications ? one.attempts / one.verifications : null),
  countCell(one.retried), countCell(one.not_final),
];
const SUCCESS_HEADS = [["Verifications"], ["Succeeded"], ["Failed"], ["Success rate"], ["Attempts each"], ["Took several"], ["Not final"]];

const verifications = ({ known, grids, asked }) => {
  const { steps, total, byStep, byKey } = sumSteps(grids.success, asked, "channel", SUCCESS);
  const list = [...byStep.values()];
  const openly = (one) => (one.verifications ? one.not_final / one.verifications : 0);
  const open = list.map(openly);
  return {
    empty: "No verification began in these days with these filters.",
    plots: total.verifications ? [{
      id: "success", title: `Verifications by the ${steps.length === 1 ? "day" : steps.length === WEEK ? "week" : "four weeks"} they began in`,
      labels: steps.starts.map(near), open,
      series: [
        { label: "Succeeded", colour: "third", values: list.map((one) => one.converted) },
        { label: "Failed", colour: "rest", values: list.map((one) => one.verifications - one.converted) },
        { label: "Success rate", colour: "second", kind: "line", axis: "rate", values: list.map((one) => share(one.converted, one.verifications)) },
      ],
      format: (value) => compact.format(value),
      tooltip: (item) => (item.dataset.yAxisID === "rate" ? `Success rate: ${item.raw === null ? DASH : `${item.raw.toFixed(1)}%`}` : attemptLabel(item)),
      says: `${count(total.verifications)} verifications, ${percent(total.converted, total.verifications)} succeeded.`,
    }] : [],
    tables: [
      {
        id: "success", caption: "Verifications over time, newest first",
        columns: [[stepName(steps.length), "text"], ...SUCCESS_HEADS],
        rows: [...byStep].map(([day, one]) => ({ cells: [iso(day), ...successCells(one)], open: openly(one) })).reverse(),
      },
      {
        id: "success-channel", caption: "Verifications by the channel tried first",
        columns: [["Channel", "text"], ...SUCCESS_HEADS],
        rows: [...byKey].sort(([, one], [, other]) => other.verifications - one.verifications)
          .map(([code, one]) => ({ cells: [named(known, "channel", code), ...successCells(one)] })),
      },
    ],
  };
};

const costOverTime = ({ known, sums }) => {
  const currencies = currenciesOf(known, sums);
  const steps = [...sums.byStep];
  const at = (one, code) => one.costs.get(code) ?? noCost;
  const units = (value) => Number(value) / 1e6;
  return {
    empty: "No attempt of this selection has a price yet.",
    plots: currencies.map((code, place) => {
      const name = named(known, "currency", code);
      const list = steps.map(([, one]) => at(one, code));
      return {
        id: `cost-${place}`, title: `Cost in ${name}`, labels: timeAxis(sums), open: openSteps(sums),
        series: [
          { label: "On converted attempts", colour: "good", values: list.map((one) => units(exact(one.price) - exact(one.wasted))) },
          { label: "On unconverted attempts", colour: "rest", values: list.map((one) => units(exact(one.wasted))) },
          ...(list.some((one) => exact(one.fee)) ? [{ label: "Fees for successful verifications", colour: "third", values: list.map((one) => units(exact(one.fee))) }] : []),
        ],
        format: (value) => compact.format(value),
        tooltip: (item) => `${item.dataset.label}: ${name} ${money(BigInt(Math.round(item.raw * 1e6)))}`,
        says: `${name} ${money(exact(at(sums.total, code).price))} without fees.`,
      };
    }),
    tables: [{
      id: "cost", caption: "Cost over time, newest first; each currency in rows of its own",
      columns: [[stepName(sums.steps.length), "text"], ["Currency", "text"], ["Priced attempts"], ["Price"], ["On unconverted"], ["Fees"], ["Price and fees"]],
      rows: steps.flatMap(([day, one]) => currencies.filter((code) => one.costs.has(code)).map((code) => {
        const cost = at(one, code);
        return {
          cells: [iso(day), named(known, "currency", code), countCell(cost.priced), moneyCell(exact(cost.price)), moneyCell(exact(cost.wasted)), ...feesOf(cost, at(sums.total, code)).map(moneyCell)],
          open: openShare(one),
        };
      })).reverse(),
    }],
  };
};

const splitBy = (kind, title) => ({ known, sums, asked, choose }) => {
  const list = [...sums[kind]].sort(([, one], [, other]) => other.attempts - one.attempts);
  const top = list.slice(0, MOST_BARS);
  const labels = top.map(([code]) => named(known, kind, code));
  return {
    plots: [{
      id: kind, kind: "rank", title: list.length > top.length ? `${title}: the ${top.length} largest of ${list.length}` : title,
      labels, series: convertedSeries(top.map(([, one]) => one)),
      format: (value) => compact.format(value), tooltip: attemptLabel,
      pick: (place) => choose(kind, asked[kind]?.join() === String(top[place][0]) ? ALL : [top[place][0]]),
      says: `Most attempts: ${labels[0]}.`,
    }],
    tables: [{
      id: kind, caption: `${title}, most attempts first`,
      columns: [[kind[0].toUpperCase() + kind.slice(1), "text"], ...CONVERSION_HEADS],
      rows: list.map(([code, one]) => ({ cells: [named(known, kind, code), ...conversionCells(one)] })),
    }],
  };
};

const perConversionCells = (cost) => [
  countCell(cost.conversions), eachCell(exact(cost.price), cost.conversions),
  eachCell(feeOf(cost), cost.charged), eachCell(bothOf(cost), cost.conversions),
];
const PER_HEADS = [["Conversions"], ["Price each"], ["Fee each"], ["Cost each"], ["Attempts not final"]];

const costPerConversion = ({ known, sums }) => {
  const currencies = currenciesOf(known, sums);
  const list = [...sums.byStep.values()];
  const split = (kind) => ({
    id: `each-${kind}`, caption: `Cost per conversion by ${kind}`,
    columns: [["Currency", "text"], [kind[0].toUpperCase() + kind.slice(1), "text"], ...PER_HEADS],
    rows: currencies.flatMap((code) => [...sums[kind]].filter(([, one]) => one.costs.has(code))
      .sort(([, one], [, other]) => other.costs.get(code).conversions - one.costs.get(code).conversions)
      .map(([key, one]) => ({
        cells: [named(known, "currency", code), named(known, kind, key), ...perConversionCells(one.costs.get(code)), rateCell(one.notFinal, one.attempts)],
      }))),
  });
  return {
    empty: "No attempt of this selection has a price yet.",
    plots: currencies.map((code, place) => {
      const name = named(known, "currency", code);
      const at = list.map((one) => one.costs.get(code) ?? noCost);
      const both = at.map((cost) => eachNumber(bothOf(cost), cost.conversions));
      const withFee = at.some((cost) => cost.charged);
      return {
        id: `each-${place}`, title: `${name} for each successful verification`, labels: timeAxis(sums), open: openSteps(sums),
        series: [
          ...(withFee ? [{ label: "Price and fee", colour: "third", kind: "line", values: both }] : []),
          { label: "Price alone", colour: "second", kind: "line", dash: withFee ? [6, 3] : [], values: at.map((cost) => eachNumber(exact(cost.price), cost.conversions)) },
        ],
        format: (value) => String(Number(value.toPrecision(3))),
        tooltip: (item) => `${item.dataset.label}: ${item.raw === null ? DASH : `${name} ${each(BigInt(Math.round(item.raw * 1e6)), 1)}`}`,
        says: `${name} ${each(exact((sums.total.costs.get(code) ?? noCost).price), (sums.total.costs.get(code) ?? noCost).conversions)} without fees.`,
      };
    }),
    tables: [split("channel"), split("country")],
  };
};

const stacked = (list, parts) => parts.map(([label, colour, value]) => ({ label, colour, values: list.map(value) }));

const carriers = ({ known, grids, asked }) => {
  const measures = ["attempts", "converted", "delivered", "undelivered", "not_final"];
  const list = sumBy(grids.carriers, asked, ["carrier", "country"], measures).sort((one, other) => other.attempts - one.attempts);
  const top = list.slice(0, MOST_BARS);
  const name = (one) => named(known, "carrier", one.keys[0]);
  const place = (one) => known.names.country.names[one.keys[1]] ?? (one.keys[1] < known.names.country.names.length ? DASH : others.country);
  return {
    plots: [{
      id: "carriers", kind: "rank", title: list.length > top.length ? `Attempts by carrier: the ${top.length} largest of ${list.length}` : "Attempts by carrier",
      labels: top.map((one) => `${name(one)}, ${place(one)}`),
      series: stacked(top, [["Converted", "good", (one) => one.converted], ["Unconverted", "rest", (one) => one.attempts - one.converted]]),
      format: (value) => compact.format(value), tooltip: attemptLabel, says: `${plural(list.length, "carrier")}.`,
    }],
    tables: [{
      id: "carriers", caption: "Carriers, most attempts first",
      columns: [["Carrier", "text"], ["Country", "text"], ["Attempts"], ["Converted"], ["Conversion rate"], ["Delivered"], ["Undelivered"], ["Delivery rate"], ["Not final"]],
      rows: list.map((one) => ({
        cells: [name(one), place(one), countCell(one.attempts), countCell(one.converted), rateCell(one.converted, one.attempts), countCell(one.delivered), countCell(one.undelivered), rateCell(one.delivered, one.delivered + one.undelivered), countCell(one.not_final)],
      })),
    }],
  };
};

const errors = ({ known, grids, asked, sums }) => {
  const list = sumBy(grids.errors, asked, ["error"], ["attempts", "undelivered", "converted", "not_final"]).sort((one, other) => other.attempts - one.attempts);
  const top = list.slice(0, MOST_BARS);
  const code = (one) => named(known, "error", one.keys[0]);
  const meaning = (one) => known.meanings[known.names.error.names[one.keys[0]]] ?? DASH;
  return {
    empty: "No attempt of this selection failed: no error code, nothing undelivered.",
    plots: list.length ? [{
      id: "errors", kind: "rank", title: "Attempts by error code", labels: top.map((one) => `${code(one)} ${meaning(one) === DASH ? "" : meaning(one)}`.trim()),
      series: stacked(top, [["Undelivered", "down", (one) => one.undelivered], ["Delivered, or not known", "rest", (one) => one.attempts - one.undelivered]]),
      format: (value) => compact.format(value), tooltip: attemptLabel, says: `Most frequent: ${code(list[0])}, ${meaning(list[0])}.`,
    }] : [],
    tables: [{
      id: "errors", caption: "Errors, most frequent first",
      columns: [["Code", "text"], ["Meaning", "long"], ["Attempts"], ["Of all attempts"], ["Undelivered"], ["Converted all the same"], ["Not final"]],
      rows: list.map((one) => ({
        cells: [code(one), meaning(one), countCell(one.attempts), rateCell(one.attempts, sums.total.attempts), countCell(one.undelivered), countCell(one.converted), countCell(one.not_final)],
      })),
    }],
  };
};

const funnel = ({ grids, asked }) => {
  const list = sumBy(grids.funnel, asked, ["step"], ["attempts", "converted", "went_on", "not_final"]).sort((one, other) => one.keys[0] - other.keys[0]);
  const last = grids.funnel.kept;
  const ordinal = (one) => (one.keys[0] >= last ? `Attempt ${last} and later` : `Attempt ${one.keys[0]}`);
  const gaveUp = (one) => one.attempts - one.converted - one.went_on;
  return {
    empty: "No attempt of this selection belongs to a verification that began in it.",
    plots: list.length ? [{
      id: "funnel", kind: "rank", title: "What became of first, second and later attempts", labels: list.map(ordinal),
      series: stacked(list, [["Converted", "good", (one) => one.converted], ["Tried again", "second", (one) => one.went_on], ["Gave up", "rest", gaveUp]]),
      format: (value) => compact.format(value), tooltip: attemptLabel, says: `${count(list[0].attempts)} first attempts.`,
    }] : [],
    tables: [{
      id: "funnel", caption: "Attempts by their number within the verification",
      columns: [["Attempt", "text"], ["Attempts"], ["Converted"], ["Tried again"], ["Gave up"], ["Conversion rate"], ["Give-up rate"], ["Not final"]],
      rows: list.map((one) => ({
        cells: [ranked(ordinal(one), one.keys[0]), countCell(one.attempts), countCell(one.converted), countCell(one.went_on), countCell(gaveUp(one)), rateCell(one.converted, one.attempts), rateCell(gaveUp(one), one.attempts), countCell(one.not_final)],
      })),
    }],
  };
};

const QUEUE = { waiting: "Waiting to be fetched", to_retry: "Failed, to be fetched again", to_refresh: "Fetched, to be looked at again", last_known: "Will not become final", lost: "Lost: never seen, and forgotten by the API", dead: "Given up for another reason" };

const freshness = ({ known, sums, asked }) => {
  const list = [...sums.byStep.values()];
  const unpriced = (one) => one.attempts - one.priced;
  const whole = Object.fromEntries(known.freshness.map((row) => [row.measure, row]));
  const within = (measure) => known.queue.filter(([day, name]) => name === measure && day >= asked.from && day <= asked.to).reduce((sum, [, , number]) => sum + number, 0);
  return {
    plots: [{
      id: "freshness", title: "Attempts that are not final, or have no price",
      labels: timeAxis(sums),
      series: [
        { label: "Not final", colour: "second", stack: "final", values: list.map((one) => one.notFinal) },
        { label: "No price", colour: "fourth", stack: "price", values: list.map(unpriced) },
      ],
      format: (value) => compact.format(value), tooltip: attemptLabel,
      says: `${count(sums.total.notFinal)} not final, ${count(unpriced(sums.total))} without a price.`,
    }],
    tables: [
      {
        id: "freshness", caption: "What is not final or not priced, newest first",
        columns: [[stepName(sums.steps.length), "text"], ["Attempts"], ["Not final"], ["Share"], ["No price"], ["Share"]],
        rows: stepRows(sums, (one) => [countCell(one.attempts), countCell(one.notFinal), rateCell(one.notFinal, one.attempts), countCell(unpriced(one)), rateCell(unpriced(one), one.attempts)]),
      },
      {
        id: "queue", caption: "The queue, by the day on which SIDs came in; a SID that was never fetched has no service, channel or country yet, so these filters do not act here",
        columns: [["State", "text"], ["Queued in these days"], ["In all"], ["Oldest, UTC", "text"]],
        // The queue keeps no history.
        rows: known.asOf ? [] : Object.keys(QUEUE).map((name) => ({ cells: [QUEUE[name], countCell(within(name)), countCell(whole[name]?.number ?? 0), minute(whole[name]?.oldest)] })),
      },
    ],
  };
};

const SECTIONS = [
  { id: "conversion", title: "Conversion over time", report: ["conversion-daily"], build: conversionOverTime },
  { id: "success", title: "Verifications", report: ["verification-success-daily"], build: verifications },
  { id: "cost", title: "Cost over time", report: ["cost-daily"], build: costOverTime },
  { id: "channels", title: "Channels", report: ["conversion-daily"], half: true, build: splitBy("channel", "Attempts by channel") },
  { id: "countries", title: "Countries", report: ["conversion-daily"], half: true, build: splitBy("country", "Attempts by country") },
  { id: "each", title: "Cost per conversion", report: ["cost-per-conversion"], build: costPerConversion },
  { id: "carriers", title: "Carriers", report: ["carrier-performance"], build: carriers },
  { id: "errors", title: "Errors", report: ["delivery-errors"], build: errors },
  { id: "funnel", title: "Retries", report: ["retry-funnel"], half: true, build: funnel },
  { id: "services", title: "Services", report: ["conversion-daily"], half: true, build: splitBy("service", "Attempts by service") },
  { id: "freshness", title: "Freshness", report: ["freshness"], build: freshness },
];
