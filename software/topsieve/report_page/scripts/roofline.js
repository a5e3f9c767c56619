// Runs under the roofs of their machine: operations a second over operations a byte.

function rooflineDrawing(roof, style) {
  const svg = drawing(860, 460, `Roofline of ${roof.machine}`);
  const box = { left: 80, right: 840, top: 14, bottom: 410 };
  const points = [...roof.points, ...roof.layers].filter((point) => point.flops_per_byte && point.tflops);
  const ridge = roof.compute_tflops / roof.bandwidth_tbs;
  const low = Math.min(ridge / 8, ...points.map((point) => point.flops_per_byte / 2));
  const high = Math.max(ridge * 8, ...points.map((point) => point.flops_per_byte * 2));
  const bottom = Math.min(low * roof.bandwidth_tbs, ...points.map((point) => point.tflops / 2));
  const x = scale(low, high, box.left, box.right, true);
  const y = scale(bottom, roof.compute_tflops * 1.8, box.bottom, box.top, true);
  axes(svg, box, x, y, { x: "attention operations a byte of DRAM traffic (FLOP/B)", y: "attention operations a second (TFLOPS)" });
  svg.append(drawn("path", { class: "roof", d: `M${x.place(low)},${y.place(low * roof.bandwidth_tbs)}L${x.place(ridge)},${y.place(roof.compute_tflops)}H${box.right}` }));
  svg.append(drawn("text", { x: box.right, y: y.place(roof.compute_tflops) - 6, "text-anchor": "end" }, `${shown(Number(roof.compute_tflops.toPrecision(3)))} TFLOPS`));
  const rise = Math.sqrt(low * ridge);
  svg.append(drawn("text", { x: x.place(rise) - 8, y: y.place(rise * roof.bandwidth_tbs) - 6, "text-anchor": "end" }, `${shown(Number((1e3 * roof.bandwidth_tbs).toPrecision(3)))} GB/s`));
  const dot = (point, name, kind, shape, colour) => {
    if (!point.flops_per_byte || !point.tflops) {
      return;
    }
    const node = marker(shape, x.place(point.flops_per_byte), y.place(point.tflops), { class: "point", fill: colour, tabindex: "0", role: "img" });
    const share = point.tflops / Math.min(roof.compute_tflops, point.flops_per_byte * roof.bandwidth_tbs);
    explain(node, `${name}\n${shown(point.flops_per_byte)} FLOP/B\n${shown(point.tflops)} TFLOPS, ${percent(share)} of its roof`);
    link(node, kind, point.name);
    svg.append(node);
  };
  roof.layers.forEach((point) => dot(point, `layer ${point.name}`, "layers", "o", style.palette[4]));
  roof.points.forEach((point, index) => dot(point, point.name, "points", ...look(style, index)));
  return svg;
}

// Marker and colour of a run; each round of colours shifts the markers by one.
function look(style, index) {
  const round = Math.floor(index / style.palette.length);
  return [style.markers[(index + round) % style.markers.length], style.palette[index % style.palette.length]];
}

function roofline(roof, style) {
  const legend = element("ul", { class: "legend" });
  roof.points.forEach((point, index) => {
    const [shape, colour] = look(style, index);
    const line = element("li", {}, drawn("svg", { viewBox: "-11 -7 22 14", "aria-hidden": "true" }, marker(shape, 0, 0, { class: "point", fill: colour })), point.name);
    link(line, "points", point.name);
    legend.append(line);
  });
  if (roof.layers.length) {
    const circle = marker("o", 0, 0, { class: "point", fill: style.palette[4] });
    legend.append(element("li", {}, drawn("svg", { viewBox: "-11 -7 22 14", "aria-hidden": "true" }, circle), "its layers"));
  }
  return [element("figure", { id: "roofline-figure" }, rooflineDrawing(roof, style), legend, element("figcaption", {}, `Attention alone, under the roofs of arrays and memory of ${roof.machine}.`))];
}
