"use strict";
const PAGE = 100;
const sources = JSON.parse(document.getElementById("data").textContent);
const body = document.getElementById("rows");
const choose = document.getElementById("choose");
const viewer = document.getElementById("viewer");
let key = "magnitude", rising = true, first = 0, chosen = sources;

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
};
const drawn = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
};
const shown = (value, digits) => value === null ? "–" : value.toFixed(digits);

function plot(source) {
  const svg = drawn("svg", { class: "spark", viewBox: "0 0 220 44", role: "img", "aria-label": `Spectra of source ${source.number}` });
  for (const [tone, path] of source.curves) svg.append(drawn("path", { class: `tone-${tone}`, d: path }));
  return svg;
}

function row(source) {
  const picture = source.picture
    ? element("img", { src: source.picture, alt: `Direct image of source ${source.number}`, class: "thumb" }) : "–";
  const files = source.products.map(([optics, product]) => element("a", { href: encodeURI(product) }, optics));
  if (source.preview) {
    const button = element("button", { type: "button", class: "link" }, "preview");
    button.addEventListener("click", () => show(source));
    files.unshift(button);
  }
  const cell = (text) => element("td", { class: "number" }, text);
  return element("tr", { id: source.anchor },
    element("td", {}, picture),
    element("th", { scope: "row" },
      source.card ? element("a", { href: `${REPORT}#${source.anchor}` }, String(source.number)) : String(source.number)),
    cell(shown(source.magnitude, 2)), cell(source.noise === null ? "–" : String(Number(source.noise.toPrecision(3)))),
    cell(shown(source.ra, 5)), cell(shown(source.dec, 5)),
    ...(document.querySelector("[data-key=redshift]") ? [cell(shown(source.redshift, 3))] : []),
    element("td", {}, plot(source)), element("td", { class: "files" }, ...files.flatMap((file) => [file, " "])));
}

function show(source) {
  const image = viewer.querySelector("img");
  image.src = source.preview;
  image.alt = `Preview of source ${source.number}`;
  viewer.querySelector("p").textContent = image.alt;
  viewer.showModal();
}

function draw() {
  body.replaceChildren(...chosen.slice(first, first + PAGE).map(row));
  const last = Math.min(first + PAGE, chosen.length);
  document.getElementById("place").textContent = chosen.length ? `${first + 1} to ${last} of ${chosen.length}` : "none";
  document.getElementById("before").disabled = first === 0;
  document.getElementById("after").disabled = last === chosen.length;
  for (const button of document.querySelectorAll("[data-key]")) {
    const sorted = button.dataset.key === key ? (rising ? "ascending" : "descending") : "none";
    button.closest("th").setAttribute("aria-sort", sorted);
  }
}

function apply() {
  const { find, limit, noise, lines, count } = choose.elements;
  const words = find.value.trim().split(/[\s,]+/).filter(Boolean);
  const place = words.length === 2 ? words.map(Number) : null;
  const at = place && place.every(Number.isFinite) ? place : null;
  const distance = (one) => one.ra === null ? Infinity : Math.hypot(
    (((one.ra - at[0] + 540) % 360) - 180) * Math.cos(at[1] * Math.PI / 180), one.dec - at[1]);
  chosen = sources.filter((one) =>
    (at || !words.length || words.includes(String(one.number)))
    && (limit.value === "" || (one.magnitude !== null && one.magnitude <= Number(limit.value)))
    && (noise.value === "" || (one.noise !== null && one.noise >= Number(noise.value)))
    && (!lines.checked || one.lines > 0));
  // What has no value is last, whichever way; a position brings the nearest to the top.
  const value = (one) => at ? distance(one) : one[key];
  const sign = at || rising ? 1 : -1;
  chosen.sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    if (one === null || other === null) return (one === null) - (other === null) || a.number - b.number;
    return sign * (one - other) || a.number - b.number;
  });
  first = 0;
  count.value = chosen.length === sources.length ? `${sources.length} sources` : `${chosen.length} of ${sources.length} sources`;
  draw();
}

for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", () => {
    // Bright magnitudes are small, good signal-to-noise is large: the best come first.
    rising = key === button.dataset.key ? !rising : button.dataset.key !== "noise";
    key = button.dataset.key;
    apply();
  });
}
const turn = (step) => { first += step; draw(); document.querySelector("table").scrollIntoView(); };
document.getElementById("before").addEventListener("click", () => turn(-PAGE));
document.getElementById("after").addEventListener("click", () => turn(PAGE));
choose.addEventListener("input", apply);
choose.addEventListener("submit", (event) => event.preventDefault());
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
apply();
