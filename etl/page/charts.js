// Draw with Chart.js, in the colours of the style sheet. What is not final is hatched or dashed, in
// proportion to its share.

const drawn = [];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const hatch = () => {
  const tile = document.createElement("canvas");
  tile.width = 7;
  tile.height = 7;
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour("card");
  pen.lineWidth = 2.5;
  pen.beginPath();
  for (const shift of [-7, 0, 7]) {
    pen.moveTo(shift - 1, 8);
    pen.lineTo(shift + 8, -1);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
};

/** Hatch the upper part of each stack of bars, as much of it as is not final. */
const hatching = (open) => ({
  id: "hatching",
  afterDatasetsDraw: (chart) => {
    const pen = chart.ctx;
    const bars = chart.getSortedVisibleDatasetMetas().filter((meta) => meta.type === "bar");
    pen.save();
    pen.fillStyle = hatch();
    open.forEach((part, place) => {
      const stack = bars.map((meta) => meta.data[place]).filter((bar) => bar && bar.y !== bar.base);
      if (!part || !stack.length) return;
      const top = Math.min(...stack.flatMap(({ y, base }) => [y, base]));
      const bottom = Math.max(...stack.flatMap(({ y, base }) => [y, base]));
      const { x, width } = stack[0];
      pen.fillRect(x - width / 2, top, width, (bottom - top) * part);
    });
    pen.restore();
  },
});

const short = (text, most = 34) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Fold a label into two lines that fit beside the bars. */
const folded = (text, most) => {
  if (text.length <= most) return text;
  const space = text.lastIndexOf(" ", most);
  const end = space > 0 ? space : most;
  return [text.slice(0, end), short(text.slice(end).trim(), most)];
};
const LETTER = 7.5;
const lettersOf = (width) => Math.min(34, Math.max(10, Math.floor((width * 0.45) / LETTER)));
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const axis = (more = {}) => ({
  border: { display: false },
  ...more,
  grid: { color: colour("grid"), drawTicks: false, ...more.grid },
  ticks: { color: colour("soft"), padding: 6, maxRotation: 0, autoSkipPadding: 14, ...more.ticks },
});

const common = ({ tooltip, ...rest }) => ({
  animation: false,
  responsive: true,
  maintainAspectRatio: false,
  interaction: { mode: "index", intersect: false, axis: rest.indexAxis ?? "x" },
  plugins: {
    legend: { display: false },
    tooltip: {
      backgroundColor: colour("card"), titleColor: colour("ink"), bodyColor: colour("ink"),
      borderColor: colour("line"), borderWidth: 1, padding: 10, boxPadding: 4, cornerRadius: 6,
      callbacks: { label: tooltip },
    },
  },
  ...rest,
});

const bars = (series) => ({
  type: "bar",
  label: series.label,
  data: series.values,
  stack: series.stack ?? "one",
  yAxisID: "y",
  order: 2,
  maxBarThickness: 34,
  categoryPercentage: 0.86,
  barPercentage: 0.95,
  backgroundColor: colour(series.colour),
});

const dashes = (part) => (part ? [8 - 5 * part, 4 * part] : undefined);

const line = (series, open) => ({
  type: "line",
  label: series.label,
  data: series.values,
  yAxisID: series.axis ?? "y",
  order: 1,
  borderColor: colour(series.colour),
  backgroundColor: colour("card"),
  pointBorderColor: colour(series.colour),
  pointBackgroundColor: series.values.map((_, place) => (open?.[place] > 0.5 ? colour("card") : colour(series.colour))),
  borderWidth: 2.5,
  borderDash: series.dash ?? [],
  pointRadius: series.values.length > 62 ? 0 : 2.5,
  pointHoverRadius: 5,
  pointHitRadius: 8,
  tension: 0.2,
  spanGaps: false,
  segment: { borderDash: (at) => dashes(open?.[at.p1DataIndex]) },
});

/** Draw steps of time: stacked bars, lines, or both; `rate` lines have a percent axis of their own. */
const timeChart = ({ labels, series, open, format, tooltip }) => {
  const rates = series.some((one) => one.axis === "rate");
  const scales = {
    x: axis({ stacked: true, grid: { display: false } }),
    y: axis({ stacked: true, beginAtZero: true, ticks: { callback: format, maxTicksLimit: 6 } }),
  };
  if (rates) {
    scales.rate = axis({
      position: "right", min: 0, max: 100, grid: { display: false },
      ticks: { callback: (value) => `${value}%`, maxTicksLimit: 6 },
    });
  }
  if (!series.some((one) => one.kind !== "line")) scales.y.stacked = false;
  const datasets = series.map((one) => (one.kind === "line" ? line(one, open) : bars(one)));
  return { type: "bar", data: { labels, datasets }, options: common({ scales, tooltip }), plugins: open ? [hatching(open)] : [] };
};

/** Draw a ranking: one stacked bar for each name; a click on one filters by it. */
const rankChart = ({ labels, series, tooltip, format, pick }, width) => ({
  type: "bar",
  data: { labels: labels.map((label) => folded(label, lettersOf(width))), datasets: series.map((one) => bars(one)) },
  options: common({
    indexAxis: "y",
    scales: {
      x: axis({ stacked: true, beginAtZero: true, ticks: { callback: format, maxTicksLimit: 6 } }),
      y: axis({ stacked: true, grid: { display: false }, ticks: { autoSkip: false } }),
    },
    tooltip,
    onClick: pick ? (_, found) => found.length && pick(found[0].index) : undefined,
    onHover: pick ? (event, found) => { event.native.target.style.cursor = found.length ? "pointer" : ""; } : undefined,
  }),
});

const legend = (series, open) => {
  const items = series.map((one) => [one.label, one.colour, one.kind === "line" ? "line" : ""]);
  if (open?.some(Boolean)) items.push([`${series.every((one) => one.kind === "line") ? "Dashed" : "Hatched"}: the share not final, which can still change`, series[0].colour, "hatched"]);
  const list = el("ul", { class: "key", "aria-hidden": "true" });
  for (const [label, name, kind] of items) {
    const swatch = el("i", { class: kind });
    swatch.style.setProperty("--swatch", `var(--${name})`);
    list.append(el("li", {}, swatch, label));
  }
  return list;
};

/** Make a figure; the label of its canvas describes it to screen readers. */
const figure = (plot) => {
  const canvas = el("canvas", { role: "img", "aria-label": `${plot.title}. ${plot.says} The table below has the numbers.` });
  const box = el("div", { class: "plot" }, canvas);
  if (plot.kind === "rank") box.style.height = `${Math.max(7, 2.6 + plot.labels.length * 2)}rem`;
  const made = el("figure", { "data-plot": plot.id }, el("figcaption", {}, plot.title), legend(plot.series, plot.open), box);
  drawn.push({ canvas, plot, chart: null });
  return made;
};

const configOf = (plot, width) => (plot.kind === "rank" ? rankChart(plot, width) : timeChart(plot));

const drawAll = () => {
  for (const one of drawn) {
    one.chart?.destroy();
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 12;
    one.chart = new Chart(one.canvas, configOf(one.plot, one.canvas.parentElement.clientWidth));
  }
};

const PAPER = { width: 690, most: 250, sharp: 2 };

/** Put a light picture of each chart into the page, in the width of the paper. */
const onPaper = (yes) => {
  for (const old of document.querySelectorAll("canvas.paper")) old.remove();
  if (!yes) return;
  const { dataset } = document.documentElement;
  const before = dataset.theme;
  dataset.theme = "light";
  for (const { canvas, plot } of drawn) {
    const drawing = el("canvas");
    drawing.width = PAPER.width;
    drawing.height = plot.kind === "rank" ? 40 + plot.labels.length * 20 : PAPER.most;
    const config = configOf(plot, PAPER.width);
    Object.assign(config.options, { responsive: false, devicePixelRatio: PAPER.sharp });
    const chart = new Chart(drawing, config);
    // A picture, because a printer would otherwise get every stroke of a hatched bar.
    const sheet = el("canvas", { class: "paper", "aria-hidden": "true" });
    sheet.width = drawing.width;
    sheet.height = drawing.height;
    sheet.getContext("2d").drawImage(drawing, 0, 0);
    canvas.parentElement.append(sheet);
    chart.destroy();
  }
  if (before) dataset.theme = before;
  else delete dataset.theme;
};

const forget = () => {
  for (const one of drawn) one.chart?.destroy();
  drawn.length = 0;
};
