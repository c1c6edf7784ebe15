// The app's page. It keeps the photo, its box and its mask, and sends them with each question to /search.
"use strict";
const $ = (id) => document.getElementById(id);
const make = (tag, values = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...inside);
  return element;
};
const LONGEST = 1000; // pixels of the mask that is painted
const LOST_AFTER = 2000; // milliseconds without an answer; asked as often
const INK = "#d55e00", GUESS = "#56b4e9";
const empty = { file: null, sample: null, size: [1, 1], box: null, mask: null, guess: null, painted: false, maskFile: null, maskSize: null, marking: "" };
let asked = { ...empty }; // the photo, and how its object is marked
let about, answer = null, chosen = 0, running = null, address = "", cross = null, corner = null, shownSamples = 12;

// ---- the photo --------------------------------------------------------------------------------------------------
async function take(file) {
  if (!file || !about) return;
  reset();
  if (file.size > about.most_bytes)
    return fail({ problem: `the photo has ${Math.round(file.size / 1e6)} MB, more than ${about.most_bytes / 1e6}`, fix: "make it smaller, or cut the object out with some surroundings" });
  asked.file = file;
  await picture((address = URL.createObjectURL(file)), file.name);
  search(true);
}

async function pick(sample) {
  reset();
  asked.sample = sample;
  for (const button of $("samples").querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === sample.id);
  await picture(sample.picture, sample.id);
  search(true);
}

function reset() {
  running?.abort();
  if (address) URL.revokeObjectURL(address);
  [asked, address, cross, corner] = [{ ...empty }, "", null, null];
  for (const button of $("samples").querySelectorAll("button")) button.setAttribute("aria-pressed", false);
  clear();
  fillBox();
}

async function picture(source, name) {
  const mine = asked, photo = $("photo");
  $("photo-name").textContent = name;
  photo.alt = `The photo ${name}`;
  photo.src = source;
  const shown = await photo.decode().then(() => true, () => false);
  if (mine !== asked) return;
  asked.unseen = !shown; // such as HEIC: the server sends a picture with its answer
  $("question").hidden = !shown;
  if (shown) measure(photo.naturalWidth, photo.naturalHeight);
}

function measure(width, height) {
  asked.size = [width, height];
  $("stage").style.maxWidth = `${(24 * width) / height}rem`;
  for (const [i, side] of sides().entries()) side.max = asked.size[i % 2];
  paint();
}

// ---- the question and its answer ----------------------------------------------------------------------------------
async function search(fresh = false) {
  if (!asked.file && !asked.sample) return;
  running?.abort();
  const mine = (running = new AbortController()), started = performance.now(), form = new FormData();
  if (asked.sample) form.set("sample", asked.sample.id);
  else form.set("photo", asked.file, asked.file.name || "photo");
  if (asked.painted) form.set("mask", await maskFile(), "mask.png");
  else if (asked.maskFile) form.set("mask", asked.maskFile);
  if (asked.box) form.set("box", asked.box.join(","));
  const fields = { marking: asked.marking, top: $("top").value || 8, category: $("category").value, mirror: $("mirror").checked };
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  if (asked.unseen) form.set("preview", true);
  $("verdict").textContent = "Searching …";
  try {
    const reply = await fetch("/search", { method: "POST", body: form, signal: mine.signal });
    const found = await reply.json();
    if (mine !== running) return;
    if (!reply.ok) return fail(found, fresh && reply.status < 500);
    await show(found, (performance.now() - started) / 1000);
  } catch (error) {
    if (mine === running && error.name !== "AbortError") fail({ problem: "the app does not answer", fix: "see whether it still runs, then try again" });
  }
}

function clear() {
  answer = null;
  for (const id of ["problem", "notices", "results", "views", "model"]) $(id).replaceChildren();
  for (const id of ["why", "place", "save", "shape"]) $(id).hidden = true;
  $("marked").textContent = "";
  asked.guess = null;
  $("verdict").textContent = about.samples.length || asked.file ? "" : "Choose a photo.";
}

function fail({ problem, fix }, badPhoto = false) {
  clear();
  $("verdict").textContent = "";
  const again = make("button", { type: "button", textContent: "Try again", onclick: () => search() });
  $("problem").replaceChildren(make("p", { className: "bad" }, make("b", { textContent: `${problem}. ` }), fix ? `How to fix: ${fix}. ` : "", asked.file || asked.sample ? again : ""));
  if (badPhoto || !(asked.file || asked.sample)) {
    $("question").hidden = true;
    again.remove();
  }
  paint();
}

