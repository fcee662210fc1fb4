// Values under the pointer, and by keyboard through a slider. The page is complete without it.
for (const figure of document.querySelectorAll("figure.chart")) {
  const marks = [...figure.querySelectorAll(".marks rect")];
  if (!marks.length) continue;
  const words = marks.map((mark) => {
    const title = mark.querySelector("title");
    const text = title.textContent;
    title.remove();
    return text;
  });
  const output = figure.querySelector("output");
  const slider = figure.querySelector("input");
  let shown = -1;
  const show = (n) => {
    if (n === shown) return;
    if (shown >= 0) marks[shown].classList.remove("on");
    shown = n;
    output.textContent = n < 0 ? "" : words[n];
    if (n < 0) return;
    marks[n].classList.add("on");
    slider.value = n;
    slider.setAttribute("aria-valuetext", words[n]);
  };
  const place = new Map(marks.map((mark, n) => [mark, n]));
  const point = (event) => place.has(event.target) && show(place.get(event.target));
  const plot = figure.querySelector(".marks");
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(-1));
  slider.max = marks.length - 1;
  slider.hidden = false;
  slider.addEventListener("input", () => show(Number(slider.value)));
  slider.addEventListener("focus", () => show(Number(slider.value)));
  slider.addEventListener("blur", () => show(-1));
}
