// Any two columns of the points against each other, with the front that no point beats.

const MOST_NAMED = 15;

// Places of the points that no other beats in both columns, in order of x; a column without a better side has no front.
function front(points, xColumn, yColumn) {
  if (!xColumn.better || !yColumn.better) {
    return [];
  }
  const cost = (value, column) => (column.better === "higher" ? -value : value);
  const order = [...points].sort((a, b) => cost(a.x, xColumn) - cost(b.x, xColumn) || cost(a.y, yColumn) - cost(b.y, yColumn));
  let best = Infinity;
  return order.filter((point) => {
    const better = cost(point.y, yColumn) < best;
    best = Math.min(best, cost(point.y, yColumn));
    return better;
  });
}

// Each step goes first to the worse side, so that the line bounds what the front leaves.
function staircase(points, x, y) {
  return points.map((point, index) => (index ? `H${x.place(point.x)}V${y.place(point.y)}` : `M${x.place(point.x)},${y.place(point.y)}`)).join("");
}

function told(spec, row) {
  return spec.table.columns.map((column, place) => `${titled(column)}: ${shown(row[place])}`).join("\n");
}

function scatterDrawing(spec, style, chosen) {
  const { columns, rows } = spec.table;
  const place = (key) => columns.findIndex((column) => column.key === key);
  const [xPlace, yPlace] = [place(chosen.x), place(chosen.y)];
  const points = rows
    .map((row, index) => ({ row, key: String(row[0]), x: row[xPlace], y: row[yPlace], best: spec.front.includes(index) }))
    .filter((point) => point.x !== null && point.y !== null);
  const svg = drawing(860, 460, `${titled(columns[yPlace])} over ${titled(columns[xPlace])} of ${points.length} points`);
  const box = { left: 80, right: 840, top: 14, bottom: 410 };
  const wide = (values, wanted) => wanted && values.every((value) => value > 0);
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const [xLog, yLog] = [wide(xs, chosen.xLog), wide(ys, chosen.yLog)];
  const x = scale(...span(xs, xLog), box.left, box.right, xLog);
  const y = scale(...span(ys, yLog), box.bottom, box.top, yLog);
  axes(svg, box, x, y, { x: titled(columns[xPlace]), y: columns[yPlace].label || titled(columns[yPlace]) });
  svg.append(drawn("path", { class: "front-line", d: staircase(front(points, columns[xPlace], columns[yPlace]), x, y) }));
  const named = points.filter((point) => point.best).length <= MOST_NAMED;
  // The front comes last, so that no other point lies on it.
  for (const point of [...points].sort((a, b) => a.best - b.best)) {
    const [atX, atY] = [x.place(point.x), y.place(point.y)];
    const node = marker(point.best ? style.markers[3] : style.markers[0], atX, atY, {
      class: point.best ? "point best" : "point",
      fill: point.best ? style.palette[5] : style.palette[4],
      // Tab stops at the front only; the table has every point.
      tabindex: point.best ? "0" : "-1",
      role: "img",
    });
    explain(node, `${point.best ? "on the front\n" : ""}${told(spec, point.row)}`);
    link(node, "points", point.key);
    svg.append(node);
    if (point.best && named) {
      const left = atX > (box.left + box.right) / 2;
      svg.append(drawn("text", { x: atX + (left ? -9 : 9), y: atY - 7, "text-anchor": left ? "end" : "start" }, point.key));
    }
  }
  return svg;
}

function tick(label, act) {
  const box = element("input", { type: "checkbox" });
  box.addEventListener("change", () => act(box.checked));
  return element("label", {}, box, ` ${label}`);
}

function scatter(spec, style) {
  const numeric = spec.table.columns.filter((column, place) => place && column.numeric).map((column) => [column.key, titled(column)]);
  const chosen = { x: spec.axes[0], y: spec.axes[1], xLog: false, yLog: false };
  const figure = element("figure", { id: "scatter" });
  const caption = element("figcaption", {}, `Diamonds: on the front of ${spec.objectives.map((key) => titled(spec.table.columns.find((column) => column.key === key))).join(", ")} together. Dashed: the front of the two axes shown.`);
  const draw = (change) => {
    Object.assign(chosen, change);
    hideTip();
    figure.replaceChildren(scatterDrawing(spec, style, chosen), caption);
  };
  draw({});
  const controls = element(
    "div",
    { class: "controls" },
    choice("x-axis", "across", numeric, chosen.x, (x) => draw({ x })),
    tick("logarithmic", (xLog) => draw({ xLog })),
    choice("y-axis", "up", numeric, chosen.y, (y) => draw({ y })),
    tick("logarithmic", (yLog) => draw({ yLog })),
  );
  return [controls, figure];
}