async function show(found, seconds) {
  const mine = asked;
  clear();
  answer = found;
  asked.maskSize = found.mask_size;
  if (asked.unseen && found.preview) {
    $("photo").src = found.preview;
    await $("photo").decode();
    $("question").hidden = false;
    asked.unseen = false;
  }
  measure(...found.size);
  const [mask, guess] = await Promise.all([found.marked, found.guessed].map((source) => source && readMask(source)));
  if (mine !== asked || answer !== found) return;
  if (!asked.painted) asked.mask = mask;
  asked.guess = String(found.box) === String(asked.box) ? guess : null; // not while another box is being drawn
  const own = $("marking").querySelector("option");
  if (found.mask === "given") own.disabled = false;
  else if (!asked.painted && !asked.maskFile && !asked.hadMask) own.disabled = true;
  asked.hadMask ||= found.mask === "given";
  $("marking").value = found.mask; // the next question says it only where the visitor chose it
  $("marked").textContent = `Object: ${found.object}.${asked.mask ? " The orange line is the mask's outline." : ""}${asked.guess ? " The blue line is the guessed outline; everything in the box counts as well." : ""}`;
  $("verdict").textContent = `${found.verdict} (${seconds.toFixed(1)} s)`;
  $("notices").replaceChildren(...found.notices.map((words) => make("p", { textContent: words })));
  $("results").replaceChildren(...shapes().map(card));
  $("why").hidden = $("save").hidden = false;
  $("save").firstElementChild.href = `data:application/json,${encodeURIComponent(JSON.stringify(found, (key, value) => (["marked", "guessed", "preview"].includes(key) ? undefined : value), 1))}`;
  $("place").hidden = !(about.map && found.place);
  look(0);
  placeOnMap();
  paint();
}

function shapes() {
  const far = answer.right_shape;
  return far && far.rank > answer.results.length ? [...answer.results, far] : answer.results;
}

function card(shape, i) {
  const best = shape.weights.indexOf(Math.max(...shape.weights));
  const sign = shape.right === null ? "" : shape.right ? "✓ " : "✗ ";
  const words = shape.right === null ? "" : shape.right ? ", the right shape" : ", not the right shape";
  const button = make("button", { type: "button", title: shape.shape_id, onclick: () => look(i) },
    make("img", { src: shape.views[best], alt: `Rank ${shape.rank}: ${shape.shape_id}${words}` }),
    make("span", { className: "score", textContent: `${shape.rank}. ${sign}${shape.score.toFixed(3)}` }),
    make("span", { textContent: shape.name || shape.category }));
  if (shape.right) button.className = shape.rank > answer.results.length ? "right far" : "right";
  return make("li", {}, button);
}

