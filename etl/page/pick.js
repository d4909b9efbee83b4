// Choose some of many: a summary of the choice above a list of boxes.

const PLURALS = { service: "services", channel: "channels", country: "countries" };
const MANY = 12;

/** List the codes that a kind can be filtered by. */
const choices = (kind) => {
  const { names, other } = known.names[kind];
  return Array.from({ length: names.length + (other ? 1 : 0) }, (_, code) => code);
};

const OTHERS = "*";

/** Spell a code for the address: the name itself, so that a link means the same on every page. */
const wordOf = (kind, code) => {
  const { names } = known.names[kind];
  return code < names.length ? names[code] ?? "" : OTHERS;
};

const optionsOf = (kind) => {
  const found = choices(kind).map((code) => [named(known, kind, code), code]);
  const { names } = known.names[kind];
  if (kind === "country") {
    found.sort(([one, code], [other, another]) => (code >= names.length) - (another >= names.length) || one.localeCompare(other, "en"));
  }
  return found;
};

const boxesOf = (kind) => [...at(`pick-${kind}`).querySelectorAll("input[type=checkbox]")];

const makePick = (kind) => {
  const option = (label, value) => el("label", {}, el("input", { type: "checkbox", value }), el("span", {}, label));
  const options = optionsOf(kind);
  const list = el("div", { class: "list" }, ...options.map(([label, code]) => option(label, code)));
  const panel = el("div", { class: "options", role: "group", "aria-labelledby": `label-${kind}` });
  if (options.length > MANY) {
    const search = el("input", { type: "search", placeholder: "Find…", "aria-label": `Find ${PLURALS[kind]}` });
    search.addEventListener("input", () => {
      const text = search.value.trim().toLowerCase();
      for (const line of list.children) line.hidden = !line.textContent.toLowerCase().includes(text);
    });
    panel.append(search);
  }
  panel.append(option(`All ${PLURALS[kind]}`, "all"), list);
  at(`pick-${kind}`).append(panel);
};

const fillPick = (kind, codes) => {
  for (const box of boxesOf(kind)) {
    box.checked = box.value === "all" ? codes === ALL : Boolean(codes?.includes(Number(box.value)));
  }
  const names = (codes ?? []).map((code) => named(known, kind, code));
  const words = names.length > 2 ? `${names.length} ${PLURALS[kind]}` : names.join(", ");
  at(`value-${kind}`).textContent = words || `All ${PLURALS[kind]}`;
  at(`pick-${kind}`).classList.toggle("chosen", codes !== ALL);
};

const listenPick = (kind, choose) => {
  const holder = at(`pick-${kind}`);
  holder.addEventListener("change", (event) => {
    if (event.target.type !== "checkbox") return;
    const ticked = boxesOf(kind).filter((box) => box.checked && box.value !== "all").map((box) => Number(box.value));
    choose(event.target.value === "all" ? ALL : ticked);
  });
  holder.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !holder.open) return;
    holder.open = false;
    at(kind).focus();
  });
  // Close it when the focus moves elsewhere.
  document.addEventListener("pointerdown", (event) => {
    if (!holder.contains(event.target)) holder.open = false;
  });
  holder.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !holder.contains(event.relatedTarget)) holder.open = false;
  });
};
