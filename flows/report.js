"use strict";
const viewer = document.getElementById("viewer");
const pictures = [...document.querySelectorAll(".picture")];
let shown = 0;
function show(index) {
  shown = (index + pictures.length) % pictures.length;
  const image = pictures[shown].querySelector("img");
  viewer.querySelector("img").src = image.src;
  viewer.querySelector("img").alt = image.alt;
  viewer.querySelector("p").textContent = image.alt;
}
pictures.forEach((button, index) => button.addEventListener("click", () => { show(index); viewer.showModal(); }));
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });

const choose = document.getElementById("choose");
if (choose) {
  const grid = document.querySelector(".cards-grid");
  const cards = [...grid.children];
  const value = (card, name) => card.dataset[name] === "" ? Infinity : Number(card.dataset[name]);
  const orders = {
    magnitude: (a, b) => value(a, "magnitude") - value(b, "magnitude"),
    number: (a, b) => value(a, "number") - value(b, "number"),
    noise: (a, b) => (Number(b.dataset.noise) || 0) - (Number(a.dataset.noise) || 0),
  };
  const apply = () => {
    const { order, limit, number, lines, count } = choose.elements;
    let visible = 0;
    for (const card of cards) {
      card.hidden = (limit.value !== "" && !(value(card, "magnitude") <= Number(limit.value)))
        || (number.value !== "" && card.dataset.number !== number.value)
        || Boolean(lines && lines.checked && card.dataset.lines === "0");
      visible += !card.hidden;
    }
    grid.append(...cards.sort(orders[order.value]));
    count.value = visible === cards.length ? `${visible} sources` : `${visible} of ${cards.length} sources`;
  };
  choose.addEventListener("input", apply);
  choose.addEventListener("submit", (event) => event.preventDefault());
  // A link from the mosaic leads to a source even when the filter hides it.
  addEventListener("hashchange", () => {
    const card = document.querySelector(location.hash.replace(/[^#\w-]/g, "") || "#none");
    if (card && card.hidden) { choose.reset(); apply(); card.scrollIntoView(); }
  });
}