async function look(i) {
  chosen = i;
  const shape = shapes()[i], name = shape.shape_id, strongest = Math.max(...shape.weights);
  for (const [k, button] of [...$("results").querySelectorAll("button")].entries()) button.setAttribute("aria-pressed", k === i);
  $("shape").hidden = false;
  $("shape-name").textContent = `${shape.rank}. ${name}`;
  const by = [shape.name, shape.category, shape.creator && `by ${shape.creator}`, shape.licence].filter(Boolean).join(", ");
  $("shape-words").textContent = `${by}. ${shape.mesh ? "Turn it with the mouse, by touch or with the arrow keys." : "This gallery has no meshes to show."}`;
  $("why-name").textContent = `The views of ${name}, and how much each counted`;
  $("views").replaceChildren(...shape.views.map((view, v) => {
    const bar = make("div", { className: "bar" }), weight = shape.weights[v], degrees = `${about.azimuths[v].toFixed(0)}°`;
    bar.style.width = `${(100 * weight) / strongest}%`;
    const image = make("img", { src: view, alt: `View from ${degrees}, weight ${weight.toFixed(2)}`, loading: "lazy" });
    return make("li", { className: weight === strongest ? "strongest" : "" }, image, bar, `${degrees}: ${weight.toFixed(2)}`);
  }));
  $("model").replaceChildren();
  if (!shape.mesh) return;
  const mine = answer, reply = await fetch(shape.mesh.replace(/\/mesh(?=\?|$)/, "/solid")).catch(() => null);
  const mesh = reply && reply.ok ? await reply.json() : null;
  if (mine !== answer || chosen !== i) return;
  if (!mesh) return void ($("shape-words").textContent = `${by}. Its model cannot be read.`);
  const canvas = make("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `3D model of ${name}; the arrow keys turn it`);
  $("model").replaceChildren(canvas);
  solid(canvas, mesh);
}

let map = null;
async function placeOnMap() {
  if (!$("place").open || $("place").hidden || !answer) return;
  map ??= await fetch("/map").then((reply) => reply.json());
  if (!answer) return;
  const [left, up] = [0, 1].map((i) => (100 * (answer.place[i] - map.low[i])) / (map.high[i] - map.low[i]));
  const [image, ring] = $("map").children;
  image.src = map.picture;
  Object.assign(ring.style, { left: `${left}%`, top: `${100 - up}%` });
  ring.setAttribute("aria-label", `The photo lies ${left.toFixed(0)} per cent from the left and ${(100 - up).toFixed(0)} per cent from the top`);
}

// ---- box and mask on the photo ------------------------------------------------------------------------------------
const sides = () => [...document.querySelectorAll(".side")];
const tool = () => document.querySelector("[name=tool]:checked").value;

function fillBox() {
  for (const [i, side] of sides().entries()) side.value = asked.box ? asked.box[i] : "";
  paint();
}

function setBox(box, ask = true) {
  [asked.box, asked.guess] = [box, null];
  fillBox();
  if (ask) search();
}

function boxOf([ax, ay], [bx, by]) {
  const [x0, x1] = [ax, bx].sort((a, b) => a - b).map((x) => Math.round(Math.min(asked.size[0], Math.max(0, x))));
  const [y0, y1] = [ay, by].sort((a, b) => a - b).map((y) => Math.round(Math.min(asked.size[1], Math.max(0, y))));
  return x1 - x0 >= 2 && y1 - y0 >= 2 ? [x0, y0, x1, y1] : null;
}

function newMask(full = false) {
  const scale = Math.min(1, LONGEST / Math.max(...asked.size));
  const mask = make("canvas", { width: Math.max(1, Math.round(asked.size[0] * scale)), height: Math.max(1, Math.round(asked.size[1] * scale)) });
  if (full) mask.getContext("2d").fillRect(0, 0, mask.width, mask.height);
  return mask;
}

async function readMask(source) {
  const image = make("img", { src: source }), mask = newMask(), pen = mask.getContext("2d");
  await image.decode();
  pen.drawImage(image, 0, 0, mask.width, mask.height);
  const pixels = pen.getImageData(0, 0, mask.width, mask.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i] < 128 ? 0 : 255;
  pen.putImageData(pixels, 0, 0);
  return mask;
}

function maskFile() {
  const [width, height] = asked.maskSize ?? asked.size, sent = make("canvas", { width, height }), pen = sent.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(asked.mask, 0, 0, width, height);
  pen.globalCompositeOperation = "source-in"; // white where there is mask …
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.globalCompositeOperation = "destination-over"; // … and black elsewhere
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, width, height);
  return new Promise((done) => sent.toBlob(done, "image/png"));
}

function stroke(from, to, adds) {
  asked.mask ??= newMask(!adds);
  [asked.painted, asked.marking] = [true, "given"];
  const pen = asked.mask.getContext("2d"), scale = asked.mask.width / asked.size[0];
  pen.globalCompositeOperation = adds ? "source-over" : "destination-out";
  pen.lineWidth = (Math.max(asked.mask.width, asked.mask.height) * $("brush").value) / 100;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(from[0] * scale, from[1] * scale);
  pen.lineTo(to[0] * scale + 0.01, to[1] * scale);
  pen.stroke();
  $("marking").querySelector("option").disabled = false;
  paint();
}

