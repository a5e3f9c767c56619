// When each unit works: zoom with the wheel, the keys + and - or the buttons, move by dragging or with the arrow keys.

// The colour of a busy share between the shades of the figures.
function shade(shades, share) {
  const place = Math.min(1, Math.max(0, share)) * (shades.length - 1);
  const first = Math.min(Math.floor(place), shades.length - 2);
  const parts = (colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  const [from, to] = [parts(shades[first]), parts(shades[first + 1])];
  return `rgb(${from.map((value, index) => Math.round(value + (to[index] - value) * (place - first))).join(",")})`;
}

function timeline(run, style) {
  const { units, names, slices } = run.timeline;
  const height = 26 * units.length + 50;
  const svg = drawing(860, height, `When each unit works over ${shown(run.cycles)} cycles; plus and minus zoom, arrows move`);
  svg.classList.add("timeline");
  svg.setAttribute("tabindex", "0");
  const box = { left: 150, right: 840, top: 4, bottom: height - 46 };
  const least = Math.max(1, Math.min(20, run.cycles));
  const view = { start: 0, length: run.cycles };
  const content = drawn("g");
  svg.append(content);
  units.forEach((unit, index) => svg.append(drawn("text", { x: box.left - 8, y: box.top + 26 * index + 17, "text-anchor": "end" }, words(unit))));

  const show = (start, length) => {
    view.length = Math.min(run.cycles, Math.max(least, length));
    view.start = Math.min(run.cycles - view.length, Math.max(0, start));
    svg.dataset.start = view.start;
    svg.dataset.length = view.length;
    content.replaceChildren(...pieces());
  };
  const pieces = () => {
    const end = view.start + view.length;
    const x = scale(view.start * run.cycle_us, end * run.cycle_us, box.left, box.right, false);
    const found = [];
    for (const time of x.ticks) {
      const at = x.place(time);
      found.push(drawn("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
      found.push(drawn("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, String(time)));
    }
    found.push(drawn("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, "time (µs)"));
    for (const [unit, start, length, busy, name] of slices) {
      if (start >= end || start + length <= view.start) {
        continue;
      }
      const left = x.place(Math.max(start, view.start) * run.cycle_us);
      const width = Math.max(x.place(Math.min(start + length, end) * run.cycle_us) - left, 0.3);
      const piece = drawn("rect", { class: "slice", x: left, y: box.top + 26 * unit + 2, width, height: 22, fill: shade(style.busy_shades, busy / length), role: "img" });
      explain(piece, `${words(units[unit])}: ${names[name]}\nfrom ${shown(start * run.cycle_us)} µs (cycle ${shown(start)})\n${shown(busy)} of ${shown(length)} cycles busy, ${percent(busy / length)}`);
      found.push(piece);
    }
    return found;
  };
  const zoom = (factor, share = 0.5) => show(view.start + view.length * share * (1 - 1 / factor), view.length / factor);
  const move = (share) => show(view.start + share * view.length, view.length);
  const shareAt = (event) => {
    const frame = svg.getBoundingClientRect();
    const at = ((event.clientX - frame.left) / frame.width) * 860;
    return Math.min(1, Math.max(0, (at - box.left) / (box.right - box.left)));
  };

  const keys = { "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25), 0: () => show(0, run.cycles) };
  svg.addEventListener("keydown", (event) => {
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  // The wheel scrolls the page as ever until the timeline is chosen.
  svg.addEventListener("wheel", (event) => {
    if (document.activeElement === svg || event.ctrlKey) {
      event.preventDefault();
      hideTip();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, shareAt(event));
    }
  }, { passive: false });
  let held = null;
  svg.addEventListener("pointerdown", (event) => {
    held = { share: shareAt(event), start: view.start };
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    if (held && event.buttons) {
      show(held.start + (held.share - shareAt(event)) * view.length, view.length);
    }
  });
  svg.addEventListener("pointerup", () => {
    held = null;
  });

  show(0, run.cycles);
  const controls = element("div", { class: "controls" }, push("+", "zoom in", () => zoom(2)), push("−", "zoom out", () => zoom(0.5)), push("←", "earlier", () => move(-0.25)), push("→", "later", () => move(0.25)), push("whole run", "show the whole run", () => show(0, run.cycles)));
  const caption = element("figcaption", {}, "The darker a slice, the larger its share of busy cycles. With the timeline chosen, the wheel zooms and arrow keys move.");
  return [controls, element("figure", { id: "timeline" }, svg, caption)];
}
