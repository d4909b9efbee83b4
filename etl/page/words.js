// Turn numbers, days and names into words. An unknown value is a dash.

const DASH = "–";
const DAY_MS = 86400000;
const MILLION = 1000000n;

const counted = new Intl.NumberFormat("en", { useGrouping: true });
const count = (value) => counted.format(value);

/** Give part / whole in tenths of a percent, rounded half up; null of nothing. */
const tenths = (part, whole) => (whole ? Math.round((part * 1000) / whole) : null);
const percent = (part, whole) => {
  const found = tenths(part, whole);
  return found === null ? DASH : `${(found / 10).toFixed(1)}%`;
};

/** Give part / whole to two decimals. */
const ratio = (part, whole) => (whole ? (Math.round((part * 100) / whole) / 100).toFixed(2) : DASH);

/** Divide whole numbers, rounded half away from zero. */
const divided = (value, by) => {
  const half = value < 0n ? -by : by;
  return (2n * value + half) / (2n * by);
};

/** Write an amount, or an amount divided, rounded once. */
const written = (millionths, decimals, by = 1n) => {
  const scaled = divided(millionths, 10n ** BigInt(6 - decimals) * by);
  const digits = String(scaled < 0n ? -scaled : scaled).padStart(decimals + 1, "0");
  const whole = counted.format(BigInt(digits.slice(0, digits.length - decimals)));
  return `${scaled < 0n ? "-" : ""}${whole}${decimals ? "." : ""}${decimals ? digits.slice(-decimals) : ""}`;
};

/** An amount with two decimals, or six where two would hide it; null is not known. */
const amountOf = (millionths) => (millionths === null ? null : { millionths, by: 1n, usual: 2, least: MILLION });

/** The price of one of several things: four decimals, or six where it is small. */
const meanOf = (millionths, by) =>
  millionths === null || !by ? null : { millionths, by: BigInt(by), usual: 4, least: 10000n * BigInt(by) };

const decimalsOf = ({ millionths, usual, least }) => {
  const size = millionths < 0n ? -millionths : millionths;
  return size >= least || size === 0n ? usual : 6;
};
const amountText = (one, decimals = one && decimalsOf(one)) => (one ? written(one.millionths, decimals, one.by) : DASH);
const money = (millionths) => amountText(amountOf(millionths));
const each = (millionths, by) => amountText(meanOf(millionths, by));
const eachNumber = (millionths, by) =>
  !by || millionths === null ? null : Number(divided(millionths, BigInt(by))) / 1e6;

const iso = (day) => new Date(day * DAY_MS).toISOString().slice(0, 10);
const dayOf = (text) => Math.round(Date.parse(`${text}T00:00:00Z`) / DAY_MS);
const shortDay = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });
const near = (day) => shortDay.format(new Date(day * DAY_MS));
const minute = (text) => (text ? `${text.slice(0, 10)} ${text.slice(11, 16)}` : DASH);
const stepName = (length) => ({ 1: "Day", 7: "Week from", 28: "Four weeks from" })[length];
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const regions = new Intl.DisplayNames(["en"], { type: "region", fallback: "none" });
const region = (code) => {
  try {
    return regions.of(code);
  } catch {
    return undefined;
  }
};

const nameOf = {
  service: (name) => (/^VA[0-9a-f]{32}$/i.test(name) ? `${name.slice(0, 8)}…${name.slice(-4)}` : name),
  channel: (name) => ({ sms: "SMS", rbm: "RCS (rbm)", whatsapp: "WhatsApp", call: "Call", email: "E-mail" })[name] ?? name,
  country: (name) => (region(name) ? `${region(name)} (${name})` : name),
  carrier: (name) => name,
  error: (name) => name,
  currency: (name) => name,
};
const unknown = {
  service: "No service", channel: "No channel", country: "No country", carrier: "No carrier",
  error: "No code", currency: "No currency",
};
const others = {
  service: "Other services", channel: "Other channels", country: "Other countries",
  carrier: "Other carriers", error: "Other codes", currency: "Other currencies",
};

/** Name the code of a kind: its name, the word for none, or the word for all others. */
const named = (known, kind, code) => {
  const { names } = known.names[kind];
  if (code >= names.length) return others[kind];
  const name = names[code];
  return name === null || name === "" ? unknown[kind] : nameOf[kind](name);
};
