// Draws a plot when its part of the page is first seen, and shows one evaluation set at a time.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const options = { actions: false, renderer: "svg", ast: true, tooltip: { theme: "page" } };
  const draw = (element) => {
    if (element.dataset.drawn || !element.clientWidth) return;
    element.dataset.drawn = "yes";
    vegaEmbed(element, specs[element.dataset.chart], options).then(({ view }) => {
      let width = element.clientWidth;
      new ResizeObserver(() => {
        if (element.clientWidth && element.clientWidth !== width) {
          width = element.clientWidth;
          view.width(width).runAsync();
        }
      }).observe(element);
    });
  };
  const drawAll = () => document.querySelectorAll(".chart").forEach(draw);
  const buttons = [...document.querySelectorAll(".switch button")];
  const show = (name) => {
    document.querySelectorAll("[data-dataset]").forEach((one) => { one.hidden = one.dataset.dataset !== name; });
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one.value === name)));
    drawAll();
  };
  buttons.forEach((one) => one.addEventListener("click", () => show(one.value)));
  if (buttons.length) show(buttons[0].value);
  else drawAll();
})();
