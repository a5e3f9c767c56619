// Making elements of the page and of its drawings.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// An HTML element; children are elements or texts, and a text is never read as markup.
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// An SVG element.
function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

// A drawing that is as wide as the page; `label` says to those who do not see it what it shows.
function drawing(width, height, label) {
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
}

function section(id, heading, ...children) {
  return element("section", { id, "aria-labelledby": `${id}-heading` }, element("h2", { id: `${id}-heading` }, heading), ...children);
}

// A labelled drop-down list; `choose` hears the chosen value.
function choice(id, label, options, chosen, choose) {
  const select = element("select", { id });
  for (const [value, text] of options) {
    const option = element("option", { value }, text);
    option.selected = value === chosen;
    select.append(option);
  }
  select.addEventListener("change", () => choose(select.value));
  return element("label", { for: id }, `${label} `, select);
}

function push(text, label, act) {
  const button = element("button", { type: "button", "aria-label": label }, text);
  button.addEventListener("click", act);
  return button;
}
