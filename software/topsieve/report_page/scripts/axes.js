// Scales of drawings: a number's place, round ticks, grid and labels.

// A linear scale, or a logarithmic one, from [low, high] to [start, end] of the drawing.
function scale(low, high, start, end, logarithmic) {
  const bend = logarithmic ? Math.log : (value) => value;
  const place = (value) => start + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (end - start);
  return { place, ticks: logarithmic ? decades(low, high) : rounds(low, high) };
}

// About six round numbers from low to high.
function rounds(low, high) {
  const rough = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (let count = Math.ceil(low / step); count * step <= high * (1 + 1e-12); count += 1) {
    ticks.push(Number((count * step).toPrecision(12)));
  }
  return ticks;
}

// 1, 2 and 5 of each decade from low to high; of many decades only the ones, of a part of one round numbers.
function decades(low, high) {
  const many = high / low > 1e4;
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of many ? [1] : [1, 2, 5]) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= low && tick <= high) {
        ticks.push(tick);
      }
    }
  }
  return ticks.length > 1 ? ticks : rounds(low, high);
}

// The span of `values` with a margin on both sides; one value alone has room too.
function span(values, logarithmic) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (logarithmic) {
    const margin = Math.max((high / low) ** 0.06, 1.05);
    return [low / margin, high * margin];
  }
  const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

function short(value) {
  const size = Math.abs(value);
  const [factor, letter] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]].find(([least]) => size >= least) || [1, ""];
  return `${Number((value / (letter === "k" ? 1e3 : factor)).toPrecision(4))}${letter}`;
}

// Grid, ticks and titles around the box; x and y are scales.
function axes(svg, box, x, y, titles) {
  for (const tick of x.ticks) {
    const at = x.place(tick);
    svg.append(drawn("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    svg.append(drawn("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, short(tick)));
  }
  for (const tick of y.ticks) {
    const at = y.place(tick);
    svg.append(drawn("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
    svg.append(drawn("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, short(tick)));
  }
  const middle = (box.top + box.bottom) / 2;
  svg.append(drawn("path", { class: "frame", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` }));
  svg.append(drawn("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, titles.x));
  svg.append(drawn("text", { transform: `translate(${box.left - 54},${middle}) rotate(-90)`, "text-anchor": "middle" }, titles.y));
}

// A marker of the figures' alphabet around (0, 0).
const SHAPES = {
  o: "M5,0A5,5 0 1 1 -5,0A5,5 0 1 1 5,0Z",
  s: "M-4.5,-4.5H4.5V4.5H-4.5Z",
  "^": "M0,-5.5L5.5,4.5H-5.5Z",
  D: "M0,-6L6,0L0,6L-6,0Z",
  v: "M0,5.5L5.5,-4.5H-5.5Z",
  P: "M-2,-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
  X: "M-5,-3L-3,-5L0,-2L3,-5L5,-3L2,0L5,3L3,5L0,2L-3,5L-5,3L-2,0Z",
  "*": "M0,-6.5L1.6,-2.2H6.2L2.6,0.7L3.9,5.3L0,2.6L-3.9,5.3L-2.6,0.7L-6.2,-2.2H-1.6Z",
};

function marker(shape, x, y, attributes) {
  return drawn("path", { d: SHAPES[shape], transform: `translate(${x},${y})`, ...attributes });
}
