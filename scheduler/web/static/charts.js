"use strict";
// Draws each [data-chart] from the JSON block whose id it names, in the colours of the style sheet.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function coloured(value) {
    if (typeof value === "string") return value.replace(/^var\((--\w+)\)$/, (_all, name) => colour(name));
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
    return value;
  }

  function draw(place) {
    const figure = coloured(JSON.parse(document.getElementById(place.dataset.chart).textContent));
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--dim"), automargin: true, fixedrange: false };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), family: getComputedStyle(document.body).fontFamily, size: 12 },
      margin: { l: 48, r: 12, t: 12, b: 36 },
      colorway: ["--cyan", "--yellow", "--green", "--red", "--dim"].map(colour),
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--card"), font: { color: colour("--text") } },
      legend: { orientation: "h", y: -0.15 },
      ...figure.layout,
    };
    for (const name of ["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d/.test(key))])
      layout[name] = { ...axis, ...layout[name] };
    Plotly.react(place, figure.data, layout, { displayModeBar: false, displaylogo: false, responsive: true });
  }

  // The last months of every chart of the page, the values that are then in sight filling its height; 0: all.
  function show(months) {
    document.querySelectorAll("[data-chart]").forEach((place) => {
      const ends = place.data.flatMap((line) => line.x.slice(-1)).sort(), last = ends[ends.length - 1];
      const begin = new Date(last);
      begin.setUTCMonth(begin.getUTCMonth() - months);
      const first = months ? begin.toISOString().slice(0, 10) : "";
      const seen = place.data.flatMap((line) => line.y.filter((y, at) => y !== null && line.x[at] >= first));
      const low = Math.min(...seen), high = Math.max(...seen), edge = (high - low || 1) * 0.05;
      Plotly.relayout(place, months
        ? { "xaxis.range": [first, last], "yaxis.range": [low - edge, high + edge] }
        : { "xaxis.autorange": true, "yaxis.autorange": true });
    });
    document.querySelectorAll("button[data-months]").forEach((button) => {
      button.setAttribute("aria-pressed", Number(button.dataset.months) === months);
    });
  }

  document.querySelectorAll("button[data-months]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => show(Number(button.dataset.months)));
  });
  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  drawAll();
  dark.addEventListener("change", drawAll);
})();
