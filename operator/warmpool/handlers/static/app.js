// The page: one view per address behind the #. All texts are set as texts, never as HTML.
const main = document.getElementById("main");
const status = document.getElementById("status");
let now = null; // what the stream told last
let refresh = false; // whether the view is drawn again when something has changed
let drawing = 0;

// -- small helpers --------------------------------------------------------------------------

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  return answer.json();
}

function seconds(span) {
  if (span === null || span === undefined) return "–";
  if (span < 1) return `${Math.round(span * 1000)} ms`;
  if (span < 120) return `${span.toFixed(1)} s`;
  if (span < 7200) return `${Math.round(span / 60)} min`;
  if (span < 172800) return `${(span / 3600).toFixed(1)} h`;
  return `${(span / 86400).toFixed(1)} days`;
}

function moment(text) {
  const shown = new Date(text).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
  return el("time", { datetime: text }, shown);
}

const named = (ref) => `${ref.namespace}/${ref.name}`;
const link = (href, text) => el("a", { href }, text);
const poolLink = (ref) => link(`#/pool/${ref.namespace}/${ref.name}`, named(ref));
const vmLink = (ref) => link(`#/vm/${ref.namespace}/${ref.name}`, named(ref));

function table(caption, columns, rows) {
  if (!rows.length) return el("p", { class: "none" }, `${caption}: none`);
  const classOf = (column) => (column.number ? { class: "number" } : {});
  const head = columns.map((c) => el("th", { scope: "col", ...classOf(c) }, c.title));
  const body = rows.map((row) => {
    const cells = columns.map((c) => el("td", { "data-label": c.title, ...classOf(c) }, c.cell(row)));
    const about = cells[0].querySelector("a");
    return el("tr", about ? { "data-key": about.getAttribute("href") } : {}, cells);
  });
  return el("div", { class: "wide" }, el("table", { class: "cards" },
    el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}

function numbers(pairs) {
  return el("dl", { class: "numbers" }, pairs.map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

// -- what is asked for ----------------------------------------------------------------------

const chosen = { hours: "24", pool: "" };

function choices(withPool) {
  const hours = el("select", { id: "hours" });
  for (const [value, text] of [["1", "an hour"], ["24", "a day"], ["168", "a week"], ["720", "30 days"], ["2160", "90 days"]])
    hours.append(el("option", value === chosen.hours ? { value, selected: "" } : { value }, text));
  hours.onchange = () => { chosen.hours = hours.value; draw(); };
  const form = el("form", {}, el("label", { for: "hours" }, "The last "), hours);
  form.onsubmit = (event) => event.preventDefault();
  if (withPool) {
    const pool = el("select", { id: "pool" }, el("option", { value: "" }, "all pools"));
    for (const each of (now ? now.pools : []).map(named))
      pool.append(el("option", each === chosen.pool ? { value: each, selected: "" } : { value: each }, each));
    pool.onchange = () => { chosen.pool = pool.value; draw(); };
    form.append(el("label", { for: "pool" }, "of "), pool);
  }
  return form;
}

const report = (name) =>
  ask(`api/${name}?hours=${chosen.hours}&pool=${encodeURIComponent(chosen.pool)}`);

// -- views ----------------------------------------------------------------------------------

const STATES = { ready: "●", claimed: "■", building: "◌", failed: "✕", going: "–" };

function meter(ready, wanted) {
  const part = wanted ? Math.min(1, ready / wanted) : 1;
  return svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "back", width: 100, height: 6, rx: 1 }),
    svg("rect", { class: "full", width: 100 * part, height: 6, rx: 1 }));
}

const byName = (one, other) => named(one).localeCompare(named(other), undefined, { numeric: true });

function poolsView() {
  const rows = now ? [...now.pools].sort(byName) : [];
  const sum = (key) => rows.reduce((total, pool) => total + pool[key], 0);
  const columns = [
    { title: "Pool", cell: poolLink },
    { title: "Ready / wanted", cell: (p) => el("span", {}, `${p.ready} / ${p.wanted}`, meter(p.ready, p.wanted)) },
    { title: "Building", number: true, cell: (p) => String(p.building) },
    { title: "Claimed", number: true, cell: (p) => String(p.claimed) },
    { title: "Failed", number: true, cell: (p) => el("span", p.failed ? { class: "failed" } : {}, String(p.failed)) },
    { title: "Claimable", number: true, cell: (p) => String(p.claimable.any) },
    { title: "on own hypervisors", number: true, cell: (p) => String(p.claimable.hypervisors) },
    { title: "on own racks", number: true, cell: (p) => String(p.claimable.racks) },
    { title: "State", cell: (p) => el("span", {}, p.state, p.failure ? el("span", { class: "failed" }, ` ${p.failure}`) : null) },
  ];
  return [el("h1", {}, "Pools"),
    numbers([["Pools", rows.length], ["Ready", sum("ready")], ["Wanted", sum("wanted")],
      ["Building", sum("building")], ["Claimed", sum("claimed")], ["Failed", sum("failed")]]),
    table("All pools, now", columns, rows)];
}

const byHost = (one, other) => one.hypervisor.localeCompare(other.hypervisor, undefined, { numeric: true });

function host(each) {
  const entries = Object.entries(each.vms);
  const said = entries.map(([state, count]) => `${count} ${state}`).join(", ");
  return el("li", { "data-key": each.hypervisor }, el("span", { class: "name" }, each.hypervisor || "not placed yet"),
    el("span", { class: "dots", "aria-hidden": "true" }, entries.map(([state, count]) =>
      el("span", { class: state }, STATES[state].repeat(Math.min(count, 40))))),
    el("span", {}, said));
}

async function poolView(namespace, name) {
  const found = await ask(`api/pools/${namespace}/${name}`);
  const pool = found.pool;
  const legend = Object.entries(STATES).flatMap(([state, sign]) => [el("span", { class: state }, `${sign} ${state}`), "  "]);
  const racks = found.racks.map((rack) => {
    const total = rack.hypervisors.reduce((all, each) => all + Object.values(each.vms).reduce((a, b) => a + b, 0), 0);
    return el("li", { "data-key": `${rack.zone}/${rack.rack}` }, el("h3", {}, `${rack.rack || "rack not known"}${rack.zone ? `, ${rack.zone}` : ""}: ${total}`),
      el("ul", { class: "hosts" }, rack.hypervisors.sort(byHost).map(host)));
  });
  const columns = [
    { title: "VM", cell: vmLink }, { title: "State", cell: (v) => el("span", { class: v.state }, v.state) },
    { title: "Rack", cell: (v) => v.rack }, { title: "Hypervisor", cell: (v) => v.hypervisor },
    { title: "Claim", cell: (v) => v.claim },
  ];
  return [el("h1", {}, `Pool ${named(pool)}`),
    numbers([["Ready / wanted", `${pool.ready} / ${pool.wanted}`], ["Building", pool.building], ["Claimed", pool.claimed],
      ["Claimable", pool.claimable.any], ["on own hypervisors", pool.claimable.hypervisors], ["on own racks", pool.claimable.racks]]),
    pool.message ? el("p", {}, pool.message) : null, pool.failure ? el("p", { class: "failed" }, pool.failure) : null,
    el("h2", {}, "Racks and hypervisors"), el("p", {}, legend),
    racks.length ? el("ul", { class: "racks" }, racks) : el("p", { class: "none" }, "It has no VMs"),
    el("details", {}, el("summary", {}, `All ${found.vms.length} VMs`), table(`VMs of ${named(pool)}`, columns, found.vms))];
}

function chart(bars, width, hours) {
  const W = 760, H = 200, LEFT = 44, BOTTOM = 24, RIGHT = 76;
  const end = Date.now(), begin = end - hours * 3600e3;
  const x = (time) => LEFT + ((time - begin) / (end - begin)) * (W - LEFT - RIGHT);
  const most = Math.max(1, ...bars.map((bar) => Object.values(bar.results).reduce((a, b) => a + b, 0)));
  const longest = Math.max(1, ...bars.map((bar) => bar.took.p90 || 0));
  const y = (count) => (H - BOTTOM) * (1 - count / most) + 4;
  const picture = svg("svg", { class: "chart builds", viewBox: `0 -14 ${W} ${H + 20}`, role: "img",
    "aria-label": "Builds over time; the table below has the same numbers" });
  for (const part of [0, 0.5, 1]) {
    picture.append(svg("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: y(part * most), y2: y(part * most) }),
      svg("text", { x: LEFT - 5, y: y(part * most) + 4, "text-anchor": "end" }, String(Math.round(part * most))),
      svg("text", { x: W - RIGHT + 5, y: y(part * most) + 4 }, seconds(part * longest)));
  }
  const wide = Math.max(2, x(begin + width * 1000) - x(begin) - 1);
  const lines = { p50: [], p90: [] };
  for (const bar of bars) {
    const from = x(Date.parse(bar.start)), left = Math.max(LEFT, from), right = Math.min(W - RIGHT, from + wide);
    let below = 0;
    for (const result of ["ready", "failed", "refused"]) {
      const count = bar.results[result] || 0;
      if (!count) continue;
      picture.append(svg("rect", { class: result, x: left, width: Math.max(1, right - left), y: y(below + count), height: y(below) - y(below + count) },
        svg("title", {}, `${new Date(bar.start).toLocaleString()}: ${count} ${result}`)));
      below += count;
    }
    for (const part of ["p50", "p90"])
      if (bar.took[part] !== null) lines[part].push(`${(left + right) / 2},${(H - BOTTOM) * (1 - bar.took[part] / longest) + 4}`);
  }
  for (const [part, points] of Object.entries(lines)) picture.append(svg("polyline", { class: part, points: points.join(" ") }));
  for (const part of [0, 0.5, 1]) {
    const time = new Date(begin + part * (end - begin));
    const text = hours > 48 ? time.toLocaleDateString() : time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    picture.append(svg("text", { x: x(time.getTime()), y: H, "text-anchor": ["start", "middle", "end"][part * 2] }, text));
  }
  return picture;
}

async function buildsView() {
  const found = await report("builds");
  const results = found.results;
  const bars = [
    { title: "From", cell: (b) => moment(b.start) },
    ...["ready", "failed", "refused"].map((r) => ({ title: r, number: true, cell: (b) => String(b.results[r] || 0) })),
    ...["p50", "p90", "p99"].map((p) => ({ title: p, number: true, cell: (b) => seconds(b.took[p]) })),
  ];
  const failures = [
    { title: "When", cell: (r) => moment(r.at) }, { title: "VM", cell: (r) => vmLink(r.vm.ref) },
    { title: "Result", cell: (r) => el("span", { class: r.result }, r.result) }, { title: "Reason", cell: (r) => r.reason || "" },
    { title: "Hypervisor", cell: (r) => (r.vm.place || {}).hypervisor || "" }, { title: "What the cloud says", cell: (r) => r.message },
  ];
  const errors = [{ title: "Result", cell: (e) => el("span", { class: e.result }, e.result) },
    { title: "Reason", cell: (e) => e.reason }, { title: "Builds", number: true, cell: (e) => String(e.count) }];
  return [el("h1", {}, "Builds"), choices(true),
    numbers([["Ready", results.ready || 0], ["Failed", results.failed || 0], ["Refused", results.refused || 0],
      ["Half within", seconds(found.took.p50)], ["90 % within", seconds(found.took.p90)], ["99 % within", seconds(found.took.p99)]]),
    chart(found.bars, found.width, Number(chosen.hours)),
    el("p", {}, "Bars: ", el("span", { class: "ready" }, "ready"), ", ", el("span", { class: "failed" }, "failed"), ", ",
      el("span", { class: "building" }, "refused"), " (left scale). Lines: half of the builds within (full), 90 % within (dashed; right scale)."),
    el("details", {}, el("summary", {}, "The same as a table"), table("Builds over time", bars, found.bars)),
    el("h2", {}, "Errors"), table("Why builds failed", errors, found.errors), table("The last builds that failed", failures, found.failures)];
}

async function claimsView() {
  const found = await report("claims");
  const columns = [
    { title: "When", cell: (r) => moment(r.at) }, { title: "Claim", cell: (r) => named(r.claim) },
    { title: "VMs", number: true, cell: (r) => String(r.asks.reduce((all, ask) => all + ask.count, 0)) },
    { title: "Pools", cell: (r) => r.asks.map((ask) => named(ask.pool)).join(", ") }, { title: "Mode", cell: (r) => r.mode },
    { title: "Answer", cell: (r) => el("span", { class: r.result }, `${r.result}${r.result === "refused" ? `: ${r.reason}` : ""}`) },
    { title: "after", number: true, cell: (r) => seconds(r.wait) }, { title: "", cell: (r) => r.message },
  ];
  const reasons = [{ title: "Answer", cell: (e) => el("span", { class: e.result }, e.result) },
    { title: "Reason", cell: (e) => e.reason }, { title: "Claims", number: true, cell: (e) => String(e.count) }];
  return [el("h1", {}, "Claims"), choices(true),
    numbers([["Half bound within", seconds(found.waits.p50)], ["90 % within", seconds(found.waits.p90)], ["99 % within", seconds(found.waits.p99)]]),
    table("Answers", reasons, found.reasons), table("The last claims", columns, found.claims)];
}

async function removalsView() {
  const found = await report("removals");
  const columns = [
    { title: "When", cell: (r) => moment(r.at) }, { title: "VM", cell: (r) => vmLink(r.vm.ref) },
    { title: "Pool", cell: (r) => poolLink(r.vm.pool) }, { title: "Flavor", cell: (r) => r.vm.flavor },
    { title: "Zone", cell: (r) => (r.vm.place || {}).zone || "" }, { title: "Rack", cell: (r) => (r.vm.place || {}).rack || "" },
    { title: "Why", cell: (r) => (r.claim ? `claim ${named(r.claim)}` : r.why) }, { title: "Stood ready", number: true, cell: (r) => seconds(r.stood) },
  ];
  const reasons = [{ title: "Why", cell: (e) => e.reason }, { title: "VMs", number: true, cell: (e) => String(e.count) }];
  return [el("h1", {}, "Removals from pools"), choices(true),
    table("Why", reasons, found.reasons), table("The last removals", columns, found.removals)];
}

function terms(changes) {
  // Newest first in, newest first out: each beginning with its end, if that was told.
  // Nobody says when a leader died: at the latest when the next one began.
  const ends = new Map(changes.filter((c) => c.result === "ended").map((c) => [c.epoch, c]));
  const began = changes.filter((c) => c.result === "began");
  return began.map((c, index) => {
    const end = ends.get(c.epoch);
    const until = end ? Date.parse(end.at) : index ? Date.parse(began[index - 1].at) : Date.now();
    return { ...c, end, until };
  }).filter((term) => term.until >= Date.now() - Number(chosen.hours) * 3600e3);
}

function timeline(found, hours) {
  const W = 760, ROW = 26, LEFT = 170, end = Date.now(), begin = end - hours * 3600e3;
  const who = [...new Set(found.map((t) => t.identity))];
  const x = (time) => LEFT + ((Math.max(time, begin) - begin) / (end - begin)) * (W - LEFT - 10);
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${who.length * ROW + 10}`, role: "img",
    "aria-label": "Who led when; the table below says the same" });
  who.forEach((identity, row) => picture.append(svg("text", { x: 0, y: row * ROW + 20 }, identity.slice(0, 26)),
    svg("line", { class: "axis", x1: LEFT, x2: W - 10, y1: row * ROW + 16, y2: row * ROW + 16 })));
  found.forEach((term) => {
    const left = x(Date.parse(term.at));
    picture.append(svg("rect", { class: "ready", x: left, y: who.indexOf(term.identity) * ROW + 8, height: 16, rx: 3,
      width: Math.max(3, x(term.until) - left) }, svg("title", {}, `${term.identity}, epoch ${term.epoch}`)));
  });
  return picture;
}

async function leadersView() {
  const found = terms((await ask(`api/leaderships?hours=${chosen.hours}`)).changes);
  const columns = [
    { title: "Began", cell: (t) => moment(t.at) }, { title: "Replica", cell: (t) => t.identity }, { title: "Epoch", number: true, cell: (t) => String(t.epoch) },
    { title: "Ended", cell: (t) => (t.end ? moment(t.end.at) : "no end told") }, { title: "Led", number: true, cell: (t) => (t.end ? seconds(t.end.led) : "–") },
  ];
  return [el("h1", {}, "Leaders"), choices(false), found.length ? timeline(found, Number(chosen.hours)) : null, table("Leaderships", columns, found)];
}

function told(record) {
  const place = (record.vm && record.vm.place) || {};
  const where = [place.zone, place.rack, place.hypervisor].filter(Boolean).join(", ");
  switch (record.kind) {
    case "build": {
      const phases = Object.entries(record.phases || {}).map(([name, span]) => `${name} ${seconds(span)}`).join(", ");
      const what = record.result === "ready" ? `built in ${seconds(record.took)}${where ? ` on ${where}` : ""}` : `build ${record.result}: ${record.reason} ${record.message}`;
      return `${what}${phases ? ` (${phases})` : ""}`;
    }
    case "removal": return `left pool ${named(record.vm.pool)}: ${record.claim ? `claim ${named(record.claim)} has it` : record.why}`;
    case "release": return `given back by claim ${named(record.claim)}: ${record.policy}`;
    default: return record.kind;
  }
}

async function vmView(namespace, name) {
  const found = await ask(`api/vms/${namespace}/${name}`);
  const steps = found.records.map((record) => el("li", {}, moment(record.at), ` ${told(record)}`));
  const first = found.records[0];
  return [el("h1", {}, `VM ${namespace}/${name}`), first ? el("p", {}, "Of pool ", poolLink(first.vm.pool)) : null,
    steps.length ? el("ol", { class: "story" }, steps) : el("p", { class: "none" }, "This replica's history tells nothing of it")];
}

// -- changing what is shown -------------------------------------------------------------------

// What is there already stays the same element, so that focus, selection and scrolling stay with it.
function become(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes])
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes)
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  becomeAll(old, [...fresh.childNodes]);
}

const likeness = (node) => `${node.nodeName} ${(node.dataset && node.dataset.key) ?? ""}`;

function becomeAll(parent, wanted) {
  const spare = new Map(); // by what they are like, in their order
  for (const node of parent.childNodes) {
    const like = likeness(node);
    spare.has(like) ? spare.get(like).push(node) : spare.set(like, [node]);
  }
  const stay = wanted.map((fresh) => {
    const old = spare.get(likeness(fresh))?.shift();
    if (old) become(old, fresh);
    return old || fresh;
  });
  for (const nodes of spare.values()) nodes.forEach((node) => node.remove());
  let place = parent.firstChild;
  for (const node of stay) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place); // what is moved loses the focus, so only what has to be
  }
}

function show(content) {
  if (main.dataset.view !== location.hash) {
    main.replaceChildren(...content);
    main.dataset.view = location.hash;
    return;
  }
  const focused = document.activeElement;
  becomeAll(main, content);
  if (main.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

// -- turning pages --------------------------------------------------------------------------

const VIEWS = { "": poolsView, pool: poolView, builds: buildsView, claims: claimsView, removals: removalsView, leaders: leadersView, vm: vmView };
const LIVE = new Set(["", "pool"]);

async function draw() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const mine = ++drawing;
  for (const each of document.querySelectorAll("nav a"))
    each.hash === (view ? `#/${view === "pool" || view === "vm" ? "" : view}` : "#/") ? each.setAttribute("aria-current", "page") : each.removeAttribute("aria-current");
  let content;
  try {
    content = await (VIEWS[view] || poolsView)(...rest);
  } catch (error) {
    content = [el("h1", {}, "That did not work"), el("p", { class: "failed", role: "alert" }, error.message)];
  }
  if (mine !== drawing) return; // another view was asked for meanwhile
  show(content.filter(Boolean));
  document.title = `${main.querySelector("h1").textContent} – warmpool`;
  refresh = LIVE.has(view);
}

function listen() {
  const stream = new EventSource("api/live");
  stream.onmessage = (event) => {
    const first = now === null;
    now = JSON.parse(event.data);
    status.textContent = `${now.identity} ${now.leads ? "leads" : "stands by"}, live`;
    if (first || refresh) drawLive();
  };
  stream.onerror = () => { status.textContent = "not connected: what is shown may be old"; };
}

let busy = false, again = false;
async function drawLive() { // one after the other: changes that come faster than answers show together
  again = true;
  if (busy) return;
  busy = true;
  while (again) {
    again = false;
    await draw();
  }
  busy = false;
}

addEventListener("hashchange", () => { draw().then(() => main.focus()); });
draw();
listen();
