// A bar a unit, all of equal length: every cycle of every unit is work or one kind of wait.

// Hatches of the figures as tiles of eight by eight.
const HATCHES = {
  "//": "M-2,2L2,-2M0,8L8,0M6,10L10,6",
  xx: "M0,0L8,8M0,8L8,0",
  "..": "M2,2h1.6M6,6h1.6",
  "++": "M4,0V8M0,4H8",
};

function activityOf(style, key) {
  return style.activities.find((activity) => activity.key === key) || { key, ...style.unknown, meaning: key };
}

// A pattern for each hatch and the fill that uses it.
function fills(svg, style, keys, prefix) {
  const found = {};
  for (const key of keys) {
    const { colour, hatch } = activityOf(style, key);
    if (!hatch) {
      found[key] = colour;
      continue;
    }
    const id = `${prefix}-${key}`;
    const tile = drawn("pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" }, drawn("rect", { width: 8, height: 8, fill: colour }), drawn("path", { d: HATCHES[hatch], stroke: "#ffffff", "stroke-width": hatch === ".." ? 1.8 : 0.9 }));
    svg.append(drawn("defs", {}, tile));
    found[key] = `url(#${id})`;
  }
  return found;
}

function stalls(run, style) {
  const known = style.activities.map((activity) => activity.key);
  const met = Object.keys(Object.assign({}, ...run.units.map((row) => row.cycles)));
  const keys = [...known, ...met.filter((key) => !known.includes(key))].filter((key) => run.units.some((row) => row.cycles[key]));
  const height = 26 * run.units.length + 40;
  const svg = drawing(860, height, `Where the ${shown(run.cycles)} cycles of each unit go`);
  const box = { left: 150, right: 840, top: 4, bottom: height - 36 };
  const fill = fills(svg, style, keys, "wait");
  run.units.forEach((row, index) => {
    let left = box.left;
    const top = box.top + 26 * index;
    svg.append(drawn("text", { x: box.left - 8, y: top + 17, "text-anchor": "end" }, words(row.unit)));
    for (const key of keys.filter((name) => row.cycles[name])) {
      const share = row.cycles[key] / run.cycles;
      const width = share * (box.right - box.left);
      const part = drawn("rect", { class: "share", x: left, y: top + 2, width, height: 22, fill: fill[key], role: "img", "data-unit": row.unit, "data-activity": key });
      explain(part, `${words(row.unit)}: ${activityOf(style, key).meaning || key}\n${shown(row.cycles[key])} cycles, ${percent(share)}`);
      link(part, "units", row.unit);
      svg.append(part);
      left += width;
    }
  });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(drawn("text", { x: box.left + share * (box.right - box.left), y: box.bottom + 16, "text-anchor": "middle" }, `${100 * share} %`));
  }
  const legend = element("ul", { class: "legend" });
  for (const key of keys) {
    const sample = drawn("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" });
    const own = fills(sample, style, [key], "key");
    sample.append(drawn("rect", { width: 22, height: 14, fill: own[key] }));
    legend.append(element("li", {}, sample, activityOf(style, key).meaning || key));
  }
  return element("figure", { id: "stalls" }, svg, legend, element("figcaption", {}, `Share of ${shown(run.cycles)} cycles. The table of units below has the counts.`));
}