function paint() {
  const marks = $("marks"), scale = window.devicePixelRatio || 1;
  const width = (marks.width = Math.max(1, Math.round(marks.clientWidth * scale)));
  const height = (marks.height = Math.max(1, Math.round(marks.clientHeight * scale)));
  const pen = marks.getContext("2d"), unit = width / asked.size[0], thick = 1.5 * scale;
  const line = make("canvas", { width, height }), ink = line.getContext("2d");
  const outline = (mask, color) => {
    for (let k = 0; k < 8; k++) ink.drawImage(mask, 2 * thick * Math.cos((k * Math.PI) / 4), 2 * thick * Math.sin((k * Math.PI) / 4), width, height);
    ink.globalCompositeOperation = "source-in";
    ink.fillStyle = color;
    ink.fillRect(0, 0, width, height);
    ink.globalCompositeOperation = "destination-out";
    ink.drawImage(mask, 0, 0, width, height);
    pen.drawImage(line, 0, 0);
    ink.globalCompositeOperation = "source-over";
    ink.clearRect(0, 0, width, height);
  };
  if (asked.guess) outline(asked.guess, GUESS);
  if (asked.mask) {
    outline(asked.mask, INK);
    if (tool() === "add" || tool() === "remove") { // while painting, the mask itself is seen
      ink.drawImage(asked.mask, 0, 0, width, height);
      ink.globalCompositeOperation = "source-in";
      ink.fillRect(0, 0, width, height);
      pen.globalAlpha = 0.3;
      pen.drawImage(line, 0, 0);
      pen.globalAlpha = 1;
    }
  }
  if (asked.box) {
    const [x0, y0, x1, y1] = asked.box.map((side) => side * unit);
    pen.fillStyle = "rgb(0 0 0 / 40%)";
    pen.fill(new Path2D(`M0 0H${width}V${height}H0ZM${x0} ${y0}V${y1}H${x1}V${y0}Z`), "evenodd");
    for (const [color, dash] of [["#fff", []], ["#000", [6 * scale, 6 * scale]]]) {
      Object.assign(pen, { strokeStyle: color, lineWidth: thick });
      pen.setLineDash(dash);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    pen.setLineDash([]);
  }
  if (cross) {
    const [x, y] = cross.map((side) => side * unit);
    for (const [color, wide] of [["#000", 3], ["#fff", 1]]) {
      Object.assign(pen, { strokeStyle: color, lineWidth: wide * scale });
      pen.stroke(new Path2D(`M${x - 14 * scale} ${y}h${28 * scale}M${x} ${y - 14 * scale}v${28 * scale}`));
    }
  }
}

let from = null, later = 0;
const at = (event) => {
  const frame = $("marks").getBoundingClientRect();
  return [((event.clientX - frame.left) / frame.width) * asked.size[0], ((event.clientY - frame.top) / frame.height) * asked.size[1]];
};
$("stage").addEventListener("pointerdown", (event) => {
  if (tool() === "look" || event.button) return;
  event.preventDefault();
  $("stage").setPointerCapture(event.pointerId);
  [from, cross] = [at(event), null];
  if (tool() !== "box") stroke(from, from, tool() === "add");
});
$("stage").addEventListener("pointermove", (event) => {
  if (!from) return;
  const to = at(event);
  if (tool() === "box") setBox(boxOf(from, to), false);
  else {
    stroke(from, to, tool() === "add");
    from = to;
  }
});
$("stage").addEventListener("pointerup", (event) => {
  if (!from) return;
  if (tool() === "box") setBox(boxOf(from, at(event)));
  else search();
  from = null;
});
$("stage").addEventListener("pointercancel", () => (from = null));
$("stage").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const marks = event.key === "Enter" || event.key === " ";
  if (event.key === "Escape") {
    corner = null;
    if (asked.box) setBox(null);
  } else if (step) {
    const pace = (Math.max(...asked.size) * (event.shiftKey ? 10 : 2)) / 100;
    cross ??= asked.size.map((side) => side / 2);
    cross = cross.map((side, i) => Math.min(asked.size[i], Math.max(0, side + pace * step[i])));
    if (corner) setBox(boxOf(corner, cross), false);
  } else if (marks && tool() !== "look") {
    cross ??= asked.size.map((side) => side / 2);
    if (tool() === "box") {
      if (corner) setBox(boxOf(corner, cross));
      corner = corner ? null : cross;
    } else {
      stroke(cross, cross, tool() === "add");
      clearTimeout(later);
      later = setTimeout(search, 500);
    }
  } else return;
  event.preventDefault();
  paint();
});
$("stage").addEventListener("blur", () => {
  cross = corner = null;
  paint();
});
new ResizeObserver(paint).observe($("stage"));

