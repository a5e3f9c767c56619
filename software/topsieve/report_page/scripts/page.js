// Puts the page together from its data.

function oneRun(data, name) {
  const run = data.runs.find((candidate) => candidate.name === name);
  const parts = [element("h3", {}, "Where the cycles go"), stalls(run, data.style), element("h3", {}, "When each unit works"), ...timeline(run, data.style), element("h3", {}, "Tables")];
  for (const table of run.tables) {
    parts.push(sortable(table, ["units", "layers"].includes(table.id) ? table.id : null));
  }
  parts.push(element("h3", {}, "Assumptions behind the numbers"), element("ul", { id: "notes" }, ...run.notes.map((note) => element("li", {}, note))));
  return parts;
}

function runSection(data) {
  const place = element("div", { id: "run" });
  const names = data.runs.map((run) => run.name);
  const choose = (name) => place.replaceChildren(...oneRun(data, name));
  choose(names[0]);
  const controls = names.length > 1 ? [element("div", { class: "controls" }, choice("run-name", "run", names.map((name) => [name, name]), names[0], choose))] : [];
  return section("one-run", "Inside one run", ...controls, place);
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");
  page.append(section("summary", "Summary", facts(data.summary)));
  if (data.points) {
    page.append(section("trade-offs", "Trade-offs", ...scatter(data.points, data.style)));
    page.append(section("points", data.points.noun, sortable(data.points.table, "points")));
  }
  if (data.refused && data.refused.rows.length) {
    page.append(section("refusals", "Refused", sortable(data.refused, null)));
  }
  if (data.roofline) {
    page.append(section("roofline", "Under the roofs", ...roofline(data.roofline, data.style)));
  }
  if (data.runs.length) {
    page.append(runSection(data));
  }
}

start();
