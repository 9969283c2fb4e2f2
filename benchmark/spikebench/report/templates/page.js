function chosenData(section) {
  const select = section.querySelector(".filter select");
  return select ? select.value : "";
}

// Plotly reads a few tags in its texts; names are to be shown as they are.
const plain = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const symbols = ["circle", "diamond", "square", "triangle-up", "cross", "star"];
const MOST_LABELS = 12;

function draw(plot) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const chosen = chosenData(document.getElementById(plot.id).closest("section"));
  const shown = plot.traces.filter((trace) => chosen === "" || trace.name === chosen);
  const count = shown.reduce((sum, trace) => sum + trace.points.length, 0);
  const traces = shown.map((trace) => {
    const place = plot.traces.indexOf(trace);
    const own = colour(`series-${(place % symbols.length) + 1}`);
    const spread = trace.points.map((point) => point.spread);
    return {
      type: "scatter",
      mode: count > MOST_LABELS ? "markers" : "markers+text",
      name: plain(trace.name),
      x: trace.points.map((point) => point.x),
      y: trace.points.map((point) => point.y),
      text: trace.points.map((point) => plain(point.name)),
      textposition: "top center",
      textfont: { size: 11, color: colour("quiet") },
      hovertext: trace.points.map((point) =>
        [`<b>${plain(point.name)}</b>`, ...point.details.map(plain)].join("<br>")),
      hoverinfo: "text",
      customdata: trace.points.map((point) => point.href),
      error_y: { type: "data", array: spread, visible: spread.some(Boolean), thickness: 1, color: own },
      marker: { size: 10, color: own, symbol: symbols[place % symbols.length] },
      cliponaxis: false,
    };
  });
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
    margin: { t: 24, r: 24, b: 48, l: 48 },
    showlegend: true,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } },
    xaxis: { ...axis, type: "log", title: { text: plain(plot.x) } },
    yaxis: { ...axis, title: { text: plain(plot.y) } },
  };
  return Plotly.react(plot.id, traces, layout, { responsive: true, displaylogo: false, displayModeBar: false });
}

const plots = JSON.parse(document.getElementById("plots").textContent);
for (const plot of plots) {
  draw(plot);
  document.getElementById(plot.id).on("plotly_click", (event) => {
    location.hash = event.points[0].customdata;
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(draw));

for (const select of document.querySelectorAll(".filter select")) {
  select.addEventListener("change", () => {
    const section = select.closest("section");
    for (const row of section.querySelectorAll("tbody tr")) {
      row.hidden = select.value !== "" && row.dataset.data !== select.value;
    }
    plots.filter((plot) => section.querySelector(`#${plot.id}`)).forEach(draw);
  });
}