// ---- fields ---------------------------------------------------------------------------------------------------------
for (const id of ["file", "camera"])
  $(id).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = "";
  });
$("mask-file").addEventListener("change", (event) => {
  [asked.maskFile, asked.painted] = [event.target.files[0], false];
  event.target.value = "";
  asked.marking = "given";
  if (asked.maskFile) search();
});
$("paste").addEventListener("click", async () => {
  try {
    for (const item of await navigator.clipboard.read()) {
      const kind = item.types.find((name) => name.startsWith("image/"));
      if (kind) return take(new File([await item.getType(kind)], "pasted photo", { type: kind }));
    }
    $("verdict").textContent = "The clipboard holds no picture.";
  } catch {
    $("verdict").textContent = "This web browser does not let the page read the clipboard; press Ctrl+V instead.";
  }
});
addEventListener("paste", (event) => take([...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"))));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
for (const radio of document.querySelectorAll("[name=tool]"))
  radio.addEventListener("change", () => {
    corner = null;
    $("stage").classList.toggle("draws", tool() !== "look");
    paint();
  });
for (const side of sides())
  side.addEventListener("change", () => {
    const values = sides().map((each) => each.value);
    if (values.every((value) => value !== "")) setBox(boxOf(values.slice(0, 2).map(Number), values.slice(2).map(Number)));
  });
$("no-box").addEventListener("click", () => asked.box && setBox(null));
$("undo").addEventListener("click", () => {
  Object.assign(asked, { painted: false, maskFile: null, mask: null, marking: "" });
  search();
});
$("marking").addEventListener("change", () => {
  asked.marking = $("marking").value;
  search();
});
for (const id of ["category", "top", "mirror"]) $(id).addEventListener("change", () => search());
$("place").addEventListener("toggle", placeOnMap);
$("more").addEventListener("click", () => {
  shownSamples += 24;
  listSamples();
});
for (const id of ["sample-category", "sample-outcome"]) $(id).addEventListener("change", listSamples);

function listSamples() {
  const [category, outcome] = [$("sample-category").value, $("sample-outcome").value];
  const kept = about.samples.filter((each) => (!category || each.category === category) && (!outcome || String(each.right) === outcome));
  $("samples").replaceChildren(...kept.slice(0, shownSamples).map((each) => {
    const sign = each.right === null ? "" : each.right ? " ✓" : " ✗";
    const button = make("button", { type: "button", value: each.id, title: each.id, onclick: () => pick(each) },
      make("img", { src: each.picture, alt: `Test photo ${each.id}`, loading: "lazy" }), make("span", { textContent: each.category + sign }));
    button.setAttribute("aria-pressed", asked.sample?.id === each.id);
    return make("li", {}, button);
  }));
  $("more").hidden = kept.length <= shownSamples;
}

// ---- the server ----------------------------------------------------------------------------------------------------
async function beat() {
  try {
    const { notice } = await (await fetch("/health", { signal: AbortSignal.timeout(LOST_AFTER) })).json();
    $("lost").hidden = true;
    $("worth").textContent = notice;
    if (!about) await start();
  } catch {
    $("lost").hidden = false;
  }
  setTimeout(beat, LOST_AFTER);
}

async function start() {
  about = await (await fetch("/about")).json();
  $("about").textContent = about.words;
  $("limits").textContent = `${about.limits}. Photos are not kept.`;
  $("curl").textContent = `curl -F photo=@chair.jpg -F top=5 ${location.origin}/search`;
  const options = (names) => names.map((name) => make("option", { value: name, textContent: name }));
  $("category").append(...options(about.categories));
  $("sample-category").append(...options([...new Set(about.samples.map((each) => each.category))].sort()));
  $("sample-outcome-label").hidden = about.samples.every((each) => each.right === null);
  $("tests").hidden = !about.samples.length;
  if (matchMedia("(pointer: coarse)").matches) document.querySelector("[name=tool][value=look]").checked = true; // a finger scrolls
  $("stage").classList.toggle("draws", tool() !== "look");
  listSamples();
  if (about.samples.length) await pick(about.samples[0]);
}
start().catch(() => ($("lost").hidden = false)).finally(beat);
