// Unpack the cubes: see etl/page/pack.py, which packs them.

const bytesOf = (text) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at += 1) bytes[at] = raw.charCodeAt(at);
  return bytes;
};

const inflated = async (text) => {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const unzigzag = (value) => (value % 2 ? -(value + 1) / 2 : value / 2);

/** Give a cube's columns as arrays of numbers; an amount is two, whole units and millionths. */
const unpacked = async (cube) => {
  const bytes = await inflated(cube.data);
  const { rows, planes } = cube;
  let at = 0;
  let next = 0;
  const column = () => {
    const values = new Float64Array(rows);
    let weight = 1;
    for (let left = planes[next]; left > 0; left -= 1, weight *= 256) {
      for (let row = 0; row < rows; row += 1, at += 1) values[row] += bytes[at] * weight;
    }
    next += 1;
    return values;
  };
  const found = { rows, daysFrom: cube.daysFrom, weeksFrom: cube.weeksFrom, kept: cube.kept };
  for (const key of cube.keys) {
    const values = column();
    let sum = 0;
    for (let row = 0; row < rows; row += 1) {
      sum += unzigzag(values[row]);
      values[row] = sum;
    }
    found[key] = values;
  }
  for (const { name, of, per } of cube.measures) {
    const values = column();
    if (per) {
      const beside = column();
      const rest = column();
      const units = new Float64Array(rows);
      const millionths = new Float64Array(rows);
      for (let row = 0; row < rows; row += 1) {
        const count = found[per][row] || 1;
        units[row] = unzigzag(values[row]) * count;
        millionths[row] = beside[row] * count + rest[row];
      }
      found[name] = { units, millionths };
    } else {
      if (of) for (let row = 0; row < rows; row += 1) values[row] = found[of][row] - unzigzag(values[row]);
      found[name] = values;
    }
  }
  return found;
};
