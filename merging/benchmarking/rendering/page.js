"use strict";
// The page's script. Without it, and in print, the page is whole: static pictures, all rows, no buttons.
// It makes columns sort, methods hide, models filter; and it puts live charts in the place of the static ones.

const NARROW = matchMedia("(max-width: 640px)");
const naturally = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

// Tables -----------------------------------------------------------------------------------------------------------

// A cell's value: a number where it is one; undefined where there is none, as in rows of what did not finish.
function valueOf(row, column) {
  const text = row.cells[column]?.dataset.value;
  return text === undefined || text === "" ? undefined : Number.isNaN(Number(text)) ? text : Number(text);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return naturally.compare(String(one), String(other));
}

// Numbers begin with the largest, names and costs with the smallest; a third click restores the order that was.
function makeSortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const original = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    const first = head.dataset.order ?? "descending";
    const turns = { none: first, [first]: first === "ascending" ? "descending" : "ascending" };
    button.addEventListener("click", () => {
      const order = turns[head.getAttribute("aria-sort")] ?? "none";
      for (const each of heads) each.setAttribute("aria-sort", each === head ? order : "none");
      const sign = order === "ascending" ? 1 : -1;
      const known = order === "none" ? original : original.filter((row) => valueOf(row, column) !== undefined);
      const rest = original.filter((row) => !known.includes(row)); // last, whichever way the others stand
      const sorted = [...known];
      if (order !== "none") sorted.sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column)));
      body.append(...sorted, ...rest);
    });
  });
}

function makeFilter(section) {
  const line = section.querySelector(".filter");
  if (!line) return;
  const [field, status, rows] = [line.querySelector("input"), line.querySelector("[role=status]"), section.querySelector("tbody").rows];
  line.hidden = false;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    status.textContent = words.length ? `${[...rows].filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}

// Methods ----------------------------------------------------------------------------------------------------------

// What is hidden in one part of the page: buttons, rows, coefficients, and the marks of live charts follow.
class Methods {
  constructor(part) {
    this.part = part;
    this.hidden = new Set();
    this.views = new Map();
    const nav = part.querySelector(".chips");
    this.buttons = [...nav.querySelectorAll("[data-method]")];
    this.all = nav.querySelector(".all");
    for (const button of this.buttons) {
      const method = button.dataset.method;
      button.addEventListener("click", (event) => (event.altKey ? this.only(method) : this.toggle(method)));
      button.addEventListener("dblclick", () => this.only(method));
    }
    this.all.addEventListener("click", () => this.set([]));
    nav.hidden = this.buttons.length < 2;
  }

  knows(method) {
    return this.buttons.some((button) => button.dataset.method === method);
  }

  toggle(method) {
    this.set(this.hidden.has(method) ? [...this.hidden].filter((each) => each !== method) : [...this.hidden, method]);
  }

  only(method) {
    this.set(this.buttons.map((button) => button.dataset.method).filter((each) => each !== method));
  }

  set(methods) {
    this.hidden = new Set(methods);
    for (const button of this.buttons) button.setAttribute("aria-pressed", !this.hidden.has(button.dataset.method));
    for (const each of this.part.querySelectorAll("tr[data-method], figure[data-method]"))
      each.hidden = this.hidden.has(each.dataset.method);
    this.all.disabled = !this.hidden.size;
    for (const view of this.views.values()) this.apply(view);
  }

  apply(view) {
    view.signal("hidden", [...this.hidden]).runAsync();
  }
}

// Charts -----------------------------------------------------------------------------------------------------------

const tip = document.createElement("div");
tip.setAttribute("role", "tooltip");
tip.hidden = true;

// Vega's tooltips, as text alone: the first line names what it is, the others are its figures.
function showTip(handler, event, item, value) {
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  const list = document.createElement("dl");
  for (const [key, text] of typeof value === "object" ? Object.entries(value) : [["", value]])
    for (const [tag, said] of [["dt", key], ["dd", text]]) list.appendChild(document.createElement(tag)).textContent = said;
  tip.replaceChildren(list);
  const [wide, tall] = [tip.offsetWidth, tip.offsetHeight];
  const above = event.clientY + 16 + tall > innerHeight;
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - wide - 8))}px`;
  tip.style.top = `${Math.max(8, above ? event.clientY - tall - 12 : event.clientY + 16)}px`;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (each) => each.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function draw(figure, specifications, methods) {
  const target = figure.querySelector(".live");
  const specification = specifications[NARROW.matches ? "narrow" : "wide"];
  figure.classList.add("is-live"); // before it is drawn, so that what measures its surroundings finds them
  const { view } = await vegaEmbed(target, specification, { renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip });
  methods.views.get(figure)?.finalize();
  methods.views.set(figure, view);
  if (methods.hidden.size) methods.apply(view);
  view.addEventListener("click", (event, item) => {
    // A finger points by touching, of which Vega tells nothing; it hides with the buttons.
    if (event.pointerType === "touch") return showTip(null, event, item, item?.tooltip);
    const method = item?.datum?.method;
    if (methods.knows(method)) methods.toggle(method);
    tip.hidden = true;
  });
}

async function goLive(parts) {
  const root = document.documentElement;
  const data = document.getElementById("charts");
  if (!data || !("DecompressionStream" in window)) return void (root.dataset.charts = "static");
  const specifications = JSON.parse(await unpack(data.textContent));
  const script = document.createElement("script");
  script.textContent = await unpack(document.getElementById("vega").textContent);
  document.head.append(script);
  document.body.append(tip);
  const drawAll = async () => {
    for (const [part, methods] of parts)
      for (const figure of part.querySelectorAll("figure"))
        if (specifications[figure.id]) {
          try {
            await draw(figure, specifications[figure.id], methods);
          } catch (error) {
            figure.classList.remove("is-live"); // its static picture stays
            console.error(error);
          }
        }
  };
  await drawAll();
  NARROW.addEventListener("change", drawAll);
  addEventListener("scroll", () => (tip.hidden = true), { passive: true });
  root.dataset.charts = "live";
}

const parts = new Map([...document.querySelectorAll(".part")].map((part) => [part, new Methods(part)]));
for (const table of document.querySelectorAll("table")) makeSortable(table);
for (const section of document.querySelectorAll(".models")) makeFilter(section);
goLive(parts);
