// Unpack what etl/page/pack.py has packed.

const inflated = async (text) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length).map((_, at) => raw.charCodeAt(at));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};

/** Give a grid's columns as arrays of numbers; an amount is two, whole units and millionths. */
const unpacked = async ({ data, columns, parts, amounts, ...found }) => {
  const buffer = await inflated(data);
  const { rows } = found;
  let at = 0;
  for (const [name, size] of columns) {
    const values = new Float64Array(rows);
    for (let left = size, weight = 1; left > 0; left -= 1, weight *= 256, at += rows) {
      const plane = new (left > 1 ? Uint8Array : Int8Array)(buffer, at, rows);
      for (let row = 0; row < rows; row += 1) values[row] += plane[row] * weight;
    }
    const whole = found[parts[name]];
    found[name] = whole ? values.map((lack, row) => whole[row] - lack) : values;
  }
  for (const [name, per] of Object.entries(amounts)) {
    const [mean, rest] = [found[name], found[`${name}_rest`]];
    const counts = found[per].map((count) => count || 1);
    found[name] = {
      units: mean.map((value, row) => Math.trunc(value / 1e6) * counts[row]),
      millionths: mean.map((value, row) => (value % 1e6) * counts[row] + rest[row]),
    };
  }
  return found;
};
